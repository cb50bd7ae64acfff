"""Training steps as graphs, on a GPU: the same bits as without, whatever the network draws and changes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mixlab.experiment import parse_experiment
from mixlab.kernels import graphs
from mixlab.run.bundle import read_bundle
from mixlab.training.session import Options
from mixlab.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CONVMIXER = {"name": "convmixer", "dim": 16, "depth": 2, "dropout": 0.2, "drop_path": 0.2}
MODELS = [
    *(CONVMIXER | {"kernel_size": kernel_size} for kernel_size in (3, 9)),
    {"name": "vit", "dim": 16, "depth": 2, "heads": 2, "patch_size": 4, "dropout": 0.2, "attention_dropout": 0.2},
    {"name": "mlp_mixer", "dim": 16, "depth": 2, "patch_size": 4},
    {"name": "resnet9", "width": 4},
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_training_has_the_same_bits_with_graphs_and_without(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict, precision: str
):
    more = {"weight_average": 0.9, "label_smoothing": 0.1, "freeze_filters": 0.7}
    if model["name"] not in ("vit", "mlp_mixer"):  # which are built for one size
        more["image_sizes"] = [[0.0, 12], [0.5, 16]]
    experiment = parse_experiment(tiny | more | {"epochs": 4, "precision": precision, "model": model})
    real, made = graphs.captured, []

    def counted(*arguments):
        made.append(real(*arguments))
        assert made[-1] is not arguments[0], "it was not captured"
        return made[-1]

    monkeypatch.setattr(graphs, "captured", counted)
    options = [Options(device="cuda", workers=0, out=tmp_path / name, quiet=True) for name in ("graphs", "plain")]
    with_graphs = train(experiment, options[0])
    assert made
    monkeypatch.setattr(graphs, "is_usable", lambda device: False)
    plain = train(experiment, options[1])
    left, right = read_bundle(with_graphs).state, read_bundle(plain).state
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert with_graphs.metrics() == plain.metrics()


def test_a_graph_of_another_gpu_is_of_that_one():
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    model, given = nn.Linear(3, 2).to(device), torch.rand(4, 3, device=device)

    def work(x: torch.Tensor) -> None:
        model(x).square().sum().backward()

    replayed = graphs.captured(work, [given], model)
    assert replayed is not work
    other = torch.rand(4, 3, device=device)
    replayed(other)
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    work(other)
    assert len(found) == 2
    assert all(torch.equal(left, each.grad) for left, each in zip(found, model.parameters(), strict=True))


def test_work_that_waits_for_the_gpu_is_done_as_it_is():
    model = nn.Linear(3, 2).cuda()

    def work(x: torch.Tensor) -> None:
        model(x).sum().backward()
        float(x.sum())

    with pytest.warns(UserWarning, match="training steps are not captured in a graph"):
        assert graphs.captured(work, [torch.rand(4, 3, device="cuda")], model) is work
    work(torch.rand(4, 3, device="cuda"))
