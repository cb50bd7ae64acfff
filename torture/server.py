"""V1, V4 to V6, V9 to V11: what a server refuses, and that it goes on answering meanwhile.

All cases but the last of V9 ask one server, which is started once in this process.
"""

import asyncio
import contextlib
import html.parser
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from mixlab import page
from torture import served
from torture.bombs import BOMBS
from torture.check import Check
from torture.malformed import table
from torture.pictures import saved
from torture.served import FORM, Client, ask, form, is_error, picture, predict, request, shared

MALFORMED = 82
SLOW, SLOW_SECONDS = 300, 15.0
UPLOAD, MEMORY = 600_000_000, 50_000_000  # bytes
CHUNK = 1_000_000  # bytes
LARGE_MEMORY = 900_000_000  # bytes


def malformed(number: int, root: Path) -> str:
    """V1: send one, and then a good request."""
    if len(table()) != MALFORMED:
        return f"the table has {len(table())} requests, not {MALFORMED}"
    name, raw, status = table()[number]
    reply = ask(shared(), raw)
    if reply.status != status:
        return f"{name}: {reply.status}, not {status}: {reply.body[:200]!r}"
    problem = is_error(reply) or _still_answers()
    return f"{name}: {problem}" if problem else ""


def _still_answers() -> str:
    reply = ask(shared(), predict())
    return "" if reply.status == 200 else f"then a good request gets {reply.status}: {reply.body[:200]!r}"


def slow(number: int, root: Path) -> str:
    """V4: open slow connections of every kind; the first case fewer."""
    return asyncio.run(_slow(SLOW if number else SLOW // 5))


async def _slow(count: int) -> str:
    port, started = shared().port, time.monotonic()
    ends = [asyncio.create_task(_dribble(port, number)) for number in range(count)]
    worst = 0.0
    while not all(end.done() for end in ends):
        asked, client = time.monotonic(), Client(port)
        reply = await client.ask(request("GET", "/ready"))
        client.close()
        worst = max(worst, time.monotonic() - asked)
        if reply.status != 200 or worst > 1:
            return f"/ready answers {reply.status} after {worst:.2f} s"
        if time.monotonic() - started > SLOW_SECONDS:
            return f"{sum(not end.done() for end in ends)} of {count} are open after {SLOW_SECONDS:.0f} s"
        await asyncio.sleep(0.2)
    wrong = [end.exception() for end in ends if end.exception()]
    return f"{wrong[0]!r}" if wrong else ""


SLOW_KINDS = (  # what is sent at once, and what then comes byte by byte
    (b"", b""),
    (b"", b"GET /ready HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 99),
    (b"GET /ready HTTP/1.1\r\nHost: localhost\r\n", b"X: " + b"a" * 999),
    (request("POST", "/predict", Content_Length="100000", Content_Type=FORM), b"a" * 999),
    (request("POST", "/predict", Transfer_Encoding="chunked", Content_Type=FORM), b"1\r\na\r\n" * 99),
    (request("POST", "/predict", Content_Length="1000000", Content_Type=FORM) + bytes(960_000), b"a" * 999),
    (request("GET", "/ready"), b""),  # and then no other request
    (request("GET", "/openapi.json") * 200, b"\r\n" * 99),  # whose answers are never read
)


async def _dribble(port: int, number: int) -> None:
    """Return once the server has closed the connection."""
    at_once, then = SLOW_KINDS[number % len(SLOW_KINDS)]
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that an answer that is not read soon stands still
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    is_read = at_once.count(b"\r\n\r\n") < 2
    with contextlib.suppress(OSError):
        writer.write(at_once)
        for place in range(10**6):
            writer.write(then[place : place + 1])
            await asyncio.sleep(0.5)
            if is_read and await _is_closed(reader):
                break
            if not is_read and writer.transport.is_closing():
                break
    writer.close()


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            while await reader.read(1000):
                pass
            return True
    return False


def long_upload(number: int, root: Path) -> str:
    """V5: 600 MB, declared or in chunks; what is sent is counted."""
    return asyncio.run(_long_upload(declared=number == 0)) or _still_answers()


async def _long_upload(declared: bool) -> str:
    server = shared()
    before, most, sent = server.memory(), 0, 0
    header = {"Content_Length": str(UPLOAD)} if declared else {"Transfer_Encoding": "chunked"}
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("POST", "/predict", b"", Content_Type="image/jpeg", **header))
    answer = asyncio.create_task(served.read_reply(reader))
    piece = b"%x\r\n" % CHUNK * (not declared) + bytes(CHUNK) + b"\r\n" * (not declared)
    started = time.monotonic()
    with contextlib.suppress(OSError):
        while sent < UPLOAD and not answer.done():
            writer.write(piece)
            sent += CHUNK
            await asyncio.wait_for(writer.drain(), 10)
            most = max(most, server.memory() - before)
    reply = await asyncio.wait_for(answer, 10)
    writer.close()
    if reply.status != 413 or is_error(reply):
        return f"{reply.status}: {reply.body[:200]!r}"
    if most > MEMORY or sent > UPLOAD / 2 or time.monotonic() - started > 10:
        return f"413 after {sent / 1e6:.0f} MB and {most / 1e6:.0f} MB of memory"
    return ""


def bomb(number: int, root: Path) -> str:
    """V6: a bomb is refused from its header, or answered from its first frame."""
    make, kind, expected = BOMBS[number]
    server, body = shared(), form(("bomb", make()))
    before = server.memory()
    reply = ask(server, request("POST", "/predict", body, Content_Type=FORM))
    grown = (server.memory() - before) / 1e6
    if isinstance(expected, tuple):
        return "" if reply.status == 200 else f"{kind}: {reply.status}: {reply.body[:200]!r}"
    if reply.status != 422 or expected not in reply.json["error"]:
        return f"{kind}: {reply.status}: {reply.body[:200]!r}"
    return f"{kind}: {grown:.0f} MB" if grown > 40 else ""


def large(number: int, root: Path) -> str:
    """V13: ask with large pictures that are cheap to send, and meanwhile with a small one."""
    return asyncio.run(_large(LARGE[number][0], LARGE[number][1]))


LARGE = ((64, 413), (2, 413), (1, 200))  # pictures of 49 megapixels in one request, and its status


async def _large(count: int, status: int) -> str:
    server, most, worst = shared(), 0.0, 0.0
    body = form(*[("large.png", saved(Image.new("L", (7000, 7000), 7), "PNG"))] * count)
    client, neighbour, before = Client(server.port), Client(server.port), server.memory()
    asking = asyncio.create_task(client.ask(request("POST", "/predict", body, Content_Type=FORM), 60))
    while not asking.done():
        started = time.monotonic()
        if (reply := await neighbour.ask(predict())).status != 200:
            return f"a small picture gets {reply.status}: {reply.body[:200]!r}"
        worst = max(worst, time.monotonic() - started)
        most = max(most, server.memory() - before)
    client.close()
    neighbour.close()
    if asking.result().status != status:
        return f"{asking.result().status}: {asking.result().body[:200]!r}"
    too_much = most > LARGE_MEMORY or worst > 1
    return f"a small picture took {worst:.2f} s, the large ones {most / 1e6:.0f} MB" if too_much else ""


def states(number: int, root: Path) -> str:
    """V9: /live, /ready and /metrics, and /ready once the server has been asked to end."""
    return (_live, _measured, _no_longer_ready)[number](root)


def _live(root: Path) -> str:
    for path in ("/live", "/ready"):
        for method in ("GET", "HEAD"):
            reply = ask(shared(), request(method, path))
            if reply.status != 200:
                return f"{method} {path}: {reply.status}"
    return ""


def _measured(root: Path) -> str:
    server, name = shared(), 'mixlab_pictures_total{result="answered"}'
    ask(server, predict())
    before = server.metric(name)
    ask(server, predict())
    if server.metric(name) != before + 1:
        return f"{name} does not count"
    families = {family.name for family in text_string_to_metric_families(_text(server, "/metrics"))}
    needed = {f"mixlab_{name}" for name in ("requests", "pictures", "predict_seconds", "batch_pictures", "model")}
    return f"/metrics lacks {needed - families}" if needed - families else ""


def _no_longer_ready(root: Path) -> str:
    server = served.start(root)
    try:
        server.process.send(15)
        reply = ask(server, request("GET", "/ready"))
        if not server.process.wait(10):
            return "still there after 10 s"
    finally:
        server.process.end()
    if reply.status != 503 or is_error(reply) or server.process.code != 0:
        return f"/ready {reply.status}, exit code {server.process.code}"
    return ""


def foreign(number: int, root: Path) -> str:
    """V10: who may ask, and what a browser may do with the answer."""
    name, raw, status = FOREIGN[number]
    reply = ask(shared(), raw)
    policy = reply.headers.get("content-security-policy", "")
    if reply.status != status:
        return f"{name}: {reply.status}, not {status}"
    if "default-src 'none'" not in policy or "unsafe-inline" in policy or "'unsafe-eval'" in policy:
        return f"{name}: the policy is {policy!r}"
    if reply.headers.get("x-content-type-options") != "nosniff" or "access-control-allow-origin" in reply.headers:
        return f"{name}: headers {reply.headers}"
    return _inline(reply.body.decode()) if "text/html" in reply.headers["content-type"] else ""


def _foreign() -> Iterator[tuple[str, bytes, int]]:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80", "127.1"):
        yield f"host {host}", request("GET", "/", Host=host), 421
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:80", "a.localhost", "192.168.0.9"):
        yield f"host {host}", request("GET", "/", Host=host), 200

    def asked(origin: str) -> bytes:
        return request("POST", "/predict", picture(), Content_Type="image/jpeg", Origin=origin)

    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "http://localhost:1", "x"):
        yield f"origin {origin}", asked(origin), 403
    for origin in ("http://localhost", "https://LOCALHOST"):  # behind a proxy that speaks TLS
        yield f"origin {origin}", asked(origin), 200
    yield "an error", request("GET", "/<script>alert(1)</script>"), 404
    for name in ("model.json", "openapi.json", *page.files()):
        yield name, request("GET", f"/{name}"), 200


FOREIGN = tuple(_foreign())


class _Inline(html.parser.HTMLParser):
    """Finds what a policy without unsafe-inline would not run, and what runs from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        for name, value in attrs:
            if name.startswith("on") or name == "style" or re.match(r"(?i)\s*(javascript:|https?:|//)", value or ""):
                self.found = f"<{tag} {name}={value!r}>"

    def handle_data(self, data: str) -> None:
        if self._inside and data.strip():
            self.found = f"<{self._inside}> with {data.strip()[:50]!r}"
        self._inside = ""


def _inline(text: str) -> str:
    parser = _Inline()
    parser.feed(text)
    return f"the page has {parser.found}" if parser.found else ""


def _text(server: served.Server, path: str) -> str:
    return ask(server, request("GET", path)).body.decode()


CHECKS = [
    Check(
        name="V1",
        claim="a malformed request gets its 4xx and one line of JSON, and the next request its answer",
        case=malformed,
        full=MALFORMED,
        sample=MALFORMED,
        others="of 17, plain FastAPI answers 5 with 5xx, LitServe 14",
    ),
    Check(
        name="V4",
        claim="300 slow connections, of headers, bodies and readers, are closed within 15 s; /ready answers in 1 s",
        case=slow,
        full=2,
        sample=1,
        alone=True,
    ),
    Check(
        name="V5",
        claim="an upload of 600 MB, declared or in chunks, gets 413 before it is read, within 50 MB of memory",
        case=long_upload,
        full=2,
        sample=2,
    ),
    Check(
        name="V6",
        claim="an image bomb gets 422 within 40 MB; one of many frames its answer",
        case=bomb,
        full=len(BOMBS),
        sample=len(BOMBS),
    ),
    Check(
        name="V13",
        claim="49 megapixels take 900 MB, more in a request get 413; a small picture meanwhile has its answer in 1 s",
        case=large,
        full=len(LARGE),
        sample=len(LARGE),
        alone=True,
    ),
    Check(
        name="V9",
        claim="/live, /ready and /metrics say how it is; /ready says no once the server has been asked to end",
        case=states,
        full=3,
        sample=3,
    ),
    Check(
        name="V10",
        claim="foreign hosts and origins are refused; every answer has a policy that runs nothing inline",
        case=foreign,
        full=len(FOREIGN),
        sample=len(FOREIGN),
    ),
]
