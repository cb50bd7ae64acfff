import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mixlab.comparison.compare import Comparison, compare
from mixlab.comparison.compose import ComparisonFile, compose_request
from mixlab.data.data_set import DataSet
from mixlab.errors import RunError
from mixlab.evaluation.leaderboard import Failure, Leaderboard, Pair, Row
from mixlab.evaluation.metrics import reliability_of
from mixlab.evaluation.paired import Difference
from mixlab.experiment import parse_experiment
from mixlab.reporting import charts, sections, tiles
from mixlab.reporting.material import Material
from mixlab.reporting.report import SECTIONS, write_report, write_run_report
from mixlab.run.folder import Request, Run
from mixlab.training.session import Options
from mixlab.training.train import train

KEYS = "standings differences curves costs classes confusion calibration looks weights data protocol commands threats"
VOID = {"meta", "img", "br"}
FORMULA = "a$b_{$"  # between dollars, and no formula that matplotlib could read


class Structure(HTMLParser):
    """Checks that tags close in order, and collects what a reader would meet."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, list[dict[str, str | None]]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.setdefault(tag, []).append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.setdefault(tag, []).append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", workers=0, out=tmp_path / "runs", quiet=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one with a name that is markup, the other with one that matplotlib would take for a formula."""
    generator = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data") / "pictures"
    for name, color in ((FORMULA, (40, 40, 200)), ("<b>red & round", (200, 40, 40))):
        (root / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.array(color) + generator.integers(-40, 40, (16, 18, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def comparison(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    variants = {
        "conv $a$": {"model": {"name": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3}},
        "vit": {"model": {"name": "vit", "dim": 8, "depth": 1, "heads": 2, "patch_size": 4}},
    }
    values = {"data": {"name": str(pictures), "image_size": 16}, "epochs": 2, "batch_size": 8}
    file = ComparisonFile(seeds=2, experiment=values, variants=variants)
    options = Options(device="cpu", workers=0, out=tmp_path_factory.mktemp("runs"), quiet=True)
    return compare(compose_request(file, (), (), {}, ()), options)


@pytest.fixture(scope="module")
def text(comparison: Comparison) -> str:
    return comparison.report().read_text()


def test_a_page_has_every_section_and_nothing_from_elsewhere(text: str):
    page = Structure(text)
    ids = [section["id"] for section in page.seen["section"]]
    assert set(KEYS.split()) <= set(ids)
    assert [link["href"] for link in page.seen["a"]] == [f"#{key}" for key in ids]
    assert len(ids) <= len(SECTIONS)
    loaded = [
        value
        for tag in page.seen.values()
        for attributes in tag
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loaded if value)
    assert "script" not in page.seen
    assert "link" not in page.seen
    assert not re.search(r"url\((?!#)", text)
    every = [attributes["id"] for tag in page.seen.values() for attributes in tag if "id" in attributes]
    assert len(every) == len(set(every))


def test_names_of_classes_are_text_and_no_markup(text: str):
    assert "<b>red" not in text
    assert "&lt;b&gt;red &amp; round" in text


def difference(seeds: int) -> Difference:
    return Difference(value=0.1, low=0.05, high=0.15, seeds=seeds, images=100, only_first=10, only_second=0)


def bins():
    return reliability_of(np.array([0.6, 0.9]), np.array([False, True]))


def test_classes_without_test_pictures_are_no_part_of_the_chart_whose_hardest_come_first():
    drawn = charts.recalls(list("abcde"), {"model": {"a": 0.9, "c": 0.1, "e": 0.5}, "empty": {}})
    names = [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn) if text in "abcde"]
    assert names == ["c", "e", "a"]
    many = [f"class {number}" for number in range(60)]
    assert "class 59" in charts.recalls(many, {"model": dict.fromkeys(many[45:], 0.5)})


@pytest.mark.parametrize("name", [FORMULA, "a$b$_{", "c$", "_hidden", "<i>&"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda name: charts.curves({name: [[(1, 0.5), (2, 0.6)]], "other": [[(1, 0.5)]]}, "accuracy"),
        lambda name: charts.curves({name: [[(1, 0.5)]]}, "accuracy"),
        lambda name: charts.differences([Pair(first=name, second="other", difference=difference(3))]),
        lambda name: charts.reliabilities({name: bins()}),
        lambda name: charts.recalls(["class"], {name: {"class": 0.5}}),
        lambda name: charts.recalls([name], {"model": {name: 0.5}}),
        lambda name: charts.class_counts([name], {"train": np.array([3])}),
    ],
)
def test_every_chart_writes_names_as_they_are(name: str, draw: Callable[[str], str]):
    assert name in html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", draw(name))))


def test_the_chart_of_costs_writes_names_as_they_are(comparison: Comparison):
    rows = [row.model_copy(update={"name": FORMULA}) for row in comparison.leaderboard.rows]
    drawn = charts.costs(comparison.leaderboard.model_copy(update={"rows": rows}))
    assert FORMULA in html.unescape(drawn)


@given(st.floats(-3, 13), st.floats(0.398, 6))
def test_a_logarithmic_axis_has_two_to_four_numbers_inside(start: float, decades: float):
    low, high = 10**start, 10 ** (start + decades)
    found = charts.round_numbers(low, high)
    assert 2 <= len(found) <= 4
    assert all(low <= each <= high for each in found)


def test_charts_take_their_colours_from_the_page(text: str):
    assert "var(--ink)" in text
    assert "#0102" not in text, "a placeholder colour was left"
    assert "prefers-color-scheme: dark" in text
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", text)) - {"share"}
    assert used <= set(re.findall(r"--([a-z0-9-]+):", text))


def test_a_report_tells_the_numbers_of_the_leaderboard(comparison: Comparison, text: str):
    for row in comparison.leaderboard.rows:
        assert f"{row.parameters:,}" in text
        assert f"{100 * row.mean('top1'):.2f} ± {100 * row.deviation('top1'):.2f} %" in text
    assert "no claim about training variance" in text
    assert "once a run, after the training" in text


def test_a_row_without_a_run_still_tells_its_size(comparison: Comparison, tmp_path: Path):
    failed = Row(name="lost", model="vit", parameters=12345, macs=6_700_000, failures=(Failure(seed=0, reason="why"),))
    found = comparison.leaderboard.model_copy(update={"rows": (*comparison.leaderboard.rows, failed)})
    text = write_report(comparison.folder, found, tmp_path / "report.html").read_text()
    row = re.findall(r"<td[^>]*>([^<]*)</td>", text[text.index("lost") - 40 : text.index("Failed:")])
    assert [each for each in row if each != "–"] == ["3", "lost", "12,345", "6.7 M", "failed"]
    assert "lost, seed 0: why" in text


def with_unreadable(found: Leaderboard, name: str) -> Leaderboard:
    """Return the leaderboard with a file that only the last run could not read."""
    last = found.rows[-1]
    runs = (*last.runs[:-1], last.runs[-1].model_copy(update={"unreadable": {name: "cut off"}}))
    return found.model_copy(update={"rows": (*found.rows[:-1], last.model_copy(update={"runs": runs}))})


def test_files_that_some_run_could_not_read_count_nowhere(comparison: Comparison, tmp_path: Path):
    splits = comparison.runs("conv $a$")[0].read_splits()
    sizes = f"{len(splits['train'])} train, {len(splits['validation'])} validation, {len(splits['test'])} test images"
    assert comparison.report(tmp_path / "all.html").read_text().count(sizes) == 2
    found = with_unreadable(comparison.leaderboard, splits["train"][0])
    text = write_report(comparison.folder, found, tmp_path / "report.html").read_text()
    assert text.count(sizes) == 0
    assert text.count(sizes.replace(str(len(splits["train"])), str(len(splits["train"]) - 1), 1)) == 2
    assert "1, left out" in text
    assert html.escape(splits["train"][0]) in text


def test_a_report_says_where_rates_were_found(comparison: Comparison, text: str, monkeypatch: pytest.MonkeyPatch):
    assert "All models had one learning rate; none was tuned." in text
    asked = property(lambda run: Request(experiment=run.experiment, auto_learning_rate=True))
    monkeypatch.setattr(Run, "request", asked)
    found = comparison.report(comparison.folder / "tuned.html").read_text()
    assert "The learning rate of every model was tuned, by a range test before each run" in found
    assert "none was tuned" not in found


def test_data_that_rows_share_is_loaded_once(comparison: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    loaded = []
    fingerprint = DataSet.fingerprint
    monkeypatch.setattr(DataSet, "fingerprint", lambda data: loaded.append(data) or fingerprint(data))
    comparison.report(tmp_path / "report.html")
    assert len(loaded) == 1


@pytest.mark.parametrize(("seeds", "covered"), [((3, 3), True), ((3, 2), False), ((2, 3), False), ((1, 1), False)])
def test_intervals_cover_other_seeds_only_where_all_do(comparison: Comparison, seeds: tuple[int, int], covered: bool):
    pairs = [Pair(first="a", second=name, difference=difference(of)) for name, of in zip("bc", seeds, strict=True)]
    found = comparison.leaderboard.model_copy(update={"pairs": pairs})
    section = sections.differences(Material(comparison.folder, found, {}))
    assert section
    assert ("cover other seeds" in section.about) == covered
    assert ("makes no claim about training variance" in section.about) != covered


def test_without_its_data_a_report_has_no_pictures_of_it_and_says_so(comparison: Comparison, pictures: Path):
    gone = pictures.rename(pictures.with_name("gone"))
    text = comparison.report(comparison.folder / "without.html").read_text()
    gone.rename(pictures)
    assert "no longer where it was" in text
    assert 'id="mistakes"' not in text
    assert 'id="weights"' in text


def test_a_comparison_that_never_finished_a_run_says_so(tmp_path: Path):
    board = Leaderboard(data="d", protocol="honest", budget="", seeds=(0,), rows=())
    with pytest.raises(RunError, match="is finished; the command in its"):
        write_report(tmp_path, board)


def test_without_its_runs_there_is_no_report(comparison: Comparison):
    name = comparison.leaderboard.rows[0].runs[0].run
    gone = (comparison.folder.parent / name).rename(comparison.folder.parent / "gone")
    with pytest.raises(RunError, match=f"{name} is no finished run"):
        write_report(comparison.folder, comparison.leaderboard)
    gone.rename(comparison.folder.parent / name)


def test_one_run_has_a_report_once_it_was_measured(comparison: Comparison):
    run = Run(comparison.folder.parent / comparison.leaderboard.rows[0].runs[0].run)
    text = write_run_report(run).read_text()
    Structure(text)
    assert 'id="differences"' not in text
    assert 'id="standings"' in text
    measured = run.folder / "evaluation" / "test" / "metrics.json"
    aside = measured.rename(measured.with_name("aside"))
    with pytest.raises(RunError, match=f"first: mixlab evaluate {run.folder}"):
        write_run_report(run)
    aside.rename(measured)


def test_many_classes_are_told_by_their_most_frequent_confusions(tmp_path: Path, options: Options):
    generator = np.random.default_rng(0)
    for label in range(21):
        folder = tmp_path / "many" / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(6):
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    data = {"name": str(tmp_path / "many"), "image_size": 8}
    values = {"data": data, "epochs": 1, "batch_size": 16}
    variants = {"a": {"model": {"name": "convmixer", "dim": 4, "depth": 1}}}
    found = compare(compose_request(ComparisonFile(experiment=values, variants=variants), (), (), {}, ()), options)
    text = found.report().read_text()
    assert "taken for" in text
    assert 'class="matrix"' not in text
    assert "test top-5" in text


def test_patches_of_an_image_are_its_squares_in_their_places():
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    sheet = tiles.patches(pixels, patch_size=4, stride=4)
    scale = 288 // 8
    step = 4 * scale + tiles.GAP
    assert (sheet[: 4 * scale : scale, : 4 * scale : scale, :3] == pixels[:4, :4]).all()
    assert (sheet[step::scale, step::scale, :3] == pixels[4:, 4:]).all()
    assert (sheet[4 * scale : step, :, 3] == 0).all()


def test_an_unfinished_run_has_no_report(tiny: dict, options: Options):
    run = train(parse_experiment(tiny | {"epochs": 1}), options)
    (run.folder / "summary.json").unlink()
    with pytest.raises(RunError, match="train --resume"):
        write_run_report(run)
