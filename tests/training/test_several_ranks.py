"""A training in several processes gives the numbers of one. (Killed, shared otherwise, frozen: torture/ranks.py.)"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixlab.run.folder import Run
from torture.ranks import torchrun

FIELDS = ["epochs=2", "batch_size=32", "precision=float32", "model=convmixer_64_4", "augmentation.mix.mixup=0.4"]


def words(out: Path, name: str, *fields: str) -> list[str]:
    return ["train", "--data", "digits", *FIELDS, *fields, "--out", str(out), "--name", name, "--quiet"]


def trained(out: Path, ranks: int, name: str, *fields: str) -> Run:
    process = torchrun(ranks, ["-m", "mixlab", *words(out, name, *fields)])
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors.decode()
    return Run(out / name)


def learned(run: Run) -> dict[str, torch.Tensor]:
    weights = load_file(run.bundle / "model.safetensors")
    return {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.slow
def test_two_ranks_learn_what_one_process_learns_with_a_batch_in_two_parts(tmp_path: Path):
    two, one = trained(tmp_path, 2, "two"), trained(tmp_path, 1, "one", "accumulate=2")
    assert two.metrics() == one.metrics()
    assert all(torch.equal(tensor, learned(one)[name]) for name, tensor in learned(two).items())
    assert two.experiment == one.experiment  # that there is a part for each rank is written down


@pytest.mark.slow
def test_with_synchronised_batch_normalisation_two_ranks_learn_from_whole_batches(tmp_path: Path):
    plain = "optimizer.name=adamw"  # Muon would make the last digits, in which the two differ, larger
    two, one = trained(tmp_path, 2, "two", "sync_batchnorm=true", plain), trained(tmp_path, 1, "one", plain)
    assert [row["train_loss"] for row in two.metrics()] == pytest.approx(
        [row["train_loss"] for row in one.metrics()], rel=1e-4
    )


@pytest.mark.slow
def test_ranks_go_on_with_a_run_that_only_the_leader_finds(tmp_path: Path):
    run = trained(tmp_path, 2, "two")
    before, weights = run.metrics(), learned(run)
    (run.folder / "summary.json").unlink()
    shutil.rmtree(max(run.checkpoints.iterdir()))
    process = torchrun(2, ["-m", "mixlab", "train", "--resume", "two", "--out", str(tmp_path), "--quiet"])
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors.decode()
    assert run.metrics() == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in learned(run).items())


@pytest.mark.slow
def test_hosts_without_torchrun_need_four_variables(tmp_path: Path):
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29631"}
    ranks = [
        subprocess.Popen([sys.executable, "-m", "mixlab", *words(tmp_path, "plain")], env={**common, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(280) for process in ranks] == [0, 0]
    assert Run(tmp_path / "plain").read_environment()["device"] == "cpu, 2 ranks"


@pytest.mark.slow
def test_other_commands_refuse_to_run_many_times(tmp_path: Path):
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    found = subprocess.run(
        [sys.executable, "-m", "mixlab", "runs", "list"], env=environment, capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "only mixlab train runs in several processes" in found.stderr
