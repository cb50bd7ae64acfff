"""`mixlab`: its commands, and what becomes of errors.

Modules here import torch, and whatever imports torch, only inside a command, so that `--help` answers at once.
"""

import codecs
import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time

import click

from mixlab.cli import common, launch
from mixlab.cli.bench import bench
from mixlab.cli.compare import compare
from mixlab.cli.data import data
from mixlab.cli.doctor import doctor
from mixlab.cli.evaluate import evaluate
from mixlab.cli.explain import explain
from mixlab.cli.export import export
from mixlab.cli.import_ import import_
from mixlab.cli.lr_find import lr_find
from mixlab.cli.models import models
from mixlab.cli.predict import predict
from mixlab.cli.report import report
from mixlab.cli.reproduce import reproduce
from mixlab.cli.runs import runs
from mixlab.cli.serve import serve
from mixlab.cli.train import train
from mixlab.errors import MixlabError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mixlab")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def mixlab(context: click.Context, debug: bool) -> None:
    """Train, compare and ship patch-based image classifiers.

    \b
    mixlab compare --data ~/birds --models convmixer,vit,resnet9 --budget time=10m
    mixlab train --data ~/birds --epochs 20     train on folders of pictures
    mixlab evaluate RUN                         measure it on the test pictures
    mixlab predict RUN photo.jpg                use it
    mixlab export RUN --to onnx                 ship it
    """
    if launch.is_rank() and context.invoked_subcommand != "train":
        raise click.UsageError(
            f"only mixlab train runs in several processes (WORLD_SIZE={os.environ['WORLD_SIZE']}); "
            f"start {context.invoked_subcommand} alone."
        )


for command in (
    train,
    compare,
    evaluate,
    predict,
    serve,
    explain,
    export,
    import_,
    report,
    reproduce,
    lr_find,
    models,
    runs,
    data,
    bench,
    doctor,
):
    mixlab.add_command(command)


def main() -> None:
    """Run a command; every mistake of the user is one line and an exit code."""
    codecs.register_error("mixlab", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mixlab")
    for name in ("SIGTERM", "SIGUSR1"):  # as Ctrl-C, until training takes over
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    debug = "--debug" in sys.argv
    sys.argv[1:] = (["--debug"] if debug else []) + [word for word in sys.argv[1:] if word != "--debug"]
    try:
        code = mixlab.main(prog_name="mixlab", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        common.echo(*error.format_message().splitlines())
        code = 2
    except click.ClickException as error:
        code = _complain(_one_line(error), error.exit_code)
    except MixlabError as error:
        if debug:
            raise
        code = _complain(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a disk that is full or a folder that may not be written
        if debug:
            raise
        where = f": {error.filename}" if error.filename else ""  # standard output has none
        code = _complain(f"{error.strerror or error}{where}", 1)
    except (KeyboardInterrupt, click.Abort):
        code = _complain("interrupted", 130)
    for child in multiprocessing.active_children():  # a loader that was interrupted while it started its workers
        child.kill()
    sys.exit(code or 0)


def _spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write what a stream cannot: names of files that are not UTF-8 as their own bytes, all else as its number."""
    if isinstance(error, UnicodeEncodeError) and codecs.lookup(error.encoding).name == "utf-8":
        with contextlib.suppress(UnicodeError):
            return codecs.lookup_error("surrogateescape")(error)
    return codecs.backslashreplace_errors(error)


def _one_line(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text} ({error.ctx.command_path} --help shows what is known.)"
    return text


def _complain(message: str, code: int) -> int:
    if launch.leads():
        common.echo(f"error: {message}", err=True)
    elif code not in (2, 130):  # a wrong word or a signal is one for all ranks, and the leader says so
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(5)  # where the leader met the same, torchrun ends this process first
        common.echo(f"error in rank {os.environ['RANK']}: {message}", err=True)
    return code
