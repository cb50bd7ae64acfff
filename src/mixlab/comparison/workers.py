"""Running many trainings, one after the other or several at once; one that fails does not stop the others."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from mixlab import orphans
from mixlab.errors import Interrupted, MixlabError
from mixlab.experiment import Experiment
from mixlab.run.folder import Run
from mixlab.training import train as training
from mixlab.training.session import Options


@dataclass(frozen=True)
class Task:
    variant: str
    experiment: Experiment
    options: Options

    def __str__(self) -> str:
        return f"{self.variant} seed {self.experiment.seed}"


@dataclass(frozen=True)
class Outcome:
    task: Task
    run: Run | None = None  # None: it failed
    error: str = ""
    was_finished: bool = False  # before it was asked for


@dataclass(frozen=True)
class _Training:
    """One that runs in a process of its own."""

    task: Task
    process: BaseProcess
    said: Connection  # its outcome, or the words of its interruption

    def ended(self) -> Outcome | str:
        """Wait for the end, and return what it said; a process that was killed says nothing."""
        try:
            found = self.said.recv()
        except EOFError:
            found = ""
        self.process.join()
        return found


def run_all(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Yield what became of each task, as they end.

    Raises:
        Interrupted: where a signal asked to stop; every training that had begun has saved.
    """
    return map(_run, tasks) if jobs == 1 else _run_at_once(tasks, jobs)


def _run_at_once(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    waiting, running = list(reversed(tasks)), list[_Training]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(), jobs))
            ready = wait([each.said for each in running])
            for each in [each for each in running if each.said in ready]:
                running.remove(each)
                yield _outcome(each)
    except BaseException as error:
        stopped = _stop(running, asked=isinstance(error, KeyboardInterrupt) and not hasattr(os, "setpgid"))
        if isinstance(error, KeyboardInterrupt | Interrupted):
            raise Interrupted(f"asked to stop: {stopped}") from None
        raise


def _start(task: Task, jobs: int) -> _Training:
    context = multiprocessing.get_context("spawn")
    said, says = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(task, jobs, says, os.getpid()))
    process.start()
    says.close()
    return _Training(task, process, said)


def _train(task: Task, jobs: int, says: Connection, parent: int) -> None:
    """Be the process of a training, which only its parent asks to stop: Ctrl-C on a terminal would be two signals."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    orphans.end_with(parent, signal.SIGTERM)  # it saves
    torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))
    try:
        says.send(_run(task))
    except Interrupted as interruption:  # SIGTERM: saved at step 7; go on with: ...
        says.send(str(interruption).partition(";")[0].partition(": ")[2])


def _outcome(ended: _Training) -> Outcome:
    found = ended.ended()
    if isinstance(found, Outcome):
        return found
    if found:  # somebody asked this one alone to stop
        raise Interrupted(found)
    return Outcome(ended.task, error=_silence(ended.process.exitcode or 0))


def _silence(code: int) -> str:
    """Say why a process ended without a word."""
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"its process was ended by {name}, probably for want of memory; try fewer --jobs. The same command goes on"
        )
    return (
        f"its process ended with exit code {code} before it could train; what it said is above. A script that runs "
        'several trainings at once needs `if __name__ == "__main__":` around the call'
    )


def _stop(running: list[_Training], asked: bool) -> str:
    """Wait until all have saved and ended, and return what they say.

    Args:
        asked: they are asked already: Ctrl-C on Windows reaches every process.
    """
    for each in running if not asked else ():
        each.process.terminate()
    ends = [(each.task, each.ended()) for each in running]
    return ", ".join(f"{task} {_ending(said)}" for task, said in ends)


def _ending(said: Outcome | str) -> str:
    if isinstance(said, Outcome):
        return "finished"
    return said or "was not in the middle of training"


def _run(task: Task) -> Outcome:
    known = Run(task.options.out / training.folder_name(task.experiment, task.options))
    try:
        was_finished = known.is_finished
        return Outcome(task, run=training.train(task.experiment, task.options), was_finished=was_finished)
    except Interrupted:
        raise
    except MixlabError as error:
        return Outcome(task, error=str(error))
    except Exception as error:  # a fault of ours in one variant is no reason to lose the others
        traceback.print_exc()
        return Outcome(task, error=f"{type(error).__name__}: {error}")
