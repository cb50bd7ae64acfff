"""The benchmark's arithmetic and its files; no claim about speed."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from mixlab.benchmarking import bench as benching
from mixlab.benchmarking import contenders, measure
from mixlab.benchmarking.contenders import Batch, Contender
from mixlab.benchmarking.measure import Ceilings
from mixlab.models.catalogue import create_model

CEILINGS = Ceilings({"float32": 1e9, "bfloat16": 2e9}, 1e9)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SHORTEST", 1e-4)
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(measure, "ceilings", lambda device: CEILINGS)
    monkeypatch.setattr(contenders, "_installed", lambda name: False)  # exporting takes seconds


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("convmixer", num_classes=3, image_size=8, dim=8, depth=2, kernel_size=3, patch_size=2)


@pytest.mark.slow
def test_exported_networks_give_the_same_too(model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(contenders, "_installed", lambda name: name != "openvino")
    test_every_way_to_run_a_network_gives_the_same(model)


@pytest.mark.slow
def test_every_way_to_run_a_network_gives_the_same(model: nn.Module):
    batch = Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    for make in (contenders.inference, contenders.training):
        found, failed = measure.measure(
            make(model, batch, False), 4, 1000, CPU, CEILINGS, 2, make is contenders.training
        )
        assert not failed
        assert {each.ours for each in found} == {True, False}
        assert found[0].difference == 0
        assert max(each.difference for each in found if each.precision == "float32") < 1e-4
        assert all(each.difference < 0.1 for each in found)


def test_shares_and_medians_are_computed_from_the_rounds(monkeypatch: pytest.MonkeyPatch):
    times = iter([0.5, 0.25, 1.0])  # seconds of the rounds
    monkeypatch.setattr(measure, "_repeats", lambda run, device: 1)
    monkeypatch.setattr(measure, "_seconds", lambda run, repeats, device: next(times))
    one = Contender("a", torch.bfloat16, lambda: lambda: torch.ones(3))
    (found,), _ = measure.measure([one], 10, 1000, CPU, CEILINGS, 3, False)
    assert (found.images_per_second, found.slowest, found.fastest) == (20, 10, 40)
    assert found.share == pytest.approx(2 * 1000 * 20 / 2e9)


def test_what_cannot_run_is_named_and_the_others_are_measured():
    def broken() -> contenders.Run:
        raise ValueError("no such operator\nand a long story")

    works = Contender("works", torch.float32, lambda: lambda: torch.ones(3))
    found, failed = measure.measure([works, Contender("broken", torch.float32, broken)], 1, 1, CPU, CEILINGS, 1, False)
    assert [each.name for each in found] == ["works"]
    assert [(each.name, each.reason) for each in failed] == [("broken", "ValueError: no such operator")]


def test_memory_counts_what_the_backward_pass_needs_once():
    x = torch.rand(10, 10, requires_grad=True)

    def step() -> torch.Tensor:
        y = x.exp()  # kept, 400 bytes, by itself and by the square
        y.square().sum().backward()
        return x.detach()

    assert measure._kept_for_backward(step) == 400


@pytest.mark.parametrize(
    "name", ["convmixer", *(pytest.param(each, marks=pytest.mark.slow) for each in ("vit", "resnet9"))]
)
def test_a_bench_writes_numbers_and_a_picture(name: str, tmp_path: Path):
    fields = {
        "convmixer": {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2},
        "vit": {"dim": 16, "depth": 1, "heads": 2},
    }
    model = create_model(name, num_classes=3, image_size=16, **fields.get(name, {}))
    found = benching.bench(name, model, 3, 16, 3, 2, device="cpu", rounds=1)
    benching.write(tmp_path, found)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["work"]["parameters"] == sum(each.numel() for each in model.parameters())
    assert {row["name"] for row in written["results"]["training"]} >= {"PyTorch, NCHW float32", "mixlab bfloat16"}
    assert found.speedup("inference") > 0
    with Image.open(tmp_path / "roofline.png") as picture:
        assert picture.width > 500
