"""The end of a training: the chosen weights become a bundle, and the run a finished one."""

from pathlib import Path

import torch

from mixlab.config import digest
from mixlab.data.data_set import DataSet
from mixlab.evaluation import inference, pictures, rejection
from mixlab.evaluation.calibration import fit_temperature, softmax
from mixlab.experiment import Experiment
from mixlab.kernels import placement
from mixlab.models import inspection
from mixlab.run.bundle import Bundle, BundleDescription, write_bundle
from mixlab.run.card import model_card
from mixlab.run.folder import Run
from mixlab.training.state import TrainState


def finish(
    run: Run, experiment: Experiment, data: DataSet, device: torch.device, state: TrainState, workers: int
) -> None:
    """Write the bundle, the curves and, last of all, the summary."""
    weights = state.best.weights or state.shipped.state_dict()
    description = BundleDescription(
        mixlab=run.read_environment()["mixlab"],
        model=experiment.model,
        spec=data.spec,
        data=experiment.data.label,
        data_fingerprint=run.read_splits()["fingerprint"],
        experiment=digest(experiment),
        training=_facts(experiment, data, state),
    )
    model = placement.place(Bundle(description, weights).build(), device)
    chosen = {"epoch": float(state.best.epoch), "top1": state.best.top1, "loss": state.best.loss}
    if len(data.validation):
        found = inference.collect(inference.iterate(model, data.validation, data.spec, device, workers=workers))
        temperature = fit_temperature(found.logits, found.labels)
        measured = {"top1": found.top1(), "loss": found.loss(), "images": float(len(found.labels))}
        sure = softmax(found.logits, temperature).max(1)
        accepted = rejection.accepted_by_rank(sure, found.logits.argmax(1) == found.labels)
        description = description.model_copy(
            update={"temperature": temperature, "validation": measured, "accepted": accepted}
        )
    card = model_card(description, inspection.parameters(model), run.command)
    write_bundle(run.bundle, Bundle(description, weights), card)
    pictures.curves(run.plots / "curves.png", run.metrics())
    run.write_summary(
        {
            "model": experiment.model.name,
            "parameters": inspection.parameters(model),
            "macs": inspection.macs(model, data.spec.channels, data.spec.image_size),
            "steps": state.step,
            "protocol": experiment.protocol,
            "chosen": chosen,
            "temperature": description.temperature,
            "validation": description.validation,
        }
    )


def _facts(experiment: Experiment, data: DataSet, state: TrainState) -> dict[str, str]:
    """Return what people ask of a training."""
    return {
        "training images": f"{len(data.train):,}",
        "epochs, steps": f"{experiment.epochs:g}, {state.step:,}",
        "shipped": "the last epoch" if not state.best.weights else f"epoch {state.best.epoch}, the best by validation",
        "batch size, precision": f"{experiment.batch_size}, {experiment.precision}",
        "optimiser, learning rate": f"{experiment.optimizer.name}, {experiment.optimizer.learning_rate:g}",
        "seed": str(experiment.seed),
        **({"started from": _without_folder(experiment.weights)} if experiment.weights else {}),
    }


def _without_folder(place: str) -> str:
    """Return where weights came from without the folders above it, which are nobody else's business; hf:// as it is."""
    return Path(place).name if Path(place).is_absolute() else place
