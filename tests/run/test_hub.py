"""The Hugging Face Hub: asked for by name, only a bundle's files, refusals in one line; and the card it shows."""

import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from mixlab.errors import RunError, UsageError
from mixlab.models.catalogue import parse_model
from mixlab.run import hub
from mixlab.run.bundle import Accepted, Bundle, BundleDescription, read_bundle, write_bundle
from mixlab.run.card import model_card
from mixlab.run.trained import find_model, read_trained
from mixlab.spec import DataSpec


@pytest.fixture
def description(spec: DataSpec) -> BundleDescription:
    model = parse_model({"name": "convmixer", "dim": 8, "depth": 1})
    return BundleDescription(mixlab="0.1.0", model=model, spec=spec, data="birds: two\n---\nkinds")


@pytest.fixture
def fetched(tmp_path: Path, description: BundleDescription, monkeypatch) -> list[Any]:
    """A Hub with one bundle beside which somebody put a pickle; what was asked of it."""
    there, asked = tmp_path / "hub", []
    write_bundle(there, Bundle(description, description.model.build(description.spec).state_dict()), "card")
    (there / "pytorch_model.bin").write_text("code")

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        (tmp_path / "cache").mkdir(exist_ok=True)
        for path in there.iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_nothing_but_the_files_of_a_bundle_is_fetched(fetched: list[Any], tmp_path: Path, description):
    found = find_model("hf://someone/birds@v1.0")
    assert isinstance(found, Path)
    assert sorted(path.name for path in found.iterdir()) == ["README.md", "bundle.json", "model.safetensors"]
    assert read_bundle(found).description.model == description.model
    trained = read_trained("hf://someone/birds")
    assert (trained.model, trained.spec) == (description.model, description.spec)
    assert fetched == [("someone/birds", "v1.0"), ("someone/birds", None)]


def test_nothing_is_fetched_unless_asked(fetched: list[Any], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RunError, match=r"there is no run someone/birds.*; a model of the Hugging Face Hub is hf://some"
    ):
        find_model("someone/birds")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no experiment\.json, and no bundle: it has no bundle\.json"):
        find_model("empty")
    (tmp_path / "weights.pth").write_text("")
    with pytest.raises(RunError, match=r"make a bundle of it: mixlab import weights\.pth --out FOLDER"):
        find_model("weights.pth")
    with pytest.raises(RunError, match="give its folder"):
        find_model(tmp_path / "hub" / "model.safetensors")
    for address in ("hf://birds", "hf://", "hf://a/b/c", "hf://a/b@"):
        with pytest.raises(UsageError, match="expected hf://OWNER/NAME"):
            find_model(address)
    assert fetched == []


def test_a_repository_without_a_bundle_is_refused(fetched: list[Any], tmp_path: Path):
    (tmp_path / "hub" / "bundle.json").unlink()
    with pytest.raises(RunError, match=r"hf://a/b holds no bundle of mixlab: it has no bundle\.json"):
        hub.fetch("hf://a/b")


def response(code: int) -> Any:
    return SimpleNamespace(status_code=code, headers={}, request=None)  # of one HTTP library or another, by version


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.RepositoryNotFoundError("404\nmore", response=response(404)), "there is no such model, or it is priv"),
        (errors.GatedRepoError("403", response=response(403)), "its owner asks for consent; give it at https://hugg"),
        (errors.RevisionNotFoundError("404", response=response(404)), "there is no such revision"),
        (errors.LocalEntryNotFoundError("offline"), "the Hub cannot be reached, and the files are not in its cache"),
        (errors.OfflineModeIsEnabled("offline"), "the Hub cannot be reached"),
        (errors.HFValidationError("Repo id\nmust"), "Repo id"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_errors_of_the_hub_are_one_line(monkeypatch, error: Exception, text: str):
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(RunError) as refusal:
        hub.fetch("hf://a/b")
    assert str(refusal.value).startswith(f"hf://a/b cannot be fetched: {text}")
    assert "\n" not in str(refusal.value)


def test_a_card_is_one_that_the_hub_reads(description: BundleDescription):
    measured = description.model_copy(
        update={
            "validation": {"top1": 0.93, "loss": 0.2, "images": 145.0},
            "accepted": tuple(Accepted(threshold=1 - n / 20, accepted=7 * n, right=6 * n) for n in range(1, 21)),
            "training": {"training images": "1,293"},
            "data_fingerprint": "ab" * 32,
        }
    )
    card = huggingface_hub.ModelCard(
        model_card(measured, 1234, "mixlab train --data birds"), ignore_metadata_errors=False
    )
    facts = card.data.to_dict()
    assert (facts["library_name"], facts["pipeline_tag"]) == ("mixlab", "image-classification")
    assert card.data.eval_results[0].metric_value == 0.93
    for text in ("1,234 parameters", "| 145 |", "ab" * 32, "1,293", "    mixlab train --data birds", "16 x 16 px"):
        assert text in card.text
    for text in ("a, b, c.", "mixlab.load(", "hf://OWNER/NAME", "| 0.8000 | 28 | 24 | 85.7% |"):
        assert text in card.text


def test_a_card_claims_nothing_that_was_not_measured(description: BundleDescription):
    card = model_card(description, 1, "")
    assert "model-index" not in card
    assert "neither accuracy nor confidence was measured" in card
    imported = model_card(description.model_copy(update={"origin": "x.pth, SHA-256 12"}), 1, "mixlab import x.pth")
    assert "How they were trained is not known here" in imported
