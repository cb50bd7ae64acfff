"""T13: run folders that are taken, read-only or oddly named: a clear answer or a run, and nothing else is touched.

A clear answer is one line that begins with "error: " and names the place, with exit code 1 or 2. Where this process is
root, whom no permission stops, nobody tries the folder that may not be written.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from mixlab.experiment import read_recipe
from mixlab.run.folder import Run
from torture import processes, small
from torture.check import Check

NOBODY = 65534
NAMES = (
    "with spaces  and 'quotes' \"\"",
    "-rf",
    "--help",
    "ünïcödé-鳥-🐦",
    "new\nline",
    "*?[a-z]{b,c}$HOME`x`;&|<>~#!%",
    "tab\tand\x07bell\x1b[31mred",
    "caf\udce9",  # a byte that is not UTF-8
    "n" * 240,
    "[bold]markup",
)
REFUSED = ("n" * 300, ".", "..", "a/b", "../outside", "/absolute", "neighbour", "file", "file/below")


def case(number: int, root: Path) -> str:
    """Run one of the scenarios beside files of somebody else, which must stay as they are."""
    pictures = small.prepared(root)
    (root / "runs" / "neighbour").mkdir(parents=True)
    (root / "runs" / "neighbour" / "thesis.txt").write_text("mine")
    (root / "runs" / "file").write_text("mine")
    (root / "outside.txt").write_text("mine")
    words = small.command(root, pictures)
    before = _contents(root)
    problem = SCENARIOS[number % len(SCENARIOS)](root, words)
    after = _contents(root)
    touched = [name for name, content in before.items() if after.get(name) != content]
    return problem or (f"touched: {touched}" if touched else "")


def _contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("said-")
    }


def _named(words: list[str], name: str, out: str = "runs") -> list[str]:
    place = words.index("--name")
    return [*words[:place], f"--name={name}", f"--out={out}", *words[place + 2 :]]


def _works(name: str) -> Callable[[Path, list[str]], str]:
    """The run is made, trained, found again and equal to any other."""

    def scenario(root: Path, words: list[str]) -> str:
        folder = root / "runs" / name
        for command in (_named(words, name), ["train", f"--resume={folder}"], ["runs", "list"]):
            done = processes.ended(command, root)
            if done.code != 0:
                return f"{command[0]} {name!r}: exit code {done.code}: {done.text()}"
        return "" if small.result(Run(folder)) == small.without_fault() else f"{name!r} has other weights"

    return scenario


def _refused(name: str) -> Callable[[Path, list[str]], str]:
    def scenario(root: Path, words: list[str]) -> str:
        return _answer(processes.ended(_named(words, name), root), name[:20].rpartition("/")[2])

    return scenario


def _answer(process: processes.Process, *wanted: str) -> str:
    lines = process.text().splitlines()
    clear = process.code in (1, 2) and len(lines) == 1 and lines[0].startswith("error: ")
    return "" if clear and all(text in lines[0] for text in wanted) else f"exit code {process.code}: {process.text()}"


def _unwritable(out: str) -> Callable[[Path, list[str]], str]:
    def scenario(root: Path, words: list[str]) -> str:
        return _answer(processes.ended(_named(words, "run", out), root), out)

    return scenario


def _taken(root: Path, words: list[str]) -> str:
    """A second process asks for the folder that the first one trains into."""
    first = processes.start([*words, "epochs=3000"], root)
    try:
        while not list((root / "runs" / "run").glob("checkpoints/0*")) and not first.wait(0.01):
            pass
        second = processes.start([*words, "epochs=3000"], root)
        gone = second.wait(5)
        second.end()
        return _answer(second, "another mixlab is training into", "--name") if gone else "the second one waits"
    finally:
        first.end()


def _read_only(root: Path, words: list[str]) -> str:
    """Start a run where nothing may be made, and one in a folder that may not be written."""
    for folder in (root / "runs", root / "runs" / "run"):
        folder.mkdir(exist_ok=True)
        _open_to_all(root)
        folder.chmod(0o555)
        done = processes.ended(_named(words, "run"), root, _be_nobody)
        folder.chmod(0o777)
        if _answer(done, "runs/run"):
            return _answer(done, "runs/run")
    return ""


def _open_to_all(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IRWXO)


def _be_nobody() -> None:
    read_recipe("digits")  # imports what nobody may not be able to read
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


SCENARIOS = [
    _taken,
    _unwritable("runs/file"),
    _read_only,
    *map(_refused, REFUSED),
    *map(_works, NAMES),
    *map(_unwritable, ("/proc", "/sys", "/dev/null", "runs/file/below")),
]
CHECKS = [
    Check(
        name="T13",
        claim="a folder that is taken, read-only or oddly named gets a clear answer or a run; nothing else is touched",
        case=case,
        full=len(SCENARIOS),
        sample=6,
        quick=2,
    )
]
