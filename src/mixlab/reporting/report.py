"""One HTML file with everything inside: it opens offline, light and dark, and prints."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from mixlab import durable
from mixlab.errors import RunError
from mixlab.evaluation import leaderboard as leaderboards
from mixlab.evaluation.leaderboard import SPLIT, Leaderboard, counted
from mixlab.models.catalogue import published_name
from mixlab.reporting import protocol, section_images, sections
from mixlab.reporting.material import Material
from mixlab.reporting.sections import Section
from mixlab.run.folder import Run

SECTIONS = (
    sections.standings,
    sections.differences,
    sections.curves,
    sections.costs,
    sections.per_class,
    sections.confusion,
    section_images.disagreements,
    section_images.mistakes,
    sections.calibration,
    section_images.heat_maps,
    section_images.weights,
    section_images.data,
    protocol.protocol,
    protocol.commands,
    protocol.threats,
)

LONGEST_TITLE = 60  # letters of all names; more are only counted


def write_report(folder: Path, found: Leaderboard, path: Path | None = None) -> Path:
    """Write the report of a comparison, by default into its folder; the runs lie beside the folder.

    Raises:
        RunError: where not one run of the leaderboard is there.
    """
    runs = {row.name: [Run(folder.parent / each.run) for each in row.runs] for row in found.rows if row.runs}
    gone = [run.folder for of_row in runs.values() for run in of_row if not run.is_finished]
    if not runs:
        raise RunError(f"no run of {folder} is finished; the command in its command.txt goes on with it")
    if gone:
        raise RunError(f"{gone[0]} is no finished run; a comparison's runs must lie beside its folder")
    return _write(Material(folder, found, runs), path or folder / "report.html")


def write_run_report(run: Run, path: Path | None = None) -> Path:
    """Write the report of one run, by default into its folder.

    Raises:
        RunError: where the run is not finished, or its test images were never measured.
    """
    experiment = run.experiment
    if not run.is_finished or not run.is_measured(SPLIT):
        todo = f"evaluate {run.folder}" if run.is_finished else f"train --resume {run.folder}"
        raise RunError(f"a report shows test results in float32, and {run.folder} has none yet; first: mixlab {todo}")
    name = published_name(experiment.model)
    found = Leaderboard(
        data=experiment.data.label,
        protocol=experiment.protocol,
        budget=counted(experiment.epochs, "epoch"),
        seeds=(experiment.seed,),
        rows=(leaderboards.row_of(name, experiment, run.summary["parameters"], run.summary["macs"], [run], []),),
    )
    return _write(Material(run.folder, found, {name: [run]}), path or run.folder / "report.html")


def _write(material: Material, path: Path) -> Path:
    found = material.leaderboard
    names = " · ".join(row.name for row in material.rows)
    shown = names if len(names) <= LONGEST_TITLE else counted(len(material.rows), "model")
    durable.write_bytes(path, _page(f"{shown} on {found.data}", material).encode())
    return path


def _page(title: str, material: Material) -> str:
    shown: Sequence[Section] = [section for make in SECTIONS if (section := make(material))]
    template = (importlib.resources.files("mixlab.reporting") / "report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    found = material.leaderboard
    facts = [
        counted(len(found.rows), "model"),
        f"{counted(len(found.seeds), 'seed')}: {', '.join(map(str, found.seeds))}",
        found.budget,
        f"protocol: {found.protocol}",
    ]
    return environment.from_string(template).render(
        title=title,
        headline=found.headline(),
        facts=facts,
        sections=shown,
        style=Markup(_style()),  # noqa: S704
    )


def _style() -> str:
    return (importlib.resources.files("mixlab.reporting") / "report.css").read_text(encoding="utf-8")
