"""The sections of a report that are images: what was got wrong, what the data looks like, what the models look at."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from mixlab.data.data_set import DataSet
from mixlab.data.images import Images
from mixlab.evaluation import explanation, inference
from mixlab.evaluation.leaderboard import Row, counted
from mixlab.evaluation.predictions import Prediction
from mixlab.experiment import Experiment
from mixlab.reporting import charts, tiles
from mixlab.reporting.material import Material
from mixlab.reporting.sections import Section

ARGUED = 10  # images shown of each side of a disagreement
GALLERY = 24
BATCH = 32  # images of a batch that are shown
LOOKED_AT = 6  # images with heat maps
MODELS = 6  # shown at most


def disagreements(material: Material) -> Section | None:
    """Images that the best model gets right and another wrong, and the other way round."""
    if len(material.rows) < 2 or material.data(material.rows[0].name) is None:
        return None
    best, parts = material.rows[0], []
    for other in material.rows[1:4]:
        for first, second in ((best, other), (other, best)):
            names = _won(material, first.name, second.name)
            if not names:
                continue
            shown = _gallery(
                material,
                first.name,
                names[:ARGUED],
                lambda name, second=second: material.predictions[second.name][0][name],
            )
            count = _count(material, first.name, second.name)
            text = f"{first.name} right, {second.name} wrong: {counted(count, 'image')}"
            if len(material.leaderboard.seeds) > 1:
                text += f" over all seeds, {len(names):,} of them with the first"
            parts.append(Markup("<h3>{}</h3>{}").format(text, shown))
    about = (
        f"The clearest disagreements of the first seed, at most {ARGUED} of each kind; the caption is what the model"
        " that is wrong said."
    )
    return (
        Section("disagreements", "Right for one, wrong for the other", about, Markup("").join(parts)) if parts else None
    )


def mistakes(material: Material) -> Section | None:
    """The surest mistakes of the best model."""
    best = material.rows[0].name
    found = material.predictions[best][0]
    wrong = sorted((name for name in found if not found[name].right), key=lambda name: -found[name].confidence)
    if not wrong or material.data(best) is None:
        return None
    body = _gallery(material, best, wrong[:GALLERY], lambda name: found[name])
    about = (
        f"The surest of {len(wrong):,} mistakes of {best}, seed {material.rows[0].runs[0].seed}. Some are the label's."
    )
    return Section("mistakes", "Surest mistakes", about, body)


def data(material: Material) -> Section | None:
    """Class counts, a batch as the network sees it, an image cut into its patches."""
    best = material.rows[0].name
    found, experiment = material.data(best), material.first_run(best).experiment
    if found is None:
        return Section(
            "data", "The data", "The data is no longer where it was, or has changed: no pictures.", Markup("")
        )
    counts = {
        name: np.bincount(images.labels[_readable(material, images)], minlength=found.spec.num_classes)
        for name, images in found.splits.items()
    }
    parts = [Markup("<h3>Images of each class</h3>"), charts.class_counts(found.spec.classes, counts)]
    parts += [Markup("<h3>A batch as {} sees it</h3>").format(best), _batch(material, found, experiment)]
    parts += _cut(material, found)
    sizes = ", ".join(f"{count.sum():,} {name}" for name, count in counts.items())
    about = f"{material.leaderboard.data}: {sizes} images."
    return Section("data", "The data", about, Markup("").join(parts))


def weights(material: Material) -> Section | None:
    """Patch-embedding filters, and depthwise kernels by depth."""
    parts = []
    for row in material.rows[:MODELS]:
        model = material.model(row.name)
        filters = explanation.patch_filters(model)
        if filters is not None:
            sheet = tiles.filters(filters)
            shown = tiles.picture(sheet, f"first filters of {row.name}", width=min(sheet.shape[1], 560))
            parts.append(Markup("<h3>{}: what reads the pixels</h3>{}").format(row.name, shown))
        kernels = explanation.depthwise_kernels(model)
        if kernels:
            lines = [
                Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, _strip(each, name))
                for name, each in kernels.items()
            ]
            parts.append(
                Markup('<h3>{}: depthwise kernels by depth</h3><table class="plain">{}</table>').format(
                    row.name, Markup("").join(lines)
                )
            )
    about = (
        "Weights of the first seed. Filters of three channels are shown in colour around grey, others and kernels blue "
        "below and red above zero; each is scaled by its own largest weight."
    )
    return Section("weights", "What they have learned to see", about, Markup("").join(parts)) if parts else None


def heat_maps(material: Material) -> Section | None:
    """Where each model looks, on the same images."""
    best = material.rows[0].name
    predictions = material.predictions[best][0]
    names = _one_of_each_class(predictions, LOOKED_AT)
    names.sort(key=lambda name: material.classes.index(predictions[name].label))
    seen = material.inputs(best, names)
    if seen is None:
        return None
    images = [
        tiles.picture(pixels, name, width=96) for pixels, name in zip(inference.as_pixels(seen), names, strict=True)
    ]
    columns = {"image": images}
    for row in material.rows[:MODELS]:
        columns |= _heat_column(material, row, names)
    lines = [
        Markup("<tr><th>{}</th>{}</tr>").format(
            predictions[name].label, Markup("").join(Markup("<td>{}</td>").format(cell) for cell in line)
        )
        for name, line in zip(names, zip(*columns.values(), strict=True), strict=True)
    ]
    head = Markup("").join(Markup("<th>{}</th>").format(each) for each in ["true class", *columns])
    body = Markup(
        '<div class="wide"><table class="plain"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, Markup("").join(lines))
    about = (
        "Brighter: counted more for the predicted class. Test images, each of another class, first seed. A heat map "
        "shows where evidence lies, not why; a network that ends in a single place has none."
    )
    return Section("looks", "What they look at", about, body)


def _heat_column(material: Material, row: Row, names: Sequence[str]) -> dict[str, list[Markup]]:
    """Return a column by its header, or none without the data."""
    found = material.inputs(row.name, names)
    if found is None:
        return {}
    predictions = material.predictions[row.name][0]
    classes = np.array([material.classes.index(predictions[name].predicted) for name in names])
    maps = explanation.heat_maps(material.model(row.name), found, classes)
    several = maps[0].size > 1  # a last feature map of one place says nothing of places
    kind = explanation.heat_map_kind(material.model(row.name)) if several else "one place: no map"
    shown = []
    for pixels, heat, name in zip(inference.as_pixels(found), maps, names, strict=True):
        picture = tiles.picture(tiles.heat(pixels, heat) if several else pixels, f"{row.name} on {name}", width=96)
        shown.append(Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(picture, _said(predictions[name])))
    return {f"{row.name} ({kind})": shown}


def _won(material: Material, first: str, second: str) -> list[str]:
    """Return the images that the first gets right more often than the second, the clearest first."""
    ours, theirs = material.predictions[first], material.predictions[second]
    names = set(ours[0]).intersection(*ours, *theirs)
    margin = {
        name: sum(each[name].right for each in ours) / len(ours)
        - sum(each[name].right for each in theirs) / len(theirs)
        for name in names
    }
    won = [name for name, value in margin.items() if value > 0 and ours[0][name].right and not theirs[0][name].right]
    return sorted(won, key=lambda name: (-margin[name], -theirs[0][name].confidence, name))


def _count(material: Material, first: str, second: str) -> int:
    """Return how many images the first gets right more often than the second, over all seeds."""
    for pair in material.leaderboard.pairs:
        if {pair.first, pair.second} == {first, second}:
            return pair.difference.only_first if pair.first == first else pair.difference.only_second
    return 0


def _gallery(material: Material, row: str, names: Sequence[str], said: Callable[[str], Prediction]) -> Markup:
    found = material.inputs(row, names)
    if found is None:
        return Markup("")
    shown = []
    for pixels, name in zip(inference.as_pixels(found), names, strict=True):
        prediction = said(name)
        caption = Markup("{}<br>is {}").format(_said(prediction), prediction.label)
        shown.append(
            Markup('<figure title="{}">{}<figcaption>{}</figcaption></figure>').format(
                name, tiles.picture(pixels, name, width=84), caption
            )
        )
    return Markup('<div class="gallery">{}</div>').format(Markup("").join(shown))


def _said(prediction: Prediction) -> Markup:
    mark = "✓" if prediction.right else "✗"
    return Markup('<span class="{}">{}</span> {}, {:.0f} %').format(
        "good" if prediction.right else "bad", mark, prediction.predicted, 100 * prediction.confidence
    )


def _batch(material: Material, found: DataSet, experiment: Experiment) -> Markup:
    """Draw images spread over the training set as step 0 would augment them, with their targets."""
    readable = _readable(material, found.train)
    spread = np.linspace(0, len(readable) - 1, min(BATCH, len(readable))).astype(np.int64)
    batch = found.train.batch(readable[spread])
    images, targets = inference.as_training_input(experiment, found.spec, batch, step=0, epoch=0)
    shown = [
        Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
            tiles.picture(pixels, "training image", width=72), _target(target, found.spec.classes)
        )
        for pixels, target in zip(inference.as_pixels(images), targets.numpy(), strict=True)
    ]
    return Markup('<div class="gallery">{}</div>').format(Markup("").join(shown))


def _target(target: np.ndarray, classes: Sequence[str]) -> str:
    """Return the classes of a target, with their shares where it was mixed."""
    order = [int(index) for index in np.argsort(-target)[:2] if target[index] > 0.005]
    if len(order) == 1:
        return classes[order[0]]
    return ", ".join(f"{100 * target[index]:.0f} % {classes[index]}" for index in order)


def _cut(material: Material, found: DataSet) -> list[Markup]:
    """Draw one validation (or training) image cut into the patches of each model that has patches."""
    split = found.validation if len(_readable(material, found.validation)) else found.train
    first = split.batch(_readable(material, split)[:1]).images
    pixels = inference.as_pixels(inference.as_input(first, found.spec))[0]
    sizes: dict[tuple[int, int], list[str]] = {}
    for row in material.rows:
        config = material.first_run(row.name).experiment.model
        patch = getattr(config, "patch_size", 0)
        if patch and found.spec.image_size // patch <= 40:
            sizes.setdefault((patch, getattr(config, "patch_stride", 0) or patch), []).append(row.name)
    parts = [Markup("<h3>An image cut into patches</h3>")] if sizes else []
    figures = [
        Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
            tiles.picture(tiles.patches(pixels, patch, stride), f"patches of {patch} px", width=240),
            f"{patch} × {patch} px{'' if stride == patch else f', {stride} px apart'}: {', '.join(names)}",
        )
        for (patch, stride), names in sorted(sizes.items())
    ]
    return [*parts, Markup('<div class="flow">{}</div>').format(Markup("").join(figures))] if figures else []


def _readable(material: Material, images: Images) -> np.ndarray:
    """Return the places of the images that every run could read."""
    return np.flatnonzero([name not in material.unreadable for name in images.names])


def _strip(kernels: np.ndarray, name: str) -> Markup:
    sheet = tiles.kernels(kernels)
    return tiles.picture(sheet, f"kernels of {name}", width=min(sheet.shape[1], 720))


def _one_of_each_class(predictions: Mapping[str, Prediction], most: int) -> list[str]:
    chosen: dict[str, str] = {}
    for name, prediction in predictions.items():
        chosen.setdefault(prediction.label, name)
    return list(chosen.values())[:most]
