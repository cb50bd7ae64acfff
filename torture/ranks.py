"""T2, T3 and T11: trainings of several ranks that are killed, shared otherwise, or frozen."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mixlab.run.folder import Run
from torture.check import Check
from torture.exact_resume import RECIPE, draw_pictures, fingerprint

RECORDED = Path(__file__).with_name("recorded.py")
SIGNAL_LIMIT = 6.0  # seconds, a step of less than one included
AGENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # without it torchrun rarely comes back


def torchrun(ranks: int, words: Sequence[str], restarts: int = 0, **environment: str) -> subprocess.Popen:
    """Start a command in so many ranks; its output goes to no one, its errors to a pipe."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    launch += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    everything = {**os.environ, **AGENT, **environment}
    return subprocess.Popen([*launch, *words], env=everything, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def children(process: int) -> list[int]:
    """Return the ranks that an agent has started."""
    found = Path(f"/proc/{process}/task/{process}/children")
    try:
        return [int(word) for word in found.read_text().split()] if found.exists() else []
    except ProcessLookupError:
        return []


def wait_for(run: Path, epochs: int, process: subprocess.Popen) -> None:
    """Wait until so many epochs stand in a run's metrics."""
    metrics = run / "metrics.jsonl"
    limit = time.monotonic() + 240
    while not metrics.exists() or len(metrics.read_text().splitlines()) < epochs:
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"the training did not reach epoch {epochs}: {_errors(process)}")
        time.sleep(0.05)


def killed_rank(number: int, root: Path) -> str:
    """Train in two ranks, once alone and once with a rank killed at a random moment of a random epoch."""
    dice = random.Random(number)
    recipe = _recipe(root, number)
    for name in ("whole", "broken"):
        process = torchrun(2, ["-m", "mixlab", *_train(recipe, root / name, dice.randrange(3))], restarts=3)
        if name == "broken":
            wait_for(root / name / "run", dice.randint(1, 4), process)
            time.sleep(dice.uniform(0, 1))
            for victim in dice.sample(children(process.pid), 1):
                os.kill(victim, signal.SIGKILL)
        _, errors = process.communicate(timeout=400)
        if process.returncode:
            return f"the {name} run ended with {process.returncode}: {errors.decode()[-400:]}"
    same = fingerprint(root / "whole" / "run") == fingerprint(root / "broken" / "run")
    return "" if same else "the run differs"


def same_pictures(number: int, root: Path) -> str:
    """Train in 1, 2 and 3 ranks, and compare the pictures of each step."""
    dice = random.Random(number)
    draw_pictures(root / "pictures", each=dice.randint(14, 40))
    size, parts = dice.randint(7, 24), dice.randint(1, 4)
    fields = [f"seed={number}", "model.name=convmixer", "model.dim=8", "model.depth=1", "data.image_size=16"]
    fields += ["augmentation.mix.mixup=0.4", f"batch_size={size}", f"accumulate={parts}", "epochs=2"]
    found = []
    for ranks in (1, 2, 3):
        record = root / f"record-{ranks}"
        record.mkdir()
        words = ["train", "--data", str(root / "pictures"), *fields, "--out", str(root / "runs"), "--name", f"r{ranks}"]
        process = torchrun(ranks, [str(RECORDED), *words, "--stream", "--quiet"], RECORD=str(record))
        _, errors = process.communicate(timeout=300)
        if process.returncode:
            return f"{ranks} ranks ended with {process.returncode}: {errors.decode()[-400:]}"
        found.append(_steps(record, ranks))
    if any(len(set(step)) != size for step in found[0]):
        return "a picture is missing, or comes twice in a step"
    different = [ranks for ranks, steps in enumerate(found, start=1) if steps != found[0]]
    return f"with {different} ranks the steps have other pictures" if different else ""


def frozen_rank(number: int, root: Path) -> str:
    """Freeze a rank; another must say so within 30 seconds."""
    dice = random.Random(number)
    process = torchrun(2, ["-m", "mixlab", *_train(_recipe(root, number), root, 1)])
    wait_for(root / "run", 1, process)
    time.sleep(dice.uniform(0, 1))
    victim = dice.choice(children(process.pid))
    os.kill(victim, signal.SIGSTOP)
    frozen, said = time.monotonic(), ""
    while process.stderr and not re.search(r"(rank \d|host of the store).* has not answered", said):
        line = process.stderr.readline()
        if not line:
            break
        said = line.decode()
    seconds = time.monotonic() - frozen
    os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=100)
    if "has not answered" not in said:
        return f"nobody noticed: {said}"
    return "" if seconds <= 30 else f"noticed after {seconds:.0f} s"


def signalled_ranks(number: int, root: Path) -> str:
    """Send a signal to a training of two ranks at a random moment; it must be saved and gone, and go on exactly."""
    dice, sent = random.Random(number), (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[number % 3]
    recipe = _recipe(root, number)
    for name in ("whole", "broken"):
        words = [sys.executable, "-m", "mixlab", *_train(recipe, root / name, 1), "--nproc", "2"]
        if name == "broken":
            process = subprocess.Popen(words, env={**os.environ, **AGENT}, stderr=subprocess.PIPE)
            wait_for(root / name / "run", dice.randint(1, 4), process)
            time.sleep(dice.uniform(0, 1))
            process.send_signal(sent)
            try:
                _, errors = process.communicate(timeout=SIGNAL_LIMIT)
            except subprocess.TimeoutExpired:
                return f"{sent.name}: still there after {SIGNAL_LIMIT:g} s: {_errors(process)}"
            goes_on = b"go on with: mixlab train --resume" in errors or Run(root / name / "run").is_finished
            if process.returncode not in (0, 130) or (process.returncode and not goes_on):
                return f"{sent.name}: exit code {process.returncode}: {errors.decode()[-400:]}"
        subprocess.run(words, env={**os.environ, **AGENT}, check=True, capture_output=True, timeout=400)
    same = fingerprint(root / "whole" / "run") == fingerprint(root / "broken" / "run")
    return "" if same else f"{sent.name}: the training that went on differs"


def _recipe(root: Path, seed: int) -> Path:
    draw_pictures(root / "pictures")
    recipe = root / "recipe.toml"
    recipe.write_text(RECIPE.format(precision=("float32", "bfloat16")[seed % 2], seed=seed, pictures=root / "pictures"))
    return recipe


def _train(recipe: Path, out: Path, workers: int) -> list[str]:
    flags = ["--workers", str(workers), "--stream", "--save-every", "1s", "--name", "run", "--quiet", "--device", "cpu"]
    return ["train", "-c", str(recipe), "--out", str(out), *flags]


def _steps(record: Path, ranks: int) -> list[list[int]]:
    """Return the pictures of each step, those of rank 0 first."""
    lines = [(record / f"{rank}.jsonl").read_text().splitlines() for rank in range(ranks)]
    shared = [[json.loads(line)["pictures"] for line in step] for step in zip(*lines, strict=True)]
    return [[picture for part in step for picture in part] for step in shared]


def _errors(process: subprocess.Popen) -> str:
    process.kill()
    return process.communicate()[1].decode()[-400:]


CHECKS = [
    Check(
        name="T2",
        claim="a training in 2 ranks under torchrun with a rank killed ends byte-identical to the uninterrupted one",
        case=killed_rank,
        full=20,
        sample=1,
        others="no tool resumes exactly inside an epoch; torchrun alone comes back 1 time in 6",
    ),
    Check(
        name="T3",
        claim="1, 2 and 3 ranks compute the same pictures in the same order at each step, none missing and none twice",
        case=same_pictures,
        full=10,
        sample=1,
    ),
    Check(
        name="T8r",
        claim="a signal to a training of 2 ranks: gone within 5 s and a step, and the same command goes on exactly",
        case=signalled_ranks,
        full=20,
        sample=0,
        alone=True,
    ),
    Check(
        name="T11",
        claim="a frozen rank is noticed and named within 30 seconds",
        case=frozen_rank,
        full=5,
        sample=1,
        others="PyTorch: after 10 to 30 minutes",
    ),
]
