"""The doctor: what is installed and at hand, and whether training resumes exactly on this machine."""

import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mixlab import devices, durable
from mixlab.errors import MixlabError
from mixlab.experiment import parse_experiment
from mixlab.kernels import library
from mixlab.run.bundle import read_bundle
from mixlab.run.environment import environment
from mixlab.run.folder import Run
from mixlab.training.session import Options
from mixlab.training.train import resume, train

EXTRAS = {"scikit-learn": "digits", "tensorboard": "tensorboard"}


class Finding(NamedTuple):
    ok: bool
    name: str
    text: str


def examine(out: Path) -> list[Finding]:
    """Look at versions, devices and write access, then train, resume and compare."""
    here = environment("")
    return [
        Finding(True, "mixlab", f"{here['mixlab']} on Python {here['python']}, {here['machine']}"),
        Finding(True, "torch", f"{here['torch']}, {here['threads']} threads on {here['cores']} cores"),
        *[Finding(True, "device", _describe(kind)) for kind in devices.available()],
        *[Finding(True, "kernels", f"{kind}: {library.describe(kind)}") for kind in devices.available()],
        *[Finding(True, "extra", _extra(package, name)) for package, name in EXTRAS.items()],
        _write_access(out),
        _exact_resume(),
    ]


def _describe(kind: str) -> str:
    if kind != "cuda":
        return kind
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"cuda: {', '.join(names)}"


def _extra(package: str, extra: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} is not installed (pip install 'mixlab[{extra}]')"


def _write_access(out: Path) -> Finding:
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    probe = place / ".mixlab-doctor"
    try:
        durable.write_bytes(probe, b"x")
        probe.unlink()
    except MixlabError as error:
        return Finding(False, "runs", str(error))
    free = shutil.disk_usage(place).free / 2**30
    return Finding(True, "runs", f"{out} can be written, {free:,.0f} GiB free")


def _exact_resume() -> Finding:
    """Train twice: once without a break, and once from the first epoch's checkpoint on."""
    with tempfile.TemporaryDirectory(prefix="mixlab-doctor-") as place:
        root = Path(place)
        _draw_pictures(root / "pictures")
        experiment = parse_experiment(
            {
                "data": str(root / "pictures"),
                "model": {"name": "convmixer", "dim": 8, "depth": 1},
                "epochs": 2,
                "batch_size": 8,
                "augmentation": {"horizontal_flip": {"probability": 0.5}, "mix": {"mixup": 0.2}},
            }
        )
        options = Options(device="cpu", workers=0, out=root / "runs", quiet=True)
        whole = train(experiment, options)
        broken = _without_second_epoch(whole, root / "again")
        resume(broken, options)
        if not _equal(whole, broken):
            return Finding(False, "resume", "a resumed training differs from the uninterrupted one")
        return Finding(True, "resume", "a resumed training equals the uninterrupted one, bit for bit")


def _draw_pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for index in range(16):
            noise = generator.integers(-40, 40, (16, 16, 3))
            pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def _without_second_epoch(run: Run, target: Path) -> Run:
    shutil.copytree(run.folder, target)
    newest = max(path for path in (target / "checkpoints").iterdir())
    for path in (newest, target / "bundle"):
        shutil.rmtree(path)
    (target / "summary.json").unlink()
    return Run(target)


def _equal(first: Run, second: Run) -> bool:
    left, right = read_bundle(first).state, read_bundle(second).state
    same = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return same and first.metrics() == second.metrics()
