"""Reading a request's body: no longer, no slower and no more at once than the limits say."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mixlab.serving.limits import Limits
from mixlab.serving.refusal import Refusal, busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
CLIENT_GONE = 499  # the status, which nobody gets, of a request whose client has left; as nginx counts it
LINGER = 2.0  # seconds that a refused body is read and thrown away, so that its sender sees the answer


class ClientGone(Exception):
    """The client has closed the connection."""


class Bodies:
    """The bodies that are in memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0  # bytes

    async def read(self, receive: Receive) -> bytes:
        """Return a whole body, which is held until `release` is called.

        Raises:
            Refusal: where it is too long, comes too slowly, or all bodies together are too much.
            ClientGone: where it ends too early.
        """
        chunks: list[bytes] = []
        clock, patience = asyncio.get_running_loop().time, self.limits.patience
        deadline, size, more = clock() + patience, 0, True
        try:
            while more:
                message = await self._next(receive, deadline)
                chunk = message.get("body", b"")
                deadline = min(deadline + len(chunk) / self.limits.slowest, clock() + patience)  # haste is not saved up
                size += len(chunk)
                self.held += len(chunk)
                self._check(size)
                chunks.append(chunk)
                more = message.get("more_body", False)
        except BaseException:
            self.held -= size
            raise
        return b"".join(chunks)

    def release(self, body: bytes) -> None:
        self.held -= len(body)

    async def _next(self, receive: Receive, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise Refusal(408, "the body came too slowly") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    def _check(self, size: int) -> None:
        if size > self.limits.max_upload:
            raise too_long(self.limits)
        if self.held > self.limits.body_bytes:
            raise busy("too many bytes are being sent at once")


def too_long(limits: Limits) -> Refusal:
    return Refusal(413, f"the body is longer than {limits.max_upload:,} bytes (mixlab serve --max-upload)")


async def throw_away(receive: Receive) -> None:
    """Read on for a while: closing a connection with unread bytes in it would take the answer away from the client."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass
