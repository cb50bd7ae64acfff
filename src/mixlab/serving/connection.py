"""One connection of uvicorn's that does not wait for ever, and whose own errors are JSON too.

It builds on what uvicorn does not promise, so pyproject.toml bounds its version.
"""

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mixlab.serving.gate import HEADERS
from mixlab.serving.refusal import error_body


class PatientConnection(H11Protocol):
    """Closes a connection that takes too long to send a header, to start another request or to read its answer.

    How long a body may take is decided where it is read.
    """

    patience = 10.0  # seconds
    _timer: asyncio.TimerHandle | None = None
    _is_silent = True  # nothing has come since the last answer

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._give_time()

    def data_received(self, data: bytes) -> None:
        if self._is_silent:
            self._is_silent = False
            self._give_time()
        super().data_received(data)
        self._stop_where_busy()

    def on_response_complete(self) -> None:
        self._is_silent = True
        self._give_time()
        super().on_response_complete()
        self._stop_where_busy()  # with the next request, which was there already

    def pause_writing(self) -> None:
        super().pause_writing()
        self._give_time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_where_busy()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        status = hint if hint < 500 else 400  # h11 means 501 for a coding it does not know
        why = str(sys.exception() or msg)
        body = error_body(f"this is no request that can be read: {why}")
        headers = {
            **HEADERS,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        try:
            answer = self.conn.send(h11.Response(status_code=status, headers=list(headers.items())))
            self.transport.write((answer or b"") + (self.conn.send(h11.Data(data=body)) or b""))
        except h11.LocalProtocolError:  # an answer has begun already
            pass
        self.transport.close()
        self._give_time()

    def _give_time(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.patience, self.transport.abort)

    def _stop_where_busy(self) -> None:
        """Give all the time there is to an answer that is being made and can be written."""
        if self.cycle is not None and not self.cycle.response_complete and not self.flow.write_paused:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
