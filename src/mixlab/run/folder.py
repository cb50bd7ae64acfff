"""A run is a folder: what was asked, what was resolved, what was measured."""

import contextlib
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mixlab import durable
from mixlab.config import Config, differences
from mixlab.errors import MixlabError, RunError, did_you_mean
from mixlab.experiment import Experiment, parse_experiment
from mixlab.places import expand_user
from mixlab.run.environment import environment
from mixlab.run.table import as_csv, read_lines


class Request(Config):
    """What was asked for, before anything was measured and resolved into the experiment."""

    experiment: Experiment
    max_seconds: float = 0.0  # time that the training should fit into; 0: as long as it takes
    auto_learning_rate: bool = False  # optimizer.learning_rate is found by a range test


@dataclass(frozen=True)
class Run:
    """A run folder; its properties read files."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def quoted(self) -> str:
        """The folder as one word of a command that people paste."""
        return shlex.quote(str(self.folder))

    @property
    def experiment(self) -> Experiment:
        return parse_experiment(self._read_json("experiment.json"))

    @property
    def request(self) -> Request:
        return Request.parse(self._read_json("request.json"))

    @property
    def has_begun(self) -> bool:
        """Whether everything that was to be measured before its first step is."""
        return (self.folder / "experiment.json").exists()

    @property
    def is_finished(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """Return the end of a finished run.

        Raises:
            RunError: where it is not finished.
        """
        if not self.is_finished:
            raise RunError(f"{self.folder} is not finished; go on with: mixlab train --resume {self.quoted}")
        return self._read_json("summary.json")

    @property
    def command(self) -> str:
        """The command that started the run."""
        path = self.folder / "command.txt"
        return path.read_text(encoding="utf-8").splitlines()[0] if path.exists() else ""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def plots(self) -> Path:
        return self._made("plots")

    @property
    def explanation(self) -> Path:
        return self._made("explain")

    @property
    def tensorboard(self) -> Path:
        return self._made("tensorboard")

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    def evaluation(self, split: str) -> Path:
        return self._made(f"evaluation/{split}")

    def is_measured(self, split: str) -> bool:
        return (self.folder / "evaluation" / split / "metrics.json").exists()

    def measured(self, split: str) -> dict[str, Any]:
        """Return what `evaluate` measured on a split; raises RunError where it did not."""
        return self._read_json(f"evaluation/{split}/metrics.json")

    def predictions(self, split: str) -> str:
        """Return the CSV of what `evaluate` predicted on a split."""
        return (self.folder / "evaluation" / split / "predictions.csv").read_bytes().decode("utf-8", "surrogateescape")

    def top1(self, split: str) -> float | None:
        """Return the top-1 accuracy that was measured on a split, or None where it was not."""
        return self.measured(split)["top1"]["value"] if self.is_measured(split) else None

    def metrics(self) -> list[dict[str, Any]]:
        """Return one row for each finished epoch."""
        return read_lines(self.folder / "metrics.jsonl")

    def timings(self) -> list[dict[str, Any]]:
        """Return one row for each part of an epoch that was saved, see timing.py."""
        return read_lines(self.folder / "timing.jsonl")

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        durable.append_line(self.folder / "metrics.jsonl", json.dumps(row))
        self._write_csv()

    def add_timing(self, row: Mapping[str, Any]) -> None:
        durable.append_line(self.folder / "timing.jsonl", json.dumps(row))

    def skipped(self) -> list[dict[str, Any]]:
        """Return the steps that were passed over, and the files of each."""
        return read_lines(self.folder / "skipped.jsonl")

    def add_skipped(self, row: Mapping[str, Any]) -> None:
        durable.append_line(self.folder / "skipped.jsonl", json.dumps(row))

    def cut_metrics(self, epochs: int) -> None:
        """Forget the rows that a checkpoint after so many epochs does not know of."""
        kept = self.metrics()[:epochs]
        durable.write_bytes(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._write_csv()

    def write_experiment(self, experiment: Experiment) -> None:
        """Write the resolved experiment; with it the folder is a run."""
        durable.write_json(self.folder / "experiment.json", experiment.model_dump(mode="json"))

    def write_request(self, request: Request) -> None:
        durable.write_json(self.folder / "request.json", request.model_dump(mode="json"))

    def write_environment(self, device: str) -> None:
        if not (self.folder / "environment.json").exists():  # of the beginning; the log names later changes
            durable.write_json(self.folder / "environment.json", environment(device))
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        durable.append_line(self.folder / "command.txt", command)

    def read_environment(self) -> dict[str, Any]:
        return self._read_json("environment.json") if (self.folder / "environment.json").exists() else {}

    def write_splits(self, splits: Mapping[str, Any]) -> None:
        durable.write_json(self.folder / "splits.json", splits)

    def read_splits(self) -> dict[str, Any]:
        return self._read_json("splits.json") if (self.folder / "splits.json").exists() else {}

    def write_files(self, files: Mapping[str, Sequence[str | int]]) -> None:
        """Write what is known of each file of the data; on one line, for there may be a million."""
        durable.write_bytes(self.folder / "files.json", json.dumps(files).encode())

    def read_files(self) -> dict[str, Any]:
        return self._read_json("files.json") if (self.folder / "files.json").exists() else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        durable.write_json(self.folder / "summary.json", summary)

    def count_reading(self, split: str, images: int) -> int:
        """Note that a split was read, and return how often it has been."""
        path = self.folder / "evaluation" / "readings.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        durable.append_line(path, json.dumps({"split": split, "images": images, "time": when}))
        return self.readings(split)

    def readings(self, split: str) -> int:
        return sum(row["split"] == split for row in read_lines(self.folder / "evaluation" / "readings.jsonl"))

    def remove_unless_begun(self) -> None:
        """Remove the folder where nothing but the request came into it."""
        if {path.name for path in self.folder.iterdir()} <= {"lock", "request.json", "train.log"}:
            shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training into this folder.

        Raises:
            RunError: where another one does.
        """
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another mixlab is training into {self.folder}; wait for it, or give this one its own --name"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write into {self.folder}: {error.strerror or error}") from None
        try:
            yield
        finally:
            lock.release()

    def _write_csv(self) -> None:
        """Write metrics.csv anew from metrics.jsonl, so that it can never say something else."""
        durable.write_bytes(self.folder / "metrics.csv", as_csv(self.metrics()))

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            found = durable.read_json(self.folder / name)
        except FileNotFoundError:
            raise RunError(f"{self.folder} is not a run: it has no {name}") from None
        except (ValueError, OSError) as error:
            raise RunError(f"{self.folder / name} cannot be read: {error}") from None
        if not isinstance(found, dict):
            raise RunError(f"{self.folder / name} cannot be read: it holds no object")
        return found


def find_run(place: str | Path, root: Path = Path("runs")) -> Run:
    """Return the run that a folder, or a name below `root`, stands for.

    Raises:
        RunError: where there is none.
    """
    candidates = [expand_user(str(place)), root / place]
    for candidate in candidates:
        if (candidate / "experiment.json").is_file():
            return Run(candidate)
    for candidate in candidates:
        if (candidate / "request.json").is_file():
            raise RunError(f"nothing was trained in {candidate} yet; give the command that it was started with again")
    if candidates[0].is_dir():
        raise RunError(f"{place} is a folder, but no run: it has no experiment.json")
    names = [run.name for run in list_runs(root)]
    known = f"; known: {', '.join(names[-3:])}" if names else f"; {root} holds no runs"
    raise RunError(f"there is no run {place}{did_you_mean(Path(place).name, names) or known}")


def list_runs(root: Path) -> list[Run]:
    """Return the runs below a folder, oldest first."""
    found = root.glob("*/experiment.json")  # which is written once, before the first step
    return [Run(path.parent) for path in sorted(found, key=lambda path: (path.stat().st_mtime, path.parent.name))]


def remove_run(run: Run) -> None:
    """Delete a run folder with everything in it.

    Raises:
        RunError: where something is training into it.
    """
    with run.lock():
        pass
    shutil.rmtree(run.folder)


def open_run(request: Request, name: str, root: Path, new: bool) -> Run:
    """Return the folder of a request: a new one, or the one that the same request made before.

    Raises:
        RunError: where the folder holds another experiment, or something that is no run.
    """
    if Path(name).name != name or name == ".." or "\0" in name:
        raise RunError(f"--name {name!r} is no name of a folder; use --out for the folder it lies in")
    folder = root / name
    if new:
        folder = next(path for path in _numbered(folder) if not path.exists())
    run = Run(folder)
    if run.has_begun:
        _refuse_other(run, request)
    elif (folder / "request.json").exists():  # it never came to a first step
        with run.lock():
            run.write_request(request)
    elif folder.exists() and any(path.name != "lock" and path.suffix != ".partial" for path in folder.iterdir()):
        raise RunError(f"{folder} exists and is no run; choose another --name or --out")
    durable.make_folder(folder)
    if not (folder / "request.json").exists():
        run.write_request(request)
    return run


def _refuse_other(run: Run, request: Request) -> None:
    try:
        found = differences(run.request, request)
    except MixlabError as error:
        raise RunError(f"{run.folder} holds a run that cannot be read: {error}") from None
    if found:
        shown = "; ".join(text.removeprefix("experiment.") for text in found[:3])
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise RunError(f"{run.folder} holds another experiment ({shown}{more}). Choose another --name, or add --new")


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    number = 2
    while True:
        yield folder.with_name(f"{folder.name}-{number}")
        number += 1
