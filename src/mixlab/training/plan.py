"""The plan: what a training will do and roughly cost, measured before step 0."""

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from mixlab import devices
from mixlab.data.data_set import DataSet
from mixlab.data.images import FileImages
from mixlab.data.loading import held_bytes
from mixlab.errors import TrainingError
from mixlab.experiment import Experiment
from mixlab.kernels import library, placement
from mixlab.models import catalogue, inspection
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.folding import fold
from mixlab.models.layers import SameConv2d
from mixlab.training.memory import TRIED, fit_parts, repeated, sample
from mixlab.training.state import fresh_model, state_of
from mixlab.training.step import train_step

SAFETY = 0.93  # share of a time limit that is planned for; clocks of busy machines vary


@dataclass(frozen=True)
class Plan:
    """Sizes and estimates of a training."""

    model: str
    data: str
    train_images: int
    validation_images: int
    test_images: int
    classes: int
    image_size: int
    parameters: int
    macs: int  # of one image, forward
    epochs: float
    steps: int
    batch_size: int
    device: str
    precision: str
    full_step_seconds: float  # measured, at the data's image size
    relative_area: float  # of the images that steps are trained at, in the mean, over the data's
    evaluation_seconds: float  # of one epoch's validation, extrapolated
    memory_bytes: int  # model, optimiser, activations and images held; an estimate
    slow_kernels: str = ""  # why a ConvMixer has no compiled kernels here
    unread_edge: int = 0  # pixels at the right, and as many at the bottom, that are in no patch
    range_test_steps: int = 0  # before step 0, that choose the learning rate; 0: it is given
    parts: int = 1  # that a batch is computed in

    @property
    def step_seconds(self) -> float:
        return self.full_step_seconds * self.relative_area

    @property
    def seconds(self) -> float:
        training = self.steps * self.step_seconds + max(round(self.epochs), 1) * self.evaluation_seconds
        return training + self.range_test_seconds

    @property
    def range_test_seconds(self) -> float:
        return self.range_test_steps * self.full_step_seconds

    def lines(self) -> list[str]:
        """Return the plan for people."""
        held = f"{self.validation_images:,} validation, {self.test_images:,} test"
        edge = f"{self.unread_edge} px of {self.image_size} at the right and bottom edge are in no patch"
        first = f"range test of {self.range_test_steps} steps before step 0, about {duration(self.range_test_seconds)}"
        return [
            f"data     {self.data}: {self.train_images:,} training, {held} images; "
            f"{self.classes} classes, {self.image_size} px",
            f"model    {self.model}: {self.parameters:,} parameters, {self.macs / 1e6:,.1f} M MACs per image",
            *([f"note     {edge}"] if self.unread_edge else []),
            *([f"note     {self.slow_kernels}"] if self.slow_kernels else []),
            f"training {self.epochs:g} epochs, {self.steps:,} steps of {self.batch_size} images on {self.device}, "
            f"{self.precision}",
            *(
                [f"note     a batch is computed in {self.parts} parts, and BatchNorm sees one"]
                if self.parts > 1
                else []
            ),
            *([f"lr       auto: {first}"] if self.range_test_steps else []),
            f"estimate {duration(self.seconds)}, {self.memory_bytes / 2**30:.1f} GiB of memory",
        ]


def resolve(
    experiment: Experiment,
    data: DataSet,
    device: torch.device,
    max_seconds: float,
    workers: int,
    range_test_steps: int = 0,
    ranks: int = 1,
) -> tuple[Experiment, Plan]:
    """Return the experiment as it is on a device: parts that fit its memory, epochs that fit a limit; and its plan.

    Args:
        max_seconds: of everything; 0: as long as it takes.
        range_test_steps: that will be taken before step 0; their time counts.
        ranks: that share each batch.

    Raises:
        TrainingError: where not even ten steps fit, the range test takes more than half of the time, or one image is
            too much for the memory.
        DataError: where the first pictures cannot be read.
    """
    experiment = fit_parts(settle(experiment, device), data, device, ranks)
    found = replace(make_plan(experiment, data, device, workers, ranks), range_test_steps=range_test_steps)
    if not max_seconds:
        return experiment, found
    if found.range_test_seconds > max_seconds / 2:
        raise TrainingError(
            f"the range test of --lr auto takes about {duration(found.range_test_seconds)}, more than half of "
            f"{duration(max_seconds)}; give --lr a number, or more --max-time"
        )
    fitted = fit_epochs(experiment, found, max_seconds - found.range_test_seconds)
    return fitted, replace(found, epochs=fitted.epochs, steps=fitted.steps(len(data.train)))


def settle(experiment: Experiment, device: torch.device) -> Experiment:
    """Return the experiment with what "auto" means on a device.

    On a CPU only convolutions are faster in bfloat16, as measured in docs/experiments.md.
    """
    if experiment.precision != "auto":
        return experiment
    model = experiment.model
    fast = devices.is_fast_in_bfloat16(device) and (device.type != "cpu" or model.is_convolutional)
    with_kernels = isinstance(model, ConvMixerConfig) and model.has_kernels and library.is_faster_in_bfloat16(device)
    return experiment.model_copy(update={"precision": "bfloat16" if fast or with_kernels else "float32"})


def make_plan(experiment: Experiment, data: DataSet, device: torch.device, workers: int, ranks: int = 1) -> Plan:
    """Measure a few steps on a throwaway copy of the model and add everything up."""
    model, images = fresh_model(experiment, data.spec), len(data.train)
    channels, size = data.spec.channels, data.spec.image_size
    batch = min(experiment.batch_size, images)
    share = {"batch_size": max(batch // ranks, 1), "accumulate": max(experiment.parts // ranks, 1)}
    step, forward = _measure(experiment.model_copy(update=share), data, device, workers)
    watched = data.validation if experiment.protocol == "honest" else data.test
    weights = inspection.parameters(model) * 4 * (6 if experiment.weight_average else 5)
    activations = inspection.activation_bytes(model, max(batch // experiment.parts, 1), channels, size)
    return Plan(
        model=catalogue.published_name(experiment.model),
        data=experiment.data.label,
        train_images=images,
        validation_images=len(data.validation),
        test_images=len(data.test),
        classes=data.spec.num_classes,
        image_size=size,
        parameters=inspection.parameters(model),
        macs=inspection.macs(model, channels, size),
        epochs=experiment.epochs,
        steps=experiment.steps(images),
        batch_size=batch,
        device=device_name(device) if ranks == 1 else f"{ranks} x {device_name(device)}",
        precision=experiment.precision,
        full_step_seconds=step * batch / ranks,
        relative_area=experiment.relative_area(images, size),
        evaluation_seconds=forward * len(watched) / ranks,
        memory_bytes=weights + activations + held_bytes(data.train) + held_bytes(data.validation),
        slow_kernels=_slow_kernels(model, device),
        unread_edge=experiment.model.unread_edge(size),
        parts=experiment.parts,
    )


def fit_epochs(experiment: Experiment, plan: Plan, seconds: float) -> Experiment:
    """Return the experiment with as many epochs as fit into the time, and never more than it asks for.

    Raises:
        TrainingError: where not even ten steps fit.
    """
    per_epoch = experiment.steps_per_epoch(plan.train_images) * plan.step_seconds + plan.evaluation_seconds
    epochs = min(int(100 * SAFETY * seconds / per_epoch) / 100, experiment.epochs)
    if epochs * experiment.steps_per_epoch(plan.train_images) < 10 and epochs < experiment.epochs:
        raise TrainingError(
            f"one epoch takes about {duration(per_epoch)}, so {duration(seconds)} is too short to learn anything; "
            "give it more time, a smaller model or a smaller data.image_size"
        )
    planned = experiment.schedule_epochs * epochs / experiment.epochs
    return experiment.model_copy(update={"epochs": epochs, "schedule_epochs": max(planned, epochs) if planned else 0})


def duration(seconds: float) -> str:
    """Return "45 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(whole, 1)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _slow_kernels(model: nn.Module, device: torch.device) -> str:
    depthwise = any(isinstance(layer, SameConv2d) for layer in model.modules())
    known = device.type in library.TYPES
    return library.describe(device.type) if depthwise and known and not library.is_ready(device) else ""


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def _measure(experiment: Experiment, data: DataSet, device: torch.device, workers: int) -> tuple[float, float]:
    """Return the seconds per image of a training step and of a forward pass, decoding included."""
    state = state_of(fresh_model(experiment, data.spec), experiment, data, device)
    started = time.perf_counter()
    batch = sample(data)
    streamed = isinstance(data.train, FileImages)
    decoding = (time.perf_counter() - started) / min(len(data.train), TRIED) / max(workers, 1) if streamed else 0.0
    count = min(experiment.batch_size, len(batch.indices))
    batch = repeated(batch, count).to(device)
    trial = experiment.model_copy(update={"accumulate": min(experiment.parts, count)})
    state.train_mode()
    for _, size in trial.image_sizes:  # on a GPU kernels are chosen for each, before the environment is written down
        train_step(state, trial, data.spec.model_copy(update={"image_size": size}), batch, rate=0.0)
    steps = []
    while len(steps) < 2 or (sum(steps) < 2 and len(steps) < 8):
        started = _now(device)
        train_step(state, trial, data.spec, batch, rate=0.0)
        steps.append(_now(device) - started)
    forward = _measure_forward(state.model, data, device, max(count // trial.parts, 1))
    return sorted(steps[1:])[(len(steps) - 1) // 2] / count + decoding, forward + decoding


def _measure_forward(model: nn.Module, data: DataSet, device: torch.device, count: int) -> float:
    """Return the seconds per image of a forward pass, as evaluation takes it."""
    size = data.spec.image_size
    inputs = torch.rand(count, data.spec.channels, size, size, device=device)
    inputs = inputs.contiguous(memory_format=placement.memory_format(model, device))
    model = fold(model)
    with torch.inference_mode():
        model(inputs)
        started = _now(device)
        model(inputs)
        return (_now(device) - started) / count


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
