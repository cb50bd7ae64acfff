"""A check is a function of a case's number and an empty folder that returns what went wrong."""

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / ".torture"

Case = Callable[[int, Path], str]


@dataclass(frozen=True)
class Check:
    """A claim, and the numbered cases that test it. The number is the only seed of a case."""

    name: str  # as in the score sheet: T1, D2, ...
    claim: str  # what each case shows, as a sentence about mixlab
    case: Case  # "" where the claim held, else what went wrong; its folder is empty and its own
    full: int  # cases in all
    sample: int  # of the first cases, run by .ci/run
    quick: int = 0  # of the first cases, run by make test
    alone: bool = False  # measures time or memory that another case beside it would change
    others: str = ""  # what tools of today scored on the same kind of test


@dataclass(frozen=True)
class Outcome:
    number: int
    problem: str  # "" where the claim held
    seconds: float
    when: str


def run(check: Check, number: int) -> Outcome:
    """Run one case in a folder of its own; an error of the case itself is a problem too."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"torture-{check.name}-") as folder:
        try:
            problem = check.case(number, Path(folder))
        except Exception as error:  # the next cases are still worth running
            problem = f"{type(error).__name__}: {error}"
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Outcome(number, problem, round(time.monotonic() - started, 2), when)


def contents(folder: Path) -> dict[str, bytes]:
    """Return {relative path: bytes} of every regular file below a folder, and of every other entry its kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if is_file else f"{path.lstat().st_mode:o}".encode()
    return found


def run_missing(check: Check, cases: int, jobs: int = 1) -> Iterator[Outcome]:
    """Run the first cases that have no result for today's sources, some at once, keeping each result as it comes."""
    known = {outcome.number for outcome in outcomes(check)}
    missing = [number for number in range(cases) if number not in known]
    path = _results(check)
    path.parent.mkdir(parents=True, exist_ok=True)
    for outcome in _run_all(check, missing, 1 if check.alone else jobs):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        yield outcome


def _run_all(check: Check, numbers: list[int], jobs: int) -> Iterator[Outcome]:
    """Run all in other processes: a fork of a process whose threads have computed once would wait for them for ever."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for ended in as_completed([pool.submit(run, check, number) for number in numbers]):
            yield ended.result()


def outcomes(check: Check) -> list[Outcome]:
    """Return the results that were measured with the sources as they are now."""
    path = _results(check)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def score(check: Check, found: list[Outcome]) -> str:
    held = sum(not outcome.problem for outcome in found)
    return f"{held:,} of {len(found):,}"


def _results(check: Check) -> Path:
    return RESULTS / _digest() / f"{check.name}.jsonl"


def _digest() -> str:
    """Return a name for the sources of mixlab and of these checks: results of other sources are not counted."""
    total = hashlib.sha256()
    for folder in ("src/mixlab", "torture"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".h", ".cpp"):
                total.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return total.hexdigest()[:12]
