"""The sections of a report that are numbers: leaderboard, differences, curves, costs, classes, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from mixlab.evaluation.leaderboard import SPLIT, Pair, Row, counted
from mixlab.reporting import charts
from mixlab.reporting.material import Material

CONFUSION_CLASSES = 20  # up to which the whole matrix is shown
STANDINGS = (
    "parameters",
    "MACs",
    "validation top-1",
    "test top-1",
    "95 %, first seed",
    "test top-5",
    "calibration error",
    "images / s",
    "training",
)
TOP5_CLASSES = 10  # above which top-5 accuracy says something
SMALL = (4.9, 3.1)  # inches, of a chart beside another
CONFUSIONS = 12  # most frequent ones, where it is not


@dataclass(frozen=True)
class Section:
    key: str  # of the link to it
    title: str
    about: str  # one or two sentences above it
    body: Markup


def standings(material: Material) -> Section:
    rows = material.leaderboard.rows
    columns = [column for column in STANDINGS if column != "test top-5" or len(material.classes) > TOP5_CLASSES]
    cells = [_standing(place, row, material, columns) for place, row in enumerate(rows, 1)]
    failed = [f"{row.name}, seed {failure.seed}: {failure.reason}" for row in rows for failure in row.failures]
    notes = Markup('<p class="bad">Failed: {}</p>').format("; ".join(failed)) if failed else Markup("")
    about = (
        f"Mean ± standard deviation over {counted(len(material.leaderboard.seeds), 'seed')}. Ranked by "
        f"{'validation' if rows[0].mean('validation_top1') is not None else 'test'} accuracy. The interval is Wilson's "
        "for the test images of the first seed's run; MACs are multiply-accumulates of one image."
    )
    ranked = table(("#", "model", *columns), cells, numbers=(0, *range(2, 12)), kind="ranked")
    return Section("standings", "Leaderboard", about, ranked + notes)


def differences(material: Material) -> Section | None:
    pairs = material.leaderboard.pairs
    if not pairs:
        return None
    header = ("pair", "difference", "95 % interval", "by seed", "only the first right", "only the second", "verdict")
    cells = []
    for pair in pairs:
        found = pair.difference
        verdict = "within noise" if found.verdict == "within noise" else f"{pair.first} {found.verdict}"
        verdict += "" if found.speaks_of_training or found.verdict == "within noise" else ", as trained here"
        by_seed = ", ".join(f"{100 * each:+.1f}" for each in pair.by_seed)
        interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        images = (f"{found.only_first:,}", f"{found.only_second:,}")
        cells.append(
            (f"{pair.first} − {pair.second}", f"{100 * found.value:+.2f} points", interval, by_seed, *images, verdict)
        )
    caution = material.leaderboard.caution()
    covers = "other images" if caution else "other seeds and other images"
    about = f"Paired on {_paired(pairs)}. The intervals cover {covers}.{caution}"
    shown = charts.differences(pairs[:30])
    return Section("differences", "Which differences hold", about, shown + table(header, cells, numbers=range(1, 6)))


def _paired(pairs: Sequence[Pair]) -> str:
    images = sorted({pair.difference.images for pair in pairs})
    several = f"{images[0]:,} to " if len(images) > 1 else ""
    seeds = " and the same seeds" if any(pair.difference.seeds > 1 for pair in pairs) else ""
    return f"the same {several}{images[-1]:,} test images{seeds}"


def curves(material: Material) -> Section:
    watched = "validation" if material.leaderboard.protocol == "honest" else "test"
    accuracy = {row.name: _curves(material, row, f"{watched}_top1") for row in material.rows}
    losses = {row.name: _curves(material, row, f"{watched}_loss") for row in material.rows}
    training = {row.name: _curves(material, row, "train_loss") for row in material.rows}
    body = charts.curves(accuracy, f"{watched} top-1 accuracy, %")
    body += Markup('<div class="pair">{}{}</div>').format(
        charts.curves(losses, f"{watched} loss, nats", percent=False, size=SMALL),
        charts.curves(training, "training loss, nats", percent=False, size=SMALL),
    )
    band = " A band reaches from the lowest to the highest seed." if len(material.leaderboard.seeds) > 1 else ""
    about = f"Mean over seeds after each epoch.{band} Training loss is that of augmented images and smoothed labels."
    return Section("curves", "How they learned", about, body)


def costs(material: Material) -> Section:
    about = "What an accuracy costs. Training time includes validation, on the machine named under protocol."
    return Section("costs", "Accuracy against cost", about, charts.costs(material.leaderboard))


def per_class(material: Material) -> Section:
    by_model = {row.name: _recalls(material, row) for row in material.rows}
    body = charts.recalls(material.classes, by_model)
    about = "Share of each class's test images that was recognised, the hardest class first."
    return Section("classes", "Class by class", about, body)


def confusion(material: Material) -> Section:
    parts = []
    for row in material.rows[:6]:
        counts = material.confusion(row.name)
        shown = _matrix if len(counts) <= CONFUSION_CLASSES else _frequent
        parts.append(
            Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(row.name, shown(counts, material.classes))
        )
    about = "Rows: true class, columns: predicted class; images, summed over seeds."
    if len(material.classes) > CONFUSION_CLASSES:
        about = "The most frequent confusions, images summed over seeds."
    return Section(
        "confusion", "What they confuse", about, Markup('<div class="flow">{}</div>').format(Markup("").join(parts))
    )


def calibration(material: Material) -> Section:
    bins = {row.name: material.bins(row.name) for row in material.rows}
    fitted = material.leaderboard.protocol == "honest"
    scaled = "after the temperature that was fitted on validation images" if fitted else "without temperature scaling"
    about = (
        f"How often an answer is right, by how sure it was, {scaled}. On the dashed line confidence can be taken at "
        "its word. All seeds together."
    )
    return Section("calibration", "Is their confidence worth something?", about, charts.reliabilities(bins))


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = (), kind: str = "listed"
) -> Markup:
    """Return a table; columns in `numbers` are aligned to the right."""

    def cell(tag: str, place: int, value: object) -> Markup:
        return Markup("<{0}{1}>{2}</{0}>").format(tag, Markup(' class="n"') if place in numbers else "", escape(value))

    head = Markup("").join(cell("th", place, name) for place, name in enumerate(header))
    lines = [
        Markup("<tr>{}</tr>").format(Markup("").join(cell("td", *each) for each in enumerate(row))) for row in rows
    ]
    return Markup(
        '<div class="wide"><table class="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(kind, head, Markup("").join(lines))


def spread(row: Row, what: str, unit: str = "%") -> str:
    mean, deviation = row.mean(what), row.deviation(what)
    if mean is None:
        return "–"
    scale, digits = (100, 2) if unit == "%" else (1, 3)
    after = f" ± {scale * deviation:.{digits}f}" if deviation is not None else ""
    return f"{scale * mean:.{digits}f}{after}{' %' if unit == '%' else ''}"


def _standing(place: int, row: Row, material: Material, columns: Sequence[str]) -> tuple[object, ...]:
    values = {"parameters": f"{row.parameters:,}", "MACs": charts.compact(row.macs)}
    values |= _measured(row, material) if row.runs else {"training": "failed"}
    return (place, row.name, *(values.get(column, "–") for column in columns))


def _measured(row: Row, material: Material) -> dict[str, str]:
    top1 = material.first_run(row.name).measured(SPLIT)["top1"]
    seconds = row.mean("seconds") or 0.0
    return {
        "validation top-1": spread(row, "validation_top1"),
        "test top-1": spread(row, "top1"),
        "95 %, first seed": f"{100 * top1['low']:.2f} to {100 * top1['high']:.2f}",
        "test top-5": spread(row, "top5"),
        "calibration error": spread(row, "ece"),
        "images / s": f"{row.mean('images_per_second'):,.0f}",
        "training": f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min",
    }


def _curves(material: Material, row: Row, key: str) -> list[list[tuple[float, float]]]:
    found = [[(each["epoch"], each[key]) for each in run.metrics() if key in each] for run in material.runs[row.name]]
    return [curve for curve in found if curve]


def _recalls(material: Material, row: Row) -> dict[str, float]:
    counts = material.confusion(row.name)
    totals = counts.sum(1)
    return {name: counts[place, place] / totals[place] for place, name in enumerate(material.classes) if totals[place]}


def _matrix(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    """Return a matrix whose cells are the darker the larger their share of the true class."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    lines = []
    for row, name in enumerate(classes):
        cells = [
            Markup('<td class="n" style="--share: {:.0f}%"{}>{}</td>').format(
                100 * np.sqrt(shares[row, column]),
                Markup(' data-dark="1"') if shares[row, column] > 0.4 else "",
                f"{counts[row, column]:,}" if counts[row, column] else "",
            )
            for column in range(len(classes))
        ]
        lines.append(Markup("<tr><th>{}</th>{}</tr>").format(name, Markup("").join(cells)))
    head = Markup("").join(Markup("<th><span>{}</span></th>").format(name) for name in classes)
    return Markup('<table class="matrix"><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>').format(
        head, Markup("").join(lines)
    )


def _frequent(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    rows = [
        (classes[place // len(counts)], classes[place % len(counts)], f"{wrong.flat[place]:,}")
        for place in order
        if wrong.flat[place]
    ]
    return table(("true", "taken for", "images"), rows, numbers=(2,))
