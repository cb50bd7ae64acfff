"""The table of V1: requests that are wrong, and the status that each must get."""

import functools
from collections.abc import Iterator

from PIL import Image

from torture.bombs import header_png
from torture.pictures import RGB, photograph, png, saved
from torture.served import BOUNDARY, FORM, form, picture, request

Wrong = Iterator[tuple[str, bytes, int]]
LIMIT = 32_000_000  # bytes of a request, as the server's default


@functools.cache
def table() -> tuple[tuple[str, bytes, int], ...]:
    """Return (name, the bytes that are sent, status) of each."""
    return (*_no_http(), *_ambiguous(), *_too_long(), *_misdirected(), *_forms(), *_bodies(), *_pictures(), *_queries())


def _no_http() -> Wrong:
    yield "a word", b"hello\r\n\r\n", 400
    yield "HTTP/0.9", b"GET /ready\r\n\r\n", 400
    yield "a version that is none", b"GET /ready HTTP/x.y\r\nHost: localhost\r\n\r\n", 400
    yield "a method that is none", b"G\x00T /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", 400
    yield "the beginning of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400
    yield "a handshake of TLS", bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n" + bytes(60), 400
    yield "a line without a colon", b"GET /ready HTTP/1.1\r\nHost localhost\r\n\r\n", 400
    yield "a space before the colon", b"GET /ready HTTP/1.1\r\nHost : localhost\r\n\r\n", 400
    yield "NUL in a header", b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400
    yield "a path of bytes", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400


def _ambiguous() -> Wrong:
    chunked = {"Transfer_Encoding": "chunked"}
    yield "no host", b"GET /ready HTTP/1.1\r\n\r\n", 400
    yield "two hosts", b"GET /ready HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400
    yield "a negative length", request("POST", "/predict", Content_Length="-1"), 400
    yield "a length of letters", request("POST", "/predict", Content_Length="many"), 400
    twice = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
    yield "two lengths", twice, 400
    yield "a length and chunks", request("POST", "/predict", b"0\r\n\r\n", Content_Length="5", **chunked), 400
    yield "a coding that nobody knows", request("POST", "/predict", b"abc", Transfer_Encoding="gzip"), 400
    yield "a chunk of no length", request("POST", "/predict", b"zz\r\nabc\r\n0\r\n\r\n", **chunked), 400
    yield "a chunk of 2^80 bytes", request("POST", "/predict", b"f" * 21 + b"\r\nabc", **chunked), 400


def _too_long() -> Wrong:
    yield "a long header", request("GET", "/ready", X="a" * 100_000), 431
    yield "a long path", request("GET", "/" + "a" * 100_000), 414
    yield "a long query", request("GET", "/ready?" + "a" * 50_000), 414
    yield "a long length", request("POST", "/predict", Content_Length=str(LIMIT + 1)), 413
    yield "an endless length", request("POST", "/predict", Content_Length="9" * 19), 413
    headers = "".join(f"X{number}: a\r\n" for number in range(9000))
    yield "many headers", f"GET /ready HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode(), 431
    long = saved(Image.new("1", (65_536, 1)), "PNG")
    yield "a long picture", request("POST", "/predict", long, Content_Type="image/png"), 413
    many = form(*[("a.jpg", b"x")] * 65)
    yield "65 pictures", request("POST", "/predict", many, Content_Type=FORM), 413


def _misdirected() -> Wrong:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        yield f"{method} /predict", request(method, "/predict"), 405
    yield "POST /ready", request("POST", "/ready"), 405
    yield "POST /", request("POST", "/"), 405
    yield "CONNECT", request("CONNECT", "evil.example:443"), 404
    for path in ("/predikt", "/predict/", "/../../etc/passwd", "/%2e%2e/%00", "http://evil.example/ready"):
        yield f"GET {path}", request("GET", path), 404
    upgrade = request("GET", "/predict", Connection="Upgrade", Upgrade="websocket")
    yield "a WebSocket", upgrade, 405
    yield "a foreign host", request("GET", "/ready", Host="evil.example"), 421
    yield "a page of another origin", request("POST", "/predict", b"x", Origin="https://evil.example"), 403
    yield "a page of a broken origin", request("POST", "/predict", b"x", Origin="http://["), 403
    yield "a page of no origin", request("POST", "/predict", b"x", Origin="null"), 403


def _forms() -> Wrong:
    whole = form(("a.jpg", picture()))
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n--{BOUNDARY}--\r\n'
    for name, body, kind, status in (
        ("no boundary", whole, "multipart/form-data", 400),
        ("a long boundary", whole, "multipart/form-data; boundary=" + "a" * 500, 400),
        ("another boundary", whole, "multipart/form-data; boundary=other", 400),
        ("a form cut off", whole[: len(whole) // 2], FORM, 400),
        ("a form without an end", whole.rpartition(b"--" + BOUNDARY.encode())[0], FORM, 400),
        ("no part", f"--{BOUNDARY}--\r\n".encode(), FORM, 422),
        ("a part without a name", f"--{BOUNDARY}\r\n\r\nabc\r\n--{BOUNDARY}--\r\n".encode(), FORM, 422),
        ("a broken header of a part", f"--{BOUNDARY}\r\n\x00\x01\r\n\r\nabc".encode(), FORM, 400),
        ("a long header of a part", form((";" * 99_999, b"x")), FORM, 400),
        ("a field that is no file", field.encode(), FORM, 422),
        ("a file without bytes", form(("a.jpg", b"")), FORM, 422),
        ("a name of bytes", form(("\udc80.jpg".encode("utf-8", "surrogateescape").decode("latin-1"), b"x")), FORM, 422),
    ):
        yield name, request("POST", "/predict", body, Content_Type=kind), status


def _bodies() -> Wrong:
    yield "no body", request("POST", "/predict"), 422
    yield "a body of nothing", request("POST", "/predict", Content_Length="0", Content_Type="image/jpeg"), 422
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed", "no type"):
        yield f"a body of {kind}", request("POST", "/predict", picture(), Content_Type=kind), 415


def _pictures() -> Wrong:
    photo = picture()
    for name, content in (
        ("text", b"hello"),
        ("a page", b"<html><script>alert(1)</script></html>"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("a JPEG cut off", photo[: len(photo) // 2]),
        ("a PNG of a header", png(30, 30)),
        ("a bomb", header_png()),
        ("an archive", b"PK\x03\x04" + bytes(99)),
    ):
        yield f"{name} in a form", request("POST", "/predict", form(("a.jpg", content)), Content_Type=FORM), 422
    yield "text as image/jpeg", request("POST", "/predict", b"hello", Content_Type="image/jpeg"), 422
    packed = saved(photograph(0), "JPEG")[:200] + saved(RGB, "PNG")[:100]
    yield "two formats in one", request("POST", "/predict", packed, Content_Type="image/png"), 422


def _queries() -> Wrong:
    for query in ("top=0", "top=-1", "top=many", "top=", "top=1e99", "heat_map=maybe", "tops=3", "%ff=1"):
        yield f"?{query}", request("POST", f"/predict?{query}", form(("a.jpg", picture())), Content_Type=FORM), 422
