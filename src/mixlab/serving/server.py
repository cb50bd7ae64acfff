"""A process that serves: a socket, signals, and an end at which nothing is lost."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from mixlab.errors import MixlabError, UsageError
from mixlab.serving.connection import PatientConnection
from mixlab.serving.gate import Gate
from mixlab.serving.service import Service

GRACE = 1.0  # seconds after SIGTERM in which new connections are still answered, while /ready says no
LAST = 60  # seconds that what is in flight may take at the end


def bind(host: str, port: int) -> socket.socket:
    """Return a socket with an address, which does not listen yet; port 0 is a free one.

    Raises:
        MixlabError: where the address cannot be had.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        bound = socket.socket(family, kind, protocol)
    except (socket.gaierror, UnicodeError):  # no such name, or one that can be none
        raise UsageError(f"--host {host}: there is no such host") from None
    except OSError as error:
        raise MixlabError(_why_not(host, port, error)) from None
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise MixlabError(_why_not(host, port, error)) from None
    return bound


def ignore_hangups() -> None:
    """Let SIGHUP end nothing until it is answered; a model that changes meanwhile is read again then."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}/"


def serve(app: Gate, bound: socket.socket, watch: bool, begun: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, and then until all that came is answered.

    SIGHUP reads the model again.

    Args:
        watch: read it again whenever its files change, too.
        begun: is called once requests are answered.
    """
    limits = app.service.limits
    connection = type("Connection", (PatientConnection,), {"patience": limits.patience})
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.patience) + 1,
        timeout_graceful_shutdown=LAST,
    )
    _Server(config, app.service, watch, begun).run(sockets=[bound])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, watch: bool, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._watch, self._begun = service, watch, begun
        self._tasks: set[asyncio.Task[Any]] = set()
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, lambda: self._start(self._service.reload()))
        if self._service.has_changed:  # while it was read, when a SIGHUP was not heard
            self._start(self._service.reload())
        if self._watch:
            self._start(self._service.watch())
        self._begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after what is in flight; at the second signal at once."""
        self._signals += 1
        if self._signals > 1:
            os._exit(130)
        self._service.is_leaving = True
        if sig == signal.SIGTERM and self.started:
            self._loop.call_soon_threadsafe(self._loop.call_later, GRACE, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; choose another with --port, or a free one with --port 0"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: this machine does not have that address"
    return f"--host {host} --port {port}: {error.strerror or error}"
