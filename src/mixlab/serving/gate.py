"""What stands before the application: who may ask, and how much; whatever is refused is refused unread."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from mixlab import page
from mixlab.errors import UsageError
from mixlab.serving.batching import Caller
from mixlab.serving.body import CLIENT_GONE, ClientGone, Message, Receive, throw_away, too_long
from mixlab.serving.refusal import Refusal, busy
from mixlab.serving.service import Service

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PREDICT = "/predict"
PORTS = {"http": 80, "https": 443}
SMALL = 1_000_000  # bytes; a shorter body that is refused is read to its end, and the connection stays
LARGEST_HEADER = 16_384  # bytes
POLICY = f"{page.POLICY}; frame-ancestors 'none'"
HEADERS = {  # of every answer
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self, inside: Application, service: Service, host_names: Collection[str], origins: Collection[str]
    ) -> None:
        self.service = service
        self._inside = inside
        self._hosts = {"localhost", *map(_host_name, host_names)}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._inside(scope, receive, send)
        headers = Headers(scope)
        send = self._completed(send, headers)
        try:
            _check_path(scope)
            headers.check(scope["http_version"])
            self._check_host(headers.get("host"))
            shared = self._check_origin(scope["method"], headers)
            if scope["method"] == "OPTIONS" and shared:
                return await _send(send, 204, b"", {"access-control-allow-methods": "POST, GET"})
            if scope["method"] == "POST" and _path(scope) == PREDICT:
                return await self._predict(scope, receive, send, headers)
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # the server leaves the body out
            await self._inside(scope, receive, send)
        except Refusal as refusal:
            await _refuse(refusal, headers, receive, send)
        except ClientGone:
            self.service.metrics.requests.labels(CLIENT_GONE).inc()
        return None

    async def _predict(self, scope: Scope, receive: Receive, send: Send, headers: "Headers") -> None:
        """Read the body where there is room for it, and hand it on; take note when the client leaves."""
        service = self.service
        if headers.length > service.limits.max_upload:
            raise too_long(service.limits)
        if service.is_full:
            raise busy(f"{service.limits.queue} requests are being answered already")
        body = await service.bodies.read(receive)
        caller = Caller()
        watch = asyncio.create_task(_note_leaving(receive, caller))
        try:
            with service.answering(), service.metrics.seconds.time():
                scope["mixlab"] = body, caller
                await self._inside(scope, receive, send)
        finally:
            service.bodies.release(body)
            watch.cancel()

    def _check_host(self, given: str) -> None:
        """Refuse names that are not ours: a foreign page whose name was bent to this address would have them."""
        if not given:  # HTTP/1.0; a browser always names its host
            return
        name = _host_name(given)
        if name in self._hosts or name.endswith(".localhost") or _is_address(name):
            return
        raise Refusal(421, f"the host {given!r} is not served here (mixlab serve --host-name {name})")

    def _check_origin(self, method: str, headers: "Headers") -> bool:
        """Return whether a foreign page that is allowed asks; refuse other foreign pages what is more than reading."""
        origin = headers.get("origin").lower()
        if origin in self._origins:
            return True
        is_ours = origin.partition("://")[2] == headers.get("host").lower() != ""
        if method not in ("GET", "HEAD") and origin and not is_ours:
            raise Refusal(403, f"pages of {origin} may not ask this server (mixlab serve --allow-origin {origin})")
        return False

    def _completed(self, send: Send, headers: "Headers") -> Send:
        """Add the headers that every answer has, and count it."""
        origin = headers.get("origin")
        added = dict(HEADERS)
        if origin and origin.lower() in self._origins:
            added |= {"access-control-allow-origin": origin, "access-control-allow-headers": "content-type"}
            added |= {"vary": "origin", "cross-origin-resource-policy": "cross-origin"}
        if self.service.is_leaving:
            added["connection"] = "close"
        encoded = _encoded(added)

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.service.metrics.requests.labels(message["status"]).inc()
                message = {**message, "headers": [*message.get("headers", []), *encoded]}
            await send(message)

        return completed


class Headers:
    """The headers of a request."""

    def __init__(self, scope: Scope) -> None:
        self._values = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._size = sum(len(name) + len(value) for name, value in scope["headers"])

    def get(self, name: str) -> str:
        return self._values.get(name, "")

    def check(self, version: str) -> None:
        """Refuse what is too much, or could be read in two ways."""
        if version == "2.0":  # the beginning of HTTP/2, read as HTTP/1; servers that know it say "2"
            raise Refusal(400, "this server speaks HTTP/1.1, not HTTP/2")
        if self._size > LARGEST_HEADER:
            raise Refusal(431, f"the header is longer than {LARGEST_HEADER:,} bytes")
        if "content-length" in self._values and "transfer-encoding" in self._values:
            raise Refusal(400, "the header has a Content-Length and a Transfer-Encoding; only one can be true")

    @property
    def length(self) -> int:
        """Bytes of the body as declared; 0: none, or it comes in chunks."""
        given = self.get("content-length")
        return int(given) if given.isascii() and given.isdigit() else 0

    @property
    def is_small(self) -> bool:
        return self.length <= SMALL and "transfer-encoding" not in self._values


async def _refuse(refusal: Refusal, headers: Headers, receive: Receive, send: Send) -> None:
    """Answer before the body is read; close the connection where the rest of it is long, slow or dubious."""
    is_doubtful = refusal.status in (400, 408)
    if headers.is_small and not is_doubtful:
        return await _send(send, refusal.status, refusal.body, refusal.headers)
    await _send(send, refusal.status, refusal.body, {**refusal.headers, "connection": "close"}, more=True)
    if not is_doubtful:
        await throw_away(receive)
    return await send({"type": "http.response.body", "body": b""})


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str], more: bool = False) -> None:
    known = {"content-type": "application/json", "content-length": str(len(body))} if status != 204 else {}
    await send({"type": "http.response.start", "status": status, "headers": _encoded({**known, **headers})})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _note_leaving(receive: Receive, caller: Caller) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        caller.is_gone = True


def _check_path(scope: Scope) -> None:
    if len(scope["path"]) + len(scope["query_string"]) > LARGEST_HEADER:
        raise Refusal(414, f"the address is longer than {LARGEST_HEADER:,} bytes")


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def origin_of(url: str) -> str:
    """Return what a browser sends as the origin of a site's pages; raises UsageError."""
    try:
        parts = urlsplit(url.lower())
        port = parts.port
    except ValueError:  # a bracket without its other one, or a port that is none
        parts = port = None
    rests = (("", "", ""), ("/", "", ""))  # path, query and fragment
    if not parts or not parts.hostname or parts.scheme not in PORTS or parts[2:] not in rests:
        raise UsageError(f"--allow-origin {url}: expected the beginning of an address, such as https://example.com")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, PORTS[parts.scheme]) else "")


def _host_name(given: str) -> str:
    """Return the name in a host header, or a bare one, in small letters, without its port."""
    if _is_address(given):
        return given
    if given.startswith("["):
        return given[1:].partition("]")[0].lower()
    return given.rpartition(":")[0].lower() if ":" in given else given.lower()


def _is_address(name: str) -> bool:
    """Whether a name is an address, which nobody can bend."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
