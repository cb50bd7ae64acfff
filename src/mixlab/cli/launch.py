"""`--nproc`: a training in several processes of this machine, started and watched by torch's elastic agent."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

import click

RESTARTS = 3


def is_rank() -> bool:
    """Return whether this process is one of several that train together."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def leads() -> bool:
    """Return whether this process speaks to people: the first of several, or one that was not told which it is."""
    rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1")
    return not (rank.isdecimal() and world.isdecimal() and 0 < int(rank) < int(world))


def start(processes: int, words: Sequence[str]) -> None:
    """Run mixlab with these words in so many processes, and leave with their exit code; after a kill they start again.

    So the words must mean the same run each time.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # the ranks say themselves what is wrong
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    for attempt in range(RESTARTS + 1):
        config = LaunchConfig(
            1, 1, processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id=str(os.getpid()), max_restarts=0
        )
        config.signals_to_handle = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # handed on to the ranks
        try:
            elastic_launch(config, sys.executable)("-m", "mixlab", *words)
            return
        except SignalException:
            sys.exit(130)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            if failure.exitcode >= 0 or attempt == RESTARTS:  # it has said why
                sys.exit(failure.exitcode if failure.exitcode >= 0 else 1)
            name = signal.Signals(-failure.exitcode).name
            click.echo(f"note     a process was ended by {name}; going on from the newest checkpoint", err=True)


def into(name: str, words: Sequence[str]) -> list[str]:
    """Return a command's words with the name of the folder that its --new has made, in place of --new."""
    end = words.index("--") if "--" in words else len(words)
    return [*(word for word in words[:end] if word != "--new"), "--name", name, *words[end:]]
