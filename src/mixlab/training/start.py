"""Where a training starts: at its newest checkpoint, at the weights it was given, or at fresh ones."""

from torch import nn

from mixlab.models.sync_norm import synchronise
from mixlab.run.checkpoint import Checkpoint, load_newest
from mixlab.training import changes
from mixlab.training.session import Session
from mixlab.training.state import TrainState, fresh_model, state_of
from mixlab.training.weights import freeze, load_weights


def state_to_go_on_from(session: Session) -> TrainState:
    """Return the state to go on from; the leader sends it to the other ranks."""
    if session.ranks.leads:
        state = _restore_or_start(session)
        session.ranks.led(lambda: state.checkpoint().on_cpu())
        return state
    sent: Checkpoint = session.ranks.led(lambda: None)  # pyright: ignore[reportAssignmentType]
    model = _model(session)
    freeze(model, sent.state["frozen"])
    state = state_of(model, session.experiment, session.data, session.device)
    state.restore(sent)
    return state


def _model(session: Session) -> nn.Module:
    model = fresh_model(session.experiment, session.data.spec)
    if session.experiment.sync_batchnorm and session.ranks.world > 1:
        synchronise(model)
    return model


def _restore_or_start(session: Session) -> TrainState:
    run, experiment = session.run, session.experiment
    checkpoint, problems = load_newest(run)
    session.screen.say([f"skipped  a damaged checkpoint, {problem}" for problem in problems])
    model = _model(session)
    if checkpoint is not None:
        freeze(model, checkpoint.state["frozen"])
    elif experiment.weights:
        changes.refuse_other_weights(run, experiment.weights)
        loaded = load_weights(model, experiment.weights, session.data.spec, experiment.freeze)
        session.screen.say(f"weights  {loaded}")
    state = state_of(model, experiment, session.data, session.device)
    if checkpoint is not None:
        state.restore(checkpoint)
        session.screen.say(f"resumed  at step {state.step:,} of {experiment.steps(len(session.data.train)):,}")
    run.cut_metrics(state.epoch)
    return state
