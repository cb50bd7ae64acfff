"""What becomes of a step that leaves a number that is not finite, as the experiment's `on_nan` says.

stop ends the training. skip drops the step's update. rollback goes on from the newest checkpoint and passes the step
over; it also heals numbers that went bad between two steps. Going on from a checkpoint is exact, so skip and rollback
end with the same bits. A CPU is asked after each step. An accelerator would have to wait for that, so it keeps a flag
for each step, which is read before anything is written; a skip there is a rollback. Ranks have the same sums, gradients
and weights after a step, so they find the same without a word.
"""

from collections.abc import Callable

import torch

from mixlab.errors import TrainingError
from mixlab.run.checkpoint import Checkpoint
from mixlab.training.session import Session
from mixlab.training.state import TrainState

GIVE_UP = 5  # steps in a row that are not passed over any more
NAMED = 3  # files of a batch that a message has
ADVICE = "Try a smaller --lr, clip_norm=1 or precision=float32"


class GoBack(Exception):
    """Training has to go on from the newest checkpoint."""


def take(session: Session, state: TrainState, step: Callable[[], None]) -> None:
    """Take a step of the training, and look at what it left.

    Raises:
        TrainingError: where the training has to end.
        GoBack: where it has to go on from the newest checkpoint.
    """
    number, waits = state.step, is_asked(session.device)
    before = _copy(state) if waits and session.experiment.on_nan == "skip" else None
    step()
    finite = state.is_finite()
    if before is not None and not finite:
        _pass_over(session, number)
        state.restore(before)
        state.step = number + 1
        return
    session.unseen.append((number, finite))
    if waits:
        look(session)


def look(session: Session) -> None:
    """Read what the steps since the last look have left; raises as `take`."""
    bad = _bad(session)
    session.unseen.clear()
    if not bad:
        return
    if session.experiment.on_nan == "stop":
        raise TrainingError(
            f"{_describe(session, bad[0])}. Nothing of it was saved. {ADVICE}; on_nan=skip goes on without such steps"
        )
    _pass_over(session, bad[0])
    raise GoBack


def is_asked(device: torch.device) -> bool:
    """Whether a device is asked after each step."""
    return device.type == "cpu"


def check(state: TrainState) -> None:
    """Raise TrainingError where a number of the state is not finite."""
    if not state.is_finite():
        raise TrainingError(
            f"a number of the training is not finite before step {state.step:,}; nothing of it was saved. {ADVICE}"
        )


def may_save_alone(session: Session) -> bool:
    """Whether a rank may save by its own clock: going back is for all of them, at the end of an epoch."""
    return session.ranks.world == 1 or (session.ranks.leads and not _bad(session))


def passed_over(session: Session, first: int, last: int) -> int:
    """Return how many steps from `first` to before `last` are passed over."""
    return sum(first <= step < last for step in session.passed_over)


def _pass_over(session: Session, step: int) -> None:
    """Note for good that a step is passed over; raises TrainingError where it is one too many."""
    before = next(count for count in range(step + 1) if step - count - 1 not in session.passed_over)
    if before + 1 >= min(GIVE_UP, session.experiment.steps_per_epoch(len(session.data.train))):
        others = f", and so did {before} right before it" if before else ""
        raise TrainingError(f"{_describe(session, step)}{others}. {ADVICE}")
    if session.ranks.leads:
        session.run.add_skipped({"step": step, "files": _files(session, step)})
    session.passed_over.add(step)
    session.screen.say(f"skipped  {_describe(session, step)}")


def _bad(session: Session) -> list[int]:
    """Return the steps nobody has looked at that left a number that is not finite."""
    flags = [flag for _, flag in session.unseen]
    finite = torch.stack(flags).tolist() if flags else []
    return [step for (step, _), fine in zip(session.unseen, finite, strict=True) if not fine]


def _copy(state: TrainState) -> Checkpoint:
    found = state.checkpoint()
    return found._replace(tensors={name: tensor.clone() for name, tensor in found.tensors.items()})


def _describe(session: Session, step: int) -> str:
    files = _files(session, step)
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return f"step {step:,} left a number that is not finite; its files: {', '.join(files[:NAMED])}{more}"


def _files(session: Session, step: int) -> list[str]:
    """Return the names of the pictures that a step is taken on, in their order."""
    images = session.data.train
    epoch, place = divmod(step, session.experiment.steps_per_epoch(len(images)))
    return [images.names[index] for index in session.experiment.order(images.labels, epoch)[place]]
