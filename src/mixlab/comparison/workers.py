"""Running many trainings, one after the other or several at once; one that fails does not stop the others."""

import multiprocessing
import os
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

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


@dataclass(frozen=True)
class Outcome:
    task: Task
    run: Run | None = None  # None: it failed
    error: str = ""
    was_finished: bool = False  # before it was asked for


def run_all(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Yield what became of each task, as they end.

    Raises:
        Interrupted: where a signal asked to stop; every training that ran has saved.
    """
    if jobs == 1:
        yield from map(_run, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _share_cores, (jobs,)) as pool:
        waiting = {pool.submit(_run, task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise MixlabError(
                "a training process was killed, probably for want of memory; try fewer --jobs. The same command goes on"
            ) from None
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()  # it saves
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("asked to stop: every training that ran saves") from None
            raise


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


def _share_cores(jobs: int) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))
