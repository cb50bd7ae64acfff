"""A server in a process of its own, and a client that can send what no client should."""

import asyncio
import functools
import json
import re
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import fastapi as _imported  # noqa: F401  so that no child has to
import torch
import uvicorn as _imported_too  # noqa: F401

from mixlab.models.catalogue import parse_model
from mixlab.run.bundle import Bundle, BundleDescription, write_bundle
from mixlab.spec import DataSpec
from torture import processes
from torture.pictures import photograph, saved

BOUNDARY = "torture-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
SPEC = DataSpec(image_size=32, classes=("a", "b", "<b>c</b>"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
SECONDS = 10.0  # that an answer may take


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    process: processes.Process
    port: int
    model: Path  # the bundle it answers with

    def memory(self) -> int:
        """Return the bytes that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024

    def metric(self, name: str) -> float:
        """Return a sample of /metrics."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=SECONDS).read().decode()
        return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])


def write_model(folder: Path, seed: int = 0, **fields: Any) -> Path:
    """Write a bundle with random weights."""
    model = parse_model({"name": "convmixer", "dim": 32, "depth": 2, "patch_size": 4, **fields})
    described = BundleDescription(mixlab="", model=model, spec=SPEC)
    torch.default_generator.manual_seed(seed)
    write_bundle(folder, Bundle(described, model.build(SPEC).state_dict()), "")
    return folder


def start(root: Path, *options: str, **fields: Any) -> Server:
    """Start a server of a network with random weights in a folder, and wait until it answers."""
    return serve(write_model(root / "model", **fields), root, *options)


def serve(model: Path, root: Path, *options: str) -> Server:
    """Start a server of a model, and wait until it answers."""
    process = processes.start(["serve", str(model), "--port", "0", *options], root)
    end = time.monotonic() + 60
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", process.text())):
        if process.wait(0.02) or time.monotonic() > end:
            process.end()
            raise RuntimeError(f"the server did not start: {process.text()}")
    return Server(process, int(found[1]), model)


@functools.cache
def shared() -> Server:
    """Return a server that all cases of this process ask, and that ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="torture-")
    server = start(Path(folder.name))
    Finalize(None, server.process.end, exitpriority=2)  # unlike atexit's, done where a process of a pool ends too
    Finalize(None, folder.cleanup, exitpriority=1)
    return server


def form(*files: tuple[str, bytes]) -> bytes:
    """Return the body of a form of files."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request as it is sent; underlines in names of headers become hyphens."""
    given = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body and "Transfer-Encoding" not in given:
        given.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + body


@functools.cache
def picture(seed: int = 0, height: int = 60, width: int = 90) -> bytes:
    return saved(photograph(seed, height, width), "JPEG", quality=90)


def predict(path: str = "/predict", seed: int = 0) -> bytes:
    """Return a request that is answered with 200."""
    return request("POST", path, form(("a.jpg", picture(seed))), Content_Type=FORM)


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, raw: bytes, seconds: float = SECONDS) -> Reply:
        """Send bytes and return the answer; connects anew where the last answer closed the connection.

        Raises:
            OSError, EOFError: where the connection ends before the answer.
            TimeoutError: where there is none in time.
        """
        async with asyncio.timeout(seconds):
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(raw)
            reply = await read_reply(reader, raw.startswith(b"HEAD "))
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def read_reply(reader: asyncio.StreamReader, without_body: bool = False) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    length = 0 if without_body else int(headers.get("content-length", 0))
    return Reply(int(head[0].split()[1]), headers, await reader.readexactly(length))


def ask(server: Server, raw: bytes, seconds: float = SECONDS) -> Reply:
    """Send bytes on a connection of their own, and return the answer."""

    async def once() -> Reply:
        client = Client(server.port)
        try:
            return await client.ask(raw, seconds)
        finally:
            client.close()

    return asyncio.run(once())


def is_error(reply: Reply) -> str:
    """Return "" for an error as it should be, else what is wrong with it."""
    try:
        found = reply.json["error"]
    except (ValueError, KeyError, TypeError):
        return f"{reply.status} without an error in JSON: {reply.body[:200]!r}"
    if not isinstance(found, str) or not found or "\n" in found:
        return f"the error is not one line: {found!r}"
    return "" if "default-src 'none'" in reply.headers.get("content-security-policy", "") else "no policy"
