"""`train`: start, resume or return the run of an experiment."""

import torch

from mixlab import devices
from mixlab.data.catalogue import DataSet
from mixlab.errors import Interrupted, TrainingError
from mixlab.experiment import Experiment
from mixlab.models import catalogue
from mixlab.run.checkpoint import load_newest
from mixlab.run.folder import Request, Run, open_run
from mixlab.training.finish import finish
from mixlab.training.loop import save, train_to_end
from mixlab.training.plan import Plan, fit_epochs, make_plan
from mixlab.training.prepare import check_data, hold, note_changes, report_unreadable, splits_of
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session
from mixlab.training.signals import StopSignals
from mixlab.training.state import TrainState, fresh_model, state_of
from mixlab.training.weights import freeze, load_weights


def train(experiment: Experiment, options: Options) -> Run:
    """Start the run of an experiment, go on with it, or return it where it is finished.

    Raises:
        RunError: where the run's folder cannot be used.
        DataError: where the data cannot be used.
        TrainingError: where the loss is no longer finite.
        Interrupted: where a signal asked to stop; everything is saved.
    """
    request = Request(experiment=experiment, max_seconds=options.max_seconds)
    run = open_run(request, options.name or default_name(request), options.out, options.new)
    return resume(run, options)


def resume(run: Run, options: Options) -> Run:
    """Go on with a run, with no more than its folder; raises as `train`."""
    with run.lock():
        if run.is_finished:
            return run
        with Screen(run.log, options.quiet) as screen:
            try:
                _train(run, options, screen)
            except RuntimeError as error:
                raise _explained(error, run.request.experiment) from None
    return run


def _explained(error: RuntimeError, experiment: Experiment) -> Exception:
    """Say what to do where memory ran out; other errors stay what they are."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
        return error
    smaller, parts = max(experiment.batch_size // 2, 1), experiment.accumulate * 2
    return TrainingError(
        f"out of memory at batch {experiment.batch_size} on this device. Try --batch-size {smaller}, "
        f"or --accumulate {parts} (the same optimiser batch; BatchNorm then sees {experiment.batch_size // parts})"
    )


def plan(experiment: Experiment, options: Options) -> Plan:
    """Return what `train` would do; writes nothing."""
    device = devices.choose_device(options.device)
    data = experiment.data.load(experiment.seed, carve_validation=experiment.protocol == "honest")
    check_data(data, experiment)
    found = make_plan(experiment, data, device)
    if not options.max_seconds:
        return found
    return make_plan(fit_epochs(experiment, found, options.max_seconds), data, device)


def default_name(request: Request) -> str:
    """Return the name of a request's folder, such as digits-convmixer_64_4-1a2b3c4d."""
    experiment = request.experiment
    limit = f"-{request.max_seconds:g}s" if request.max_seconds else ""
    return f"{experiment.data.label}-{catalogue.published_name(experiment.model)}{limit}-{experiment.digest()}"


def _train(run: Run, options: Options, screen: Screen) -> None:
    device = devices.choose_device(options.device)
    devices.make_deterministic(device)
    asked = run.request
    data = asked.experiment.data.load(asked.experiment.seed, asked.experiment.protocol == "honest")
    check_data(data, asked.experiment)
    screen.say([f"note     {note}" for note in data.notes])
    fingerprint = data.fingerprint()
    data = hold(data, device, options, screen)
    experiment = _resolve(run, asked, data, fingerprint, device, screen)
    session = Session(run, experiment, options, data, fingerprint, device, screen, StopSignals())
    report_unreadable(session)
    note_changes(session)
    state = _restore_or_start(session)
    try:
        with session.stop:
            train_to_end(session, state)
    except Interrupted as interruption:
        save(session, state)
        raise Interrupted(
            f"{interruption}: saved at step {state.step:,}; go on with: mixlab train --resume {run.folder}"
        ) from None
    finish(run, experiment, data, device, state, options.workers)
    screen.say(f"finished {run.folder}")


def _resolve(
    run: Run, asked: Request, data: DataSet, fingerprint: str, device: torch.device, screen: Screen
) -> Experiment:
    """Return the experiment with everything measured, once: a run that has it written keeps it."""
    if (run.folder / "experiment.json").exists():
        return run.experiment
    experiment = asked.experiment
    found = make_plan(experiment, data, device)
    if asked.max_seconds:
        experiment = fit_epochs(experiment, found, asked.max_seconds)
        found = make_plan(experiment, data, device)
    screen.say(found.lines())
    run.write_splits(
        {
            "fingerprint": fingerprint,
            **{name: images.names for name, images in splits_of(data).items()},
            "unreadable": {**data.train.unreadable, **data.validation.unreadable},
        }
    )
    run.write_experiment(experiment)
    return experiment


def _restore_or_start(session: Session) -> TrainState:
    run, experiment = session.run, session.experiment
    checkpoint, problems = load_newest(run)
    session.screen.say([f"skipped  a damaged checkpoint, {problem}" for problem in problems])
    model = fresh_model(experiment, session.data.spec)
    if checkpoint is not None:
        freeze(model, checkpoint.state["frozen"])
    elif experiment.weights:
        loaded = load_weights(model, experiment.weights, session.data.spec, experiment.freeze)
        session.screen.say(f"weights  {loaded}")
    state = state_of(model, experiment, session.device)
    if checkpoint is not None:
        state.restore(checkpoint)
        session.screen.say(f"resumed  at step {state.step:,} of {experiment.steps(len(session.data.train)):,}")
    run.cut_metrics(state.epoch)
    return state
