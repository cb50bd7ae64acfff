"""`train`: start, resume or return the run of an experiment."""

from pathlib import Path

import torch

from mixlab import devices, randomness
from mixlab.data.catalogue import DataSet
from mixlab.errors import Interrupted
from mixlab.experiment import Experiment
from mixlab.models import catalogue
from mixlab.run.checkpoint import load_newest, save_checkpoint
from mixlab.run.folder import Request, Run, open_run
from mixlab.training.finish import finish
from mixlab.training.loop import train_to_end
from mixlab.training.plan import Plan, fit_epochs, make_plan
from mixlab.training.prepare import check_data, hold, note_changes, report_unreadable, splits_of
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session
from mixlab.training.signals import StopSignals
from mixlab.training.state import TrainState, new_state, state_of
from mixlab.training.weights import load_weights


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
        with StopSignals() as stop, Screen(run.log, options.quiet) as screen:
            _train(run, options, screen, stop)
    return run


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
    data = Path(experiment.data.path).name if experiment.data.name == "folder" else experiment.data.name
    limit = f"-{request.max_seconds:g}s" if request.max_seconds else ""
    return f"{data}-{catalogue.published_name(experiment.model)}{limit}-{experiment.digest()}"


def _train(run: Run, options: Options, screen: Screen, stop: StopSignals) -> None:
    device = devices.choose_device(options.device)
    asked = run.request
    data = asked.experiment.data.load(asked.experiment.seed, asked.experiment.protocol == "honest")
    check_data(data, asked.experiment)
    screen.say([f"note     {note}" for note in data.notes])
    fingerprint = data.fingerprint()
    data = hold(data, device, options)
    report_unreadable(data, options, screen)
    experiment = _resolve(run, asked, data, fingerprint, device, screen)
    session = Session(run, experiment, options, data, fingerprint, device, screen, stop)
    note_changes(session)
    state = _restore_or_start(session)
    try:
        train_to_end(session, state)
    except Interrupted as interruption:
        save_checkpoint(run, state.checkpoint())
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
    randomness.seed_torch(torch.device("cpu"), experiment.seed, "weights")
    state = new_state(experiment, session.data.spec, session.device)
    if experiment.weights:
        loaded = load_weights(state.model, experiment.weights, session.data.spec, experiment.freeze)
        session.screen.say(f"weights  {loaded}")
        state = state_of(state.model, experiment, session.device)
    if checkpoint is not None:
        state.restore(checkpoint)
        session.screen.say(f"resumed  at step {state.step:,} of {experiment.steps(len(session.data.train)):,}")
    run.cut_metrics(state.step)
    return state
