"""Before step 0: the data is checked and held, and compared with what the run began with."""

import torch

from mixlab.data.catalogue import DataSet
from mixlab.data.images import FileImages, MemoryImages
from mixlab.data.loading import in_memory
from mixlab.errors import DataError
from mixlab.experiment import Experiment
from mixlab.kernels import choice
from mixlab.run.environment import environment
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session


def check_data(data: DataSet, experiment: Experiment) -> None:
    if data.spec.num_classes < 2:
        raise DataError(f"training needs two classes or more; found only {data.spec.classes[0]!r}")
    if len(data.train) < 2:
        raise DataError(f"training needs two images or more; found {len(data.train)}")
    if experiment.protocol == "published" and len(data.test) == 0:
        raise DataError("protocol=published watches test images, and this data set has none; use protocol=honest")
    if experiment.protocol == "honest" and len(data.validation) == 0:
        raise DataError(
            f"{len(data.train)} training images are too few to set some aside for validation; "
            "add images, or a validation and a test folder"
        )


def hold(data: DataSet, device: torch.device, options: Options, screen: Screen) -> DataSet:
    """Keep what fits in memory, on the device; test images are not touched here."""
    train, validation = data.train, data.validation
    if not options.stream:
        files = [images for images in (train, validation) if isinstance(images, FileImages)]
        if files:
            screen.say(f"reading  {sum(map(len, files)):,} pictures into memory (--stream decodes them each epoch)")
        train, validation = (in_memory(images, options.workers) for images in (train, validation))
    return DataSet(
        data.spec,
        train.to(device) if isinstance(train, MemoryImages) else train,
        validation.to(device) if isinstance(validation, MemoryImages) else validation,
        data.test,
        data.notes,
    )


def report_unreadable(session: Session) -> None:
    """Name the files that turned out to be unreadable since the last report.

    Raises:
        DataError: where there is one and the training is strict.
    """
    met = {**session.data.train.unreadable, **session.data.validation.unreadable}
    found = {name: reason for name, reason in met.items() if name not in session.named}
    if not found:
        return
    if session.options.strict:
        name, reason = next(iter(found.items()))
        raise DataError(
            f"{len(found)} files cannot be read, such as {name}: {reason}; without --strict they are skipped"
        )
    session.named.update(found)
    session.screen.say(f"skipped  {len(found)} files that cannot be read:")
    session.screen.say([f"         {name}: {reason}" for name, reason in found.items()])


def note_changes(session: Session) -> None:
    """Say what is no longer as it was when the run began; exactness is promised only for the same of all this."""
    run, screen = session.run, session.screen
    first = run.read_environment()
    choice.adopt(first.get("gpu_kernels", {}))
    now = environment(str(session.device))
    for key in first.keys() & now.keys() - {"gpu_kernels"}:  # which holds what other runs of this process chose, too
        if first[key] != now[key]:
            screen.say(f"note     {key} was {first[key]} and is {now[key]}: the result may differ in the last digits")
    splits = run.read_splits()
    if splits and splits["fingerprint"] != session.fingerprint:
        before = {name for split in session.data.splits for name in splits[split]}
        after = {name for images in session.data.splits.values() for name in images.names}
        gone, new = sorted(before - after), sorted(after - before)
        changed = [
            f"{len(names)} {what}, such as {names[0]}" for names, what in ((gone, "gone"), (new, "new")) if names
        ]
        raise DataError(
            f"the data changed since {run.folder} began ({'; '.join(changed) or 'the content of files'}); "
            "restore it, or start another run with --new"
        )
    run.write_environment(str(session.device))
