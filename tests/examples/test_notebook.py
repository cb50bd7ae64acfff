"""The tutorial does what it says, in a folder that holds nothing, without Jupyter."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest

PATH = Path(__file__).parents[2] / "examples" / "patches_or_attention.ipynb"
MODELS = {"ConvMixer", "ViT", "ViT, convolutions", "ResNet-9"}


def notebook() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


def run_cells() -> tuple[SimpleNamespace, list[str]]:
    """Execute the code cells in one namespace; return it, and which cells drew a figure."""
    names: dict[str, Any] = {}
    drawn = []
    for cell in notebook()["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
            if plt.get_fignums():
                plt.gcf().canvas.draw()
                drawn.append(cell["id"])
                plt.close("all")
    return SimpleNamespace(**names), drawn


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_runs_anywhere_and_its_claims_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    here, written = tmp_path / "here", tmp_path / "written"
    here.mkdir()
    written.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(written))
    plt.switch_backend("agg")
    with plt.rc_context():
        found, drawn = run_cells()
    assert drawn == ["cut", "batch", "curves", "heat", "depthwise"]
    assert found.gap < 1e-5
    assert set(found.models) == {row.name for row in found.board.finished} == MODELS
    assert all([run.seed for run in row.runs] == [0, 1] for row in found.board.rows)
    assert found.board.rows[0].name == "ConvMixer"
    assert found.maps.shape == (10, 4, 4)
    assert len(found.kernels) == 4
    assert found.board.headline() in capsys.readouterr().out
    assert found.report.is_file()
    assert list(here.iterdir()) == []


def test_the_tutorial_is_kept_with_its_pictures_and_without_paths_or_errors():
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    text = json.dumps(outputs)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert not [path for path in ("/home", "/tmp", "/root", "/work", "/Users", "mixlab-") if path in text]
    assert PATH.stat().st_size < 600_000
