"""S1: files from elsewhere run nothing, are refused by name within a second, and write nothing but text.

First come the files that must be refused, then names of files and classes that mean something to a terminal, a
spreadsheet or a browser, and at the end a whole run of such names: trained, measured and reported.
"""

import contextlib
import csv
import html.parser
import io
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from click.testing import CliRunner
from PIL import Image

from mixlab import api
from mixlab.cli import main as cli
from mixlab.errors import MixlabError
from mixlab.evaluation.predictions import read_predictions
from mixlab.run.bundle import BundleDescription
from mixlab.run.card import model_card
from mixlab.run.table import CONTROLS, FORMULA
from mixlab.training.progress import Screen
from torture import hostile_onnx
from torture.check import Check
from torture.hostile_bundles import MODEL, SPEC, attacks, good_bundle

SECONDS = 1.0  # of this process
FORMULAS = ("=cmd|' calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", '=HYPERLINK("http:x")')
ESCAPES = ("\x1b]0;owned\x07\x1b[31m", "a\rb", "\x9b31m", "gnp\u202exe.png", "a\nerror: all is lost")
MARKUP = ("<script>alert(1)", "<img src=x onerror=alert(1)>", "\"><svg onload='x'>", "{{ 7 * 7 }}", "$\\frac{$")
REFUSALS = (*attacks(), *hostile_onnx.attacks())


def case(number: int, root: Path) -> str:
    """Try one artefact; nothing may run."""
    started = time.process_time()
    if number < len(REFUSALS):
        name, attack = REFUSALS[number]
        path, action = attack(root)
        started = time.process_time()
        problem = _refused(path, action)
    else:
        show = SHOWN[number - len(REFUSALS)]
        name, problem = show.__name__, show(root)
    seconds = time.process_time() - started
    if (root / "canary").exists():
        problem = "something ran"
    if not problem and seconds > SECONDS and number < len(REFUSALS):
        problem = f"{seconds:.1f} s"
    return f"{name}: {problem}" if problem else ""


def _refused(path: Path, action: Callable[[], object]) -> str:
    try:
        action()
    except MixlabError as error:
        is_named = path.name in str(error) or repr(path.name)[1:-1] in str(error)
        return "" if is_named else f"{path.name} is not named in {str(error)[:300]!r}"
    return "was taken"


def terminal_predict(root: Path) -> str:
    """Classes and files with control characters, on the screen."""
    shown = _predict(root, ESCAPES, ESCAPES).splitlines()
    if len(shown) != len(ESCAPES) + 1 or any(CONTROLS.search(line) for line in shown):
        return f"the terminal gets {shown}"
    return ""


def csv_predict(root: Path) -> str:
    """Classes and files that a spreadsheet would compute, as CSV."""
    rows = list(csv.reader(io.StringIO(_predict(root, FORMULAS, FORMULAS[:2], "--csv"))))
    found = [cell for row in rows for cell in row if cell.startswith(FORMULA)]
    return f"cells {found}" if found or len(rows) != 4 else ""


def terminal_error(root: Path) -> str:
    """A command that fails, with control characters in what it was given."""
    screen = io.StringIO()
    words = ["mixlab", "predict", f"no{ESCAPES[0]}run", str(root)]
    Image.new("RGB", (9, 9)).save(root / "a.png")
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stderr(screen), contextlib.suppress(SystemExit):
        cli.main()
    text = screen.getvalue().rstrip("\n")
    return "" if "owned" in text and not CONTROLS.search(text) else f"the terminal gets {text!r}"


def terminal_training(root: Path) -> str:
    """Lines of a training, on the screen and in its log."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), Screen(root / "train.log", quiet=False) as screen:
        screen.say([f"skipped  {name}" for name in ESCAPES])
    lines = [*stream.getvalue().splitlines(), *(root / "train.log").read_text().splitlines()]
    if len(lines) != 2 * len(ESCAPES) or any(CONTROLS.search(line) for line in lines):
        return f"the terminal gets {lines}"
    return ""


def model_card_lines(root: Path) -> str:
    """Class names that would add lines to a bundle's README.md."""
    spec = SPEC.model_copy(update={"classes": ESCAPES})
    card = model_card(BundleDescription(mixlab="", model=MODEL, spec=spec), 1, "command")
    plain = model_card(BundleDescription(mixlab="", model=MODEL, spec=SPEC), 1, "command")
    return "" if len(card.splitlines()) == len(plain.splitlines()) else "the card has more lines"


def run_of_hostile_names(root: Path) -> str:
    """Train, measure and report on folders with such names; read what was written."""
    names = [name for name in (*MARKUP, *FORMULAS[:2], *ESCAPES[:2]) if "/" not in name]
    for place, name in enumerate(names):
        for index in range(8):
            path = root / "pictures" / name / f"{name[:9]}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 12), (place * 25, index, 200)).save(path)
    model = {"name": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3}
    data = {"name": str(root / "pictures"), "image_size": 8}
    run = api.train(
        data=data, model=model, epochs=1, batch_size=4, device="cpu", out=root / "runs", quiet=True, workers=0
    )
    api.evaluate(run, device="cpu", workers=0)
    rows = list(csv.reader(io.StringIO(run.predictions("test"))))
    if any(cell.startswith(FORMULA) for row in rows for cell in row):
        return "predictions.csv has a formula"
    if {each.label for each in read_predictions(run, "test").values()} - set(names):
        return "predictions.csv is read with other names"
    return _active_content(api.report(run.folder).read_text(encoding="utf-8"))


def _active_content(page: str) -> str:
    """Return the first script or event handler of a page, or ""."""
    found: list[str] = []

    class Looking(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag in ("script", "iframe", "object", "embed") or any(name.startswith("on") for name, _ in attrs):
                found.append(f"<{tag} {attrs}>")
            if any("javascript:" in (value or "") or (name == "src" and value == "x") for name, value in attrs):
                found.append(f"<{tag} {attrs}>")

    Looking().feed(page)
    return f"report.html has {found[0]}" if found else "" if "alert(1)" in page else "report.html lacks the class"


def _predict(root: Path, classes: tuple[str, ...], files: tuple[str, ...], *flags: str) -> str:
    """Return what `mixlab predict` prints for pictures of such names, and one that cannot be read, and such classes."""
    bundle = good_bundle(root / "bundle", SPEC.model_copy(update={"classes": classes}))
    for name in files:
        Image.new("RGB", (9, 9)).save(root / "bundle.png")
        shutil.move(root / "bundle.png", root / f"{name.replace('/', '')}.png")
    (root / f"bad{files[0]}.png").write_text("text")
    pictures = sorted(map(str, root.glob("*.png")))
    with contextlib.chdir(root):
        words = ["predict", str(bundle), *(Path(name).name for name in pictures), "--device", "cpu", *flags]
        return CliRunner().invoke(cli.mixlab, words).stdout


SHOWN = (terminal_predict, csv_predict, terminal_error, terminal_training, model_card_lines, run_of_hostile_names)
CASES = len(REFUSALS) + len(SHOWN)

CHECKS = [
    Check(
        name="S1",
        claim="a hostile artefact runs nothing and is refused by name within 1 s; hostile names stay text everywhere",
        case=case,
        full=CASES,
        sample=CASES,
        quick=CASES - 1,
        alone=True,
    )
]
