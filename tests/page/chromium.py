"""Headless Chromium, told what to do over its DevTools protocol by two pipes."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)
WATCH = """
self.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.blockedURI} ${event.violatedDirective}`));
"""


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """One page; what it and its workers ask for and complain of is in `requests` and `complaints`."""

    def __init__(self, *flags: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._count = 0
        self._lock = threading.Lock()  # the listener writes too
        self._start(flags)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def _start(self, flags: tuple[str, ...]) -> None:
        their_input, self._input = os.pipe()
        self._output, their_output = os.pipe()
        pipes = f'exec "$@" 3<&{their_input} 4>&{their_output}'
        command = [str(find_chromium()), *FLAGS, *flags, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command],  # noqa: S607
            pass_fds=(their_input, their_output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_input)
        os.close(their_output)
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self._write("Browser.close", {}, None)
        self._process.wait(20)
        os.close(self._input)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a message to the page and return its answer."""
        return self.send(method, self._session, **parameters)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = self._write(method, parameters, session)
        while True:
            message = self._answers.get(timeout=60)
            if message["id"] == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str, **options: Any) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, **options)
        assert "exceptionDetails" not in said, said["exceptionDetails"]["exception"].get("description")
        return said["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < until, f"{script} did not come true; {self.complaints}"
            time.sleep(0.05)

    def choose(self, selector: str, files: list[Path]) -> None:
        """Put files into a file input, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str) -> None:
        code, text = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "Escape": (27, "")}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)

    def picture(self, file: Path) -> None:
        """Write what the page looks like as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _write(self, method: str, parameters: dict[str, Any], session: str | None) -> int:
        with self._lock:
            self._count += 1
            message = {"id": self._count, "method": method, "params": parameters}
            text = json.dumps(message | ({"sessionId": session} if session else {})) + "\0"
            os.write(self._input, text.encode())
            return self._count

    def _listen(self) -> None:
        with os.fdopen(self._output, "rb") as stream:
            rest = b""
            while chunk := stream.read1(1 << 16):
                *messages, rest = (rest + chunk).split(b"\0")
                for message in messages:
                    self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
            return
        said = message["params"]
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled":
                self.complaints.append(" ".join(str(part.get("value")) for part in said["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["exceptionDetails"]))
            case "Target.attachedToTarget":
                for method in ("Network.enable", "Runtime.enable", "Log.enable", "Runtime.runIfWaitingForDebugger"):
                    self._write(method, {}, said["sessionId"])
