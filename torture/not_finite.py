"""T9: a NaN or an infinity in the pixels, the loss, a gradient, a weight or a statistic, at a random step.

on_nan = stop must name the step and its files, write nothing of it, and without the fault go on as if nothing had been.
skip and rollback must end alike, one of them stopped by a signal in between.
"""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import torch

from mixlab.data.images import Batch
from mixlab.errors import Interrupted, TrainingError
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Run
from mixlab.training import loop
from torture import small
from torture.check import Check

FAULTS = ("pixels", "loss", "gradient", "weight", "statistic")
VALUES = (float("nan"), float("inf"), float("-inf"))
STEPS = 9  # of the small training


@contextlib.contextmanager
def poisoned(fault: str, steps: set[int], value: float) -> Iterator[None]:
    """Put a number that is not finite into some steps, each time they are taken."""
    real = loop.train_step

    def step(state: Any, experiment: Any, spec: Any, batch: Batch, *rest: Any) -> None:
        if state.step not in steps:
            return real(state, experiment, spec, batch, *rest)
        weight = next(iter(state.model.parameters()))
        if fault == "pixels":
            batch = replace(batch, images=(batch.images / 255).index_fill(0, torch.tensor(0), value))
        if fault == "weight":
            weight.data[0] = value
        hook = weight.register_hook(lambda gradient: gradient.fill_(value)) if fault == "gradient" else None
        real(state, experiment, spec, batch, *rest)
        if hook is not None:
            hook.remove()
        if fault == "loss":
            state.sums[0] = value
        if fault == "statistic":
            next(tensor for name, tensor in state.model.named_buffers() if "running" in name)[0] = value
        return None

    with mock.patch.object(loop, "train_step", step):
        yield


@contextlib.contextmanager
def stopped(number: int) -> Iterator[None]:
    """Send this process SIGTERM before a step."""
    real = loop.train_step

    def step(state: Any, *arguments: Any) -> None:
        if state.step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        real(state, *arguments)

    with mock.patch.object(loop, "train_step", step):
        yield


def case(number: int, root: Path) -> str:
    dice = random.Random(number)
    fault, value, step = FAULTS[number % 5], dice.choice(VALUES), dice.randrange(STEPS)
    pictures = small.prepared(root)
    shown = f"{fault} {value} in step {step}: "
    with poisoned(fault, {step}, value):
        problem = _goes_on(root, pictures, step, dice) if number % 2 else _stops(root, pictures, step)
    if not problem and number % 2 == 0:
        same = small.result(small.trained(root, pictures)) == small.without_fault()
        problem = "" if same else "without the fault it went on to another end"
    return shown + problem if problem else ""


def _stops(root: Path, pictures: Path, step: int) -> str:
    try:
        small.trained(root, pictures)
    except TrainingError as error:
        run = Run(root / "runs" / "run")
        experiment = run.experiment
        train = experiment.data.load(experiment.seed, carve_validation=True).train
        epoch, place = divmod(step, experiment.steps_per_epoch(len(train)))
        first = train.names[experiment.order(train.labels, epoch)[place][0]]
        if f"step {step} left a number that is not finite; its files: {first}, " not in str(error):
            return f"unclear, {first} was the first file: {error}"
        return _written(run)
    return "it came through"


def _goes_on(root: Path, pictures: Path, step: int, dice: random.Random) -> str:
    """Train with skip and with rollback, one of them stopped; both must end alike."""
    ways, results = ["skip", "rollback"], []
    dice.shuffle(ways)
    for way, stop in zip(ways, (STEPS, dice.randrange(STEPS)), strict=True):
        folder = root / way
        with stopped(stop), contextlib.suppress(Interrupted):
            small.trained(folder, pictures, on_nan=way)
        run = small.trained(folder, pictures, on_nan=way)
        if [row["step"] for row in run.skipped()] != [step]:
            return f"{way} passed over {run.skipped()}"
        if _written(run):
            return _written(run)
        results.append(small.result(run))
    return "" if results[0] == results[1] else "skip and rollback differ"


def _written(run: Run) -> str:
    """Return "" where every number that was written is finite."""
    checkpoint, problems = load_newest(run)
    tensors = dict(checkpoint.tensors) if checkpoint else {}
    if run.is_finished:
        tensors |= safetensors.torch.load_file(run.bundle / "model.safetensors")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    rows = (run.folder / "metrics.jsonl").read_text()
    return f"written: {bad} {problems} {rows}" if bad or problems or "NaN" in rows or "Infinity" in rows else ""


CHECKS = [
    Check(
        name="T9",
        claim="a NaN or infinity in pixels, loss, gradient, weight or statistic is named in its step, never written",
        case=case,
        full=300,
        sample=5,
        quick=2,
    )
]
