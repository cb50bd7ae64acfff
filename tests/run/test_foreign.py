"""ConvMixers of timm and of the paper's authors become bundles that answer with the same logits."""

import errno
import json
import os
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mixlab.errors import DataError, RunError, UsageError
from mixlab.evaluation.classifier import read_classifier
from mixlab.run import foreign
from mixlab.run.bundle import read_bundle
from mixlab.run.importing import import_weights, other_activation, read_classes
from tests.run.foreign_networks import of_the_paper, of_timm

SIZES = {"dim": 12, "depth": 3, "patch_size": 3, "classes": 4}


def as_trained_on_imagenet(pixels: np.ndarray) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(2, 0, 1)[None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel_size", [5, 4])
@pytest.mark.parametrize("form", ["paper.pth", "timm.pt", "timm.safetensors", "timm.pth.tar", "timm_relu.safetensors"])
def test_an_imported_network_gives_the_same_logits(tmp_path: Path, form: str, kernel_size: int):
    make, more = (of_the_paper, ()) if form == "paper.pth" else (of_timm, (nn.ReLU,) if "relu" in form else ())
    theirs = make(SIZES["dim"], SIZES["depth"], kernel_size, SIZES["patch_size"], SIZES["classes"], *more)
    state = theirs.state_dict()
    if form.endswith(".safetensors"):
        safetensors.torch.save_file(state, tmp_path / form)
    elif form.endswith(".tar"):
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "args": Namespace(lr=0.1), "state_dict": wrapped}, tmp_path / form)
    else:
        torch.save(state, tmp_path / form)
    activation = "relu" if more else "gelu"
    import_weights(tmp_path / form, tmp_path / "out", activation=activation, image_size=20)
    ours = read_classifier(tmp_path / "out", "cpu")
    model = ours.description.model
    found = model.model_dump(include={"dim", "depth", "patch_size", "kernel_size"})
    assert found == {key: SIZES[key] for key in ("dim", "depth", "patch_size")} | {"kernel_size": kernel_size}
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    with torch.no_grad():
        expected = theirs(as_trained_on_imagenet(pixels)).numpy()
    np.testing.assert_allclose(ours.network.logits([pixels]), expected, atol=1e-5, rtol=0)
    assert form in (tmp_path / "out" / "README.md").read_text().replace("\\", "")


def test_old_checkpoints_without_counters_are_taken(tmp_path: Path):
    state = of_the_paper(8, 1, 3, 2, 3).half().state_dict()
    torch.save({name: each for name, each in state.items() if "num_batches" not in name}, tmp_path / "old.pth")
    bundle = import_weights(tmp_path / "old.pth", tmp_path / "out", ("a", "b", "c"), image_size=8)
    assert read_bundle(tmp_path / "out").description.spec.classes == ("a", "b", "c")
    assert bundle.state["classifier.weight"].dtype == torch.float32


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


def unreadable_or(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def denied(path: Path) -> Any:
        if path.name == "closed.safetensors":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    return denied


def test_files_that_are_no_weights_are_refused_by_name_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({"a": Payload(tmp_path / "canary")}, tmp_path / "code.pt")
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "claims.pt")
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "plain.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "number.pt")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.safetensors").write_text("")
    (tmp_path / "weights.onnx").write_text("")
    (tmp_path / "closed.safetensors").write_text("")
    monkeypatch.setattr(safetensors.torch, "load_file", unreadable_or(safetensors.torch.load_file))
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as bomb:
        for part in plain.infolist():
            bomb.writestr(part.filename, plain.read(part))
    reasons = {
        "code.pt": "other things than tensors and plain containers, such as posix.system",
        "claims.pt": "claim more numbers than it holds",
        "plain.pt": "holds no ConvMixer",
        "module.pt": "such as torch.nn.modules.linear.Linear",
        "number.pt": "holds other things than tensors: a",
        "text.pth": "other things than tensors",
        "empty.safetensors": "not a readable safetensors file",
        "closed.safetensors": "cannot be read: Permission denied",
        "weights.onnx": "other formats can carry code and are not read",
        "bomb.pt": "is compressed",
        "none.pt": "does not exist",
    }
    for name, reason in reasons.items():
        with pytest.raises(RunError, match=reason) as refusal:
            import_weights(tmp_path / name, tmp_path / "out")
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_said(tmp_path: Path):
    file = tmp_path / "timm.pt"
    torch.save(of_timm(8, 2, 3, 2, 3).state_dict(), file)
    with pytest.raises(UsageError, match=r"2 names of classes were given, and .* has 3 classes"):
        import_weights(file, tmp_path / "out", ("a", "b"))
    with pytest.raises(UsageError, match="two classes have the same name: 'crane'"):
        import_weights(file, tmp_path / "out", ("crane", "a", "crane"))
    with pytest.raises(UsageError, match="3 channels need one mean"):
        import_weights(file, tmp_path / "out", mean=(0.5,))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("")
    with pytest.raises(RunError, match="mine exists; choose another --out"):
        import_weights(file, tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.png").exists()
    state = of_timm(8, 2, 3, 2, 3).state_dict()
    torch.save({**state, "head.weight": torch.zeros(3, 9)}, file)
    shapes = r"classifier.weight is float32 \(3, 9\); expected float32 \(3, 8\)"
    with pytest.raises(RunError, match=rf"timm.pt cannot be taken: {shapes}"):
        import_weights(file, tmp_path / "out")
    torch.save({name: each for name, each in state.items() if name != "stem.0.bias"}, file)
    with pytest.raises(RunError, match=r"timm.pt cannot be taken: stem.0.bias is missing"):
        import_weights(file, tmp_path / "out")
    torch.save({name: each for name, each in state.items() if not name.startswith("head")}, file)
    with pytest.raises(RunError, match="holds no classifier; its weights can be trained on"):
        import_weights(file, tmp_path / "out")


def test_a_published_size_of_another_activation_is_named():
    sizes = {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7}
    config = foreign.ConvMixerConfig.parse(sizes)
    assert other_activation(config) == "convmixer_768_32"
    assert other_activation(foreign.ConvMixerConfig.parse({**sizes, "activation": "relu"})) == ""


def test_classes_are_read_from_lines_and_from_json(tmp_path: Path):
    lines, table = tmp_path / "classes.txt", tmp_path / "classes.json"
    lines.write_text("great tit\nkestrel\n")
    for content in (["great tit", "kestrel"], {"1": ["n2", "kestrel"], "0": ["n1", "great tit"]}):
        table.write_text(json.dumps(content))
        assert read_classes(table) == read_classes(lines) == ("great tit", "kestrel")
    for content in ("{}", "[]", '[""]', "[1]", '{"a": "b"}', "{", '"x"', "[[]]"):
        table.write_text(content)
        with pytest.raises(DataError, match=r"classes\.json"):
            read_classes(table)
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        read_classes(tmp_path / "none.txt")
