"""The sections of a report that say how it came about: protocol, commands, threats to validity."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mixlab.config import flatten
from mixlab.evaluation.leaderboard import counted
from mixlab.evaluation.paired import FEWEST_SEEDS
from mixlab.experiment import Experiment
from mixlab.reporting.material import Material
from mixlab.reporting.sections import Section, table

FEW_IMAGES = 1000  # test images below which a report warns


def protocol(material: Material) -> Section:
    """How the runs were made, and what was not kept equal."""
    found, run = material.leaderboard, material.first_run(material.rows[0].name)
    experiment, environment, splits = run.experiment, run.read_environment(), run.read_splits()
    readings = [each.readings for row in material.rows for each in row.runs]
    sizes = ", ".join(
        f"{sum(image not in material.unreadable for image in splits[name]):,} {name}"
        for name in ("train", "validation", "test")
    )
    facts = {
        "data": f"{found.data}: {sizes} images; fingerprint {splits['fingerprint'][:12]}",
        "selection": _selection(experiment),
        "budget": found.budget,
        "seeds": ", ".join(map(str, found.seeds)) + ": each decides weights, order, augmentation and validation images",
        "kept equal for a seed": "split, order of the images, augmentation",
        "test images read": _times(readings),
        "batch size, precision": f"{experiment.batch_size}, {experiment.precision}",
        **({"files that cannot be read": _listed(material.unreadable)} if material.unreadable else {}),
        **({"classes": _classes(experiment)} if experiment.class_weights or experiment.balanced else {}),
        "augmentation": _augmentation(experiment),
        "optimiser, schedule": f"{experiment.optimizer.name}, {experiment.schedule.name}",
        "machine": ", ".join(f"{key} {value}" for key, value in environment.items()),
    }
    body = table(("", ""), list(facts.items()))
    if found.differing:
        names = [row.name for row in material.rows]
        rows = [(key, *[_value(values.get(name)) for name in names]) for key, values in found.differing.items()]
        body += Markup("<h3>Not the same for all</h3>") + table(("field", *names), rows)
    return Section("protocol", "Protocol", "", body)


def commands(material: Material) -> Section:
    """The commands that made it, and the folders of the runs."""
    path = material.folder / "command.txt"
    lines = list(dict.fromkeys(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
    body = Markup("<pre>{}</pre>").format("\n".join(lines))
    rows = [(row.name, each.seed, each.run) for row in material.rows for each in row.runs]
    body += table(("model", "seed", "folder beside this one"), rows, numbers=(1,))
    return Section(
        "commands", "Commands", "The same command goes on where it stopped, and returns what is finished.", body
    )


def threats(material: Material) -> Section:
    """What a careful reader would object."""
    items = Markup("").join(Markup("<li>{}</li>").format(text) for text in _threats(material))
    return Section("threats", "Threats to validity", "", Markup("<ul>{}</ul>").format(items))


def _threats(material: Material) -> Iterator[str]:
    found = material.leaderboard
    if found.protocol == "published":
        yield (
            "Test images were watched after every epoch (protocol = published). The last epoch is reported; the best "
            "epoch's accuracy would be optimistic: "
            + ", ".join(
                f"{row.name} {row.mean('best_watched'):.2%}" for row in material.rows if row.mean("best_watched")
            )
            + "."
        )
    if len(found.seeds) < FEWEST_SEEDS:
        yield f"{counted(len(found.seeds), 'seed')}: how much training varies is not known; give --seeds 3 or more."
    if len(found.pairs) > 1:
        yield f"{len(found.pairs)} pairs are compared, each at 95 %: of 20 such claims between equals one is false."
    if len(found.rows) > 1:
        yield _tuning(material)
    if len(found.rows) > 1 and "epochs" not in found.differing:
        yield "The same number of epochs is not the same computing: see accuracy against cost."
    if max(row.parameters for row in material.rows) > 2 * min(row.parameters for row in material.rows):
        yield "The models differ in size by more than a factor of two; --match-parameters makes them alike."
    images = sum(material.confusion(material.rows[0].name).sum(1)) // len(material.rows[0].runs)
    if images < FEW_IMAGES:
        yield f"{images:,} test images: one image is {100 / images:.2f} points."
    if any(each.readings > 1 for row in material.rows for each in row.runs) and found.protocol == "honest":
        yield "Test images were read more than once for some run: a result that was chosen by looking is optimistic."
    yield "One data set, one machine. Duplicates between training and test images would favour whoever memorises."


def _tuning(material: Material) -> str:
    """Say what models differ in beside architecture, and which of them had a rate that was found for them."""
    differing = material.leaderboard.differing
    unlike = "Models differ in more than architecture (fields under protocol). " if differing else ""
    tuned = [name for name, runs in material.runs.items() if any(run.request.auto_learning_rate for run in runs)]
    if tuned:
        whose = "every model" if len(tuned) == len(material.rows) else ", ".join(tuned)
        return f"{unlike}The learning rate of {whose} was tuned, by a range test before each run; nothing else was."
    if "optimizer.learning_rate" in differing:
        return f"{unlike}None was tuned on this data here."
    return "All models had one learning rate; none was tuned. One may deserve another (mixlab lr-find)."


def _listed(unreadable: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name} ({reason})" for name, reason in list(unreadable.items())[:5])
    return f"{len(unreadable):,}, left out: {shown}{'; ...' if len(unreadable) > 5 else ''}"


def _times(readings: Sequence[int]) -> str:
    if set(readings) == {1}:
        return "once a run, after the training"
    return (
        f"{min(readings)} to {max(readings)} times a run"
        if min(readings) < max(readings)
        else f"{readings[0]} times a run"
    )


def _selection(experiment: Experiment) -> str:
    if experiment.protocol == "published":
        return "the last epoch; test images watched after each"
    return "the best epoch by validation" if experiment.select == "best" else "the last epoch"


def _classes(experiment: Experiment) -> str:
    return "equally frequent in an epoch" if experiment.balanced else "the loss is weighted by inverse frequency"


def _augmentation(experiment: Experiment) -> str:
    usual: Mapping[str, Any] = flatten(type(experiment.augmentation)().model_dump(mode="json"))
    found = flatten(experiment.augmentation.model_dump(mode="json"))
    changed = [f"{key.replace('.', ' ')} {_value(value)}" for key, value in found.items() if value != usual[key]]
    return ", ".join(changed).replace("_", " ") or "none"


def _value(value: Any) -> str:
    if value is None:  # a field that only others have
        return "–"
    if isinstance(value, list | tuple):
        return " to ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
