"""The loop: epochs of steps, each followed by a look at the validation images, a row of metrics and a checkpoint."""

import contextlib
import math
import time
from collections.abc import Generator
from itertools import chain, islice
from typing import Any

import numpy as np

from mixlab.data.images import Batch, Images
from mixlab.data.loading import batches
from mixlab.errors import DataError, TrainingError
from mixlab.evaluation import inference
from mixlab.run import timing
from mixlab.run.checkpoint import save_checkpoint
from mixlab.run.timing import Clock
from mixlab.training import guard
from mixlab.training.prepare import report_unreadable
from mixlab.training.progress import epoch_line
from mixlab.training.session import Session
from mixlab.training.state import Best, TrainState
from mixlab.training.step import train_step
from mixlab.training.tensorboard import log_epoch


def train_to_end(session: Session, state: TrainState) -> None:
    """Train to the last step; every way out leaves `state` between two steps."""
    experiment = session.experiment
    per_epoch = experiment.steps_per_epoch(len(session.data.train))
    steps = experiment.steps(len(session.data.train))
    while state.epoch < math.ceil(steps / per_epoch):
        until = min((state.epoch + 1) * per_epoch, steps)
        session.clock = Clock(round(until / per_epoch, 2), state.step)
        with contextlib.closing(_rest_of_epoch(session, state, until)) as epoch:
            for batch in epoch:
                _one_step(session, state, batch)
        _finish_epoch(session, state, per_epoch)


def save(session: Session, state: TrainState) -> None:
    """Write a checkpoint; raises TrainingError, or GoBack, instead where a number in it is not finite."""
    guard.look(session)
    guard.check(state)
    trained = time.perf_counter()
    if session.ranks.leads:
        save_checkpoint(session.run, state.checkpoint())
        _note_time(session, state.step, trained)


def _note_time(session: Session, step: int, trained: float) -> None:
    """Write down how long the part took that was saved, and start the next."""
    clock, now = session.clock, time.perf_counter()
    images = (step - clock.step) * min(session.experiment.batch_size, len(session.data.train))
    session.run.add_timing(clock.row(images, clock.trained or trained, now))
    session.clock = Clock(clock.epoch, step, started=now)


def _rest_of_epoch(session: Session, state: TrainState, until: int) -> Generator[Batch, None, None]:
    experiment, images = session.experiment, session.data.train
    per_epoch = experiment.steps_per_epoch(len(images))
    first = state.step - state.epoch * per_epoch
    last = until - state.epoch * per_epoch
    size = min(experiment.batch_size, len(images))
    order = experiment.order(images.labels, state.epoch)[first:last]
    mixed = experiment.augmentation.mix.is_on
    places = [session.ranks.places(len(whole), experiment.parts, with_partner=mixed) for whole in order]
    own = [whole[own_places] for whole, own_places in zip(order, places, strict=True)]
    session.screen.start(f"epoch {state.epoch + 1}/{experiment.epochs:g}", first, last)
    state.train_mode()
    saved = started = time.perf_counter()
    with contextlib.closing(batches(images, own, session.options.workers)) as found, session.stop.reading():
        for number, batch in enumerate(found):
            session.stop.check()
            if time.perf_counter() - saved > session.options.save_seconds:
                if guard.may_save_alone(session):
                    save(session, state)
                saved = time.perf_counter()
            yield batch.part_of(order[number], places[number])
            session.screen.advance((number + 1) * size / (time.perf_counter() - started))


def _one_step(session: Session, state: TrainState, batch: Batch) -> None:
    unread = len(batch.indices) == 0 and session.ranks.world == 1  # not one file of it; the report names them
    if unread or state.step in session.passed_over:
        state.step += 1
        return
    experiment, spec, images = session.experiment, session.data.spec, len(session.data.train)
    if experiment.has_frozen_filters(state.step, images):
        state.freeze_filters()
    spec = spec.model_copy(update={"image_size": experiment.image_size(state.step, images, spec.image_size)})
    rate = experiment.learning_rate(state.step, images)
    ours = batch.to(session.device)
    guard.take(session, state, lambda: train_step(state, experiment, spec, ours, rate, session.ranks))


def _finish_epoch(session: Session, state: TrainState, per_epoch: int) -> None:
    guard.look(session)
    split, images = session.watched
    row: dict[str, Any] = {"epoch": round(state.step / per_epoch, 2), "step": state.step}
    loss, correct, count = state.sums.tolist()
    if count == 0:
        raise DataError("not one picture of a whole epoch can be read; mixlab data check names the reasons")
    row |= {"train_loss": loss / count, "train_top1": correct / count}
    session.clock.trained = time.perf_counter()
    if len(images):
        found = _watch(session, state, split, images)
        row |= {f"{split}_loss": found.loss(), f"{split}_top1": found.top1()}
        _choose(session, state, row[f"{split}_top1"], row[f"{split}_loss"])
    report_unreadable(session)
    if session.experiment.on_nan != "stop":
        row["skipped_steps"] = guard.passed_over(session, state.epoch * per_epoch, state.step)
    row["learning_rate"] = session.experiment.learning_rate(state.step - 1, len(session.data.train))
    state.sums.zero_()
    state.epoch += 1
    if session.ranks.leads:
        session.run.add_metrics(row)
    save(session, state)
    if not session.ranks.leads:
        return
    parts = timing.of_epoch(session.run.timings(), row["epoch"])
    session.screen.say(epoch_line(row, session.experiment.epochs, timing.seconds(parts), timing.speed(parts)))
    if session.options.tensorboard:
        log_epoch(session.run, row)


def _watch(session: Session, state: TrainState, split: str, images: Images) -> inference.Predictions:
    """Measure the weights that would be shipped, as `evaluate` does; ranks share the batches.

    A signal here loses nothing: the epoch is finished when going on.
    """
    ranks = session.ranks
    if split == "test" and ranks.leads:
        session.run.count_reading("test", len(images))
    model, workers, which = state.shipped.eval(), session.options.workers, slice(ranks.rank, None, ranks.world)
    watched = inference.iterate(model, images, session.data.spec, session.device, workers, which)
    own = []
    with contextlib.closing(watched) as found, session.stop.reading():
        for _ in range(0, len(images), inference.BATCH_SIZE * ranks.world):  # as many for each rank, as all must ask
            session.stop.check()
            own += [(logits, batch.without_pixels()) for logits, batch in islice(found, 1)]
    parts = sorted(chain(*ranks.gathered(own)), key=lambda part: part[1].indices[0])
    answers = inference.collect(iter(parts))
    bad = [images.names[index] for index in answers.indices[~np.isfinite(answers.logits).all(1)]]
    if bad:
        raise TrainingError(
            f"after step {state.step:,} the answers to {len(bad)} {split} pictures are not finite numbers, such as "
            f"to {bad[0]}; nothing of the epoch was saved. {guard.ADVICE}"
        )
    return answers


def _choose(session: Session, state: TrainState, top1: float, loss: float) -> None:
    """Keep the weights of the best epoch, or of the last; among equals the lower loss."""
    last = session.experiment.select == "last" or session.experiment.protocol == "published"
    if last or (top1, -loss) > (state.best.top1, -state.best.loss):
        weights = {name: tensor.detach().cpu().clone() for name, tensor in state.shipped.state_dict().items()}
        state.best = Best(state.epoch + 1, top1, loss, weights)
