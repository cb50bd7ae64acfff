"""What one process needs to start or go on with a run."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mixlab.data.data_set import DataSet
from mixlab.data.images import Images
from mixlab.experiment import Experiment
from mixlab.ranks import ALONE, Ranks
from mixlab.run.folder import Run
from mixlab.run.timing import Clock
from mixlab.training.progress import Screen
from mixlab.training.signals import StopSignals


@dataclass(frozen=True)
class Options:
    """What does not decide the result."""

    device: str = "auto"
    workers: int = 2  # processes that decode files
    out: Path = Path("runs")  # folder of the run's folder
    name: str = ""  # of the run's folder; "": made of data, model and a digest of the request
    new: bool = False  # start another run where this one exists
    quiet: bool = False
    stream: bool = False  # decode files each time instead of keeping their pixels in memory
    cache: bool = False  # keep decoded pictures on disk for the next epochs and runs, see data/cache.py
    strict: bool = False  # stop where an image cannot be read
    max_seconds: float = 0.0  # time that the training should fit into; 0: as long as it takes
    auto_learning_rate: bool = False  # find optimizer.learning_rate by a range test before step 0
    save_seconds: float = 300.0  # time between checkpoints inside an epoch
    tensorboard: bool = False


@dataclass
class Session:
    """What one process needs to go on with a run."""

    run: Run
    experiment: Experiment
    options: Options
    data: DataSet
    device: torch.device
    screen: Screen
    stop: StopSignals
    ranks: Ranks = ALONE
    named: set[str] = field(default_factory=set)  # unreadable files that were reported
    passed_over: set[int] = field(default_factory=set)  # steps that must not be taken, see training/guard.py
    unseen: list[tuple[int, Tensor]] = field(default_factory=list)  # step, and whether it left finite numbers only
    clock: Clock = field(default_factory=Clock)

    @property
    def where(self) -> str:
        """What computes, for people."""
        return str(self.device) if self.ranks.world == 1 else f"{self.device}, {self.ranks.world} ranks"

    @property
    def watched(self) -> tuple[str, Images]:
        """The split that is measured after each epoch."""
        if self.experiment.protocol == "published":
            return "test", self.data.test
        return "validation", self.data.validation
