"""Before step 0: the data is checked and held, and compared with what the run began with."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from mixlab.data import cache
from mixlab.data.data_set import DataSet
from mixlab.data.images import FileImages, Images, MemoryImages
from mixlab.data.loading import held_bytes, in_memory
from mixlab.errors import DataError, UsageError
from mixlab.experiment import Experiment
from mixlab.kernels import choice
from mixlab.ranks import Ranks
from mixlab.run.environment import environment
from mixlab.training.progress import Screen
from mixlab.training.session import Options, Session


def check_data(data: DataSet, experiment: Experiment) -> None:
    """Raise DataError where the data is too little to train on, UsageError where its images are too small."""
    _check_image_sizes(data, experiment)
    if data.spec.num_classes < 2:
        raise DataError(f"training needs two classes or more; found only {data.spec.classes[0]!r}")
    if len(data.train) < 2:
        raise DataError(f"training needs two images or more; found {len(data.train)}")
    if experiment.protocol == "published" and len(data.test) == 0:
        raise DataError("protocol=published watches test images, and this data set has none; use protocol=honest")
    if experiment.protocol == "honest" and len(data.validation) == 0:
        raise DataError(
            f"no class has enough of the {len(data.train):,} training images to set some aside for validation; "
            "add images, or a validation and a test folder"
        )


def _check_image_sizes(data: DataSet, experiment: Experiment) -> None:
    """Raise UsageError where a size that is trained at is too small for the model."""
    for _, size in experiment.image_sizes:
        try:
            with torch.device("meta"):
                experiment.model.build(data.spec.model_copy(update={"image_size": size}))
        except UsageError as error:
            raise UsageError(f"image_sizes has {size} px: {error}") from None


def check_same_data(fingerprint: str, ranks: Ranks) -> None:
    """Raise DataError where the ranks do not see the same data."""
    others = [rank for rank, found in enumerate(ranks.gathered(fingerprint)) if found != fingerprint]
    if others:
        raise DataError(f"rank {ranks.rank} sees other data than rank {others[0]}; every host needs the same files")


def hold(data: DataSet, device: torch.device, options: Options, screen: Screen) -> DataSet:
    """Keep what fits in memory, on the device; test images are not touched here."""
    train = _from_cache(data.train, options, screen)
    refused = isinstance(train, FileImages) and train.packed is None  # once is enough to say so
    validation = _from_cache(data.validation, replace(options, cache=options.cache and not refused), screen)
    screen.say(_sources([train, validation], options.stream))
    if not options.stream:
        train, validation = (in_memory(images, options.workers) for images in (train, validation))
    return replace(
        data,
        train=train.to(device) if isinstance(train, MemoryImages) else train,
        validation=validation.to(device) if isinstance(validation, MemoryImages) else validation,
    )


def _from_cache(images: Images, options: Options, screen: Screen) -> Images:
    """Return a set with its pixels from the cache: filled where that is asked for, used unasked where it is whole."""
    if not isinstance(images, FileImages) or (options.stream and not options.cache):
        return images
    return cache.fill(images, options.workers, screen.say) if options.cache else cache.find(images, screen.say)


def _sources(sets: Iterable[Images], stream: bool) -> list[str]:
    """Say where the pixels of files come from."""
    files = [images for images in sets if isinstance(images, FileImages) and len(images)]
    packed = [images for images in files if images.packed is not None]
    held = [images for images in files if images.packed is None and held_bytes(images) and not stream]
    large = [images for images in files if images.packed is None and not held_bytes(images) and not stream]
    lines = []
    if packed:
        lines.append(f"cache    {_amount(packed)} in {cache.home()} (mixlab data cache shows and clears it)")
    if held:
        lines.append(f"reading  {_amount(held)} into memory (--stream decodes them each epoch)")
    if large:
        lines.append(f"reading  {_amount(large)} anew each epoch, too many for memory (--cache keeps them on disk)")
    return lines


def _amount(sets: list[FileImages]) -> str:
    size = cache.size_text(sum(len(images) * images.image_bytes for images in sets))
    return f"{sum(map(len, sets)):,} pictures, {size},"


def report_unreadable(session: Session) -> None:
    """Name the files that turned out to be unreadable since the last report.

    Raises:
        DataError: where there is one and the training is strict.
    """
    own = {**session.data.train.unreadable, **session.data.validation.unreadable}
    met = dict(sorted(pair for each in session.ranks.gathered(own) for pair in each.items()))
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
    """Say what of the machine is not as it was when the run began; exactness is promised only for the same."""
    run, screen = session.run, session.screen
    first = run.read_environment()
    choice.adopt(first.get("gpu_kernels", {}))
    now = environment(session.where)
    for key in first.keys() & now.keys() - {"gpu_kernels"}:  # which holds what other runs of this process chose, too
        if first[key] != now[key]:
            screen.say(f"note     {key} was {first[key]} and is {now[key]}: the result may differ in the last digits")
    run.write_environment(session.where)
