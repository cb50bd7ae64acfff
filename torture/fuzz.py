"""S3: whatever stands in a file or a flag, a parser answers with a value or with an error of our own.

A case is one parser and one seed: 20 inputs, each a valid one after a few accidents to its text or its values.
"""

import contextlib
import copy
import functools
import json
import pickle
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixlab import durable
from mixlab.comparison.compare import is_comparison, read_comparison
from mixlab.comparison.compose import compose_request, read_file
from mixlab.comparison.request import parse_budget, parse_seeds
from mixlab.config import parse_override, read_toml
from mixlab.data.archives import extract
from mixlab.data.cifar import read_cifar
from mixlab.data.decode import decode
from mixlab.data.labels_csv import read_labels
from mixlab.data.pack import FOOTER, MAGIC, Identity, open_pack, write_pack
from mixlab.durations import seconds
from mixlab.errors import MixlabError
from mixlab.experiment import compose, parse_experiment
from mixlab.models.catalogue import parse_model
from mixlab.run import checkpoint
from mixlab.run.bundle import read_bundle
from mixlab.run.folder import Run, find_run, list_runs
from mixlab.serving.limits import Limits
from mixlab.serving.multipart import pictures_in
from torture.check import Check
from torture.hostile_archives import good_tar, zip_of
from torture.hostile_bundles import SPEC, good_bundle
from torture.mutated_files import FORMS, mutated
from torture.pictures import photograph, saved
from torture.served import FORM, form

INPUTS, SECONDS = 20, 5.0  # of a case, of one input
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 3, 10**6, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "auto", "../..", "a\0b",
    "\udc80", "x" * 5000, "=1", [], [[]], [1, 2], {}, {"name": "vit"}, {"": {}}, [[0, 16], [0.5, 32]],
)  # fmt: skip
WORDS = (
    "epochs=3", "model.dim=64", "model=vit", "data=digits", "optimizer.name=sgd", "schedule.name=constant", "seed=1",
    "image_sizes=[[0, 16], [0.5, 8]]", "augmentation.mix.mixup=0.2", "data.classes=a", "model.stages=[1, 2]", "a=b=c",
    "precision=float16", "weights=x.pt", "lr=1", "model.patch_size=99", "freeze=true", "90s", "1h30m",
)  # fmt: skip
RECIPE = """
epochs = 4
image_sizes = [[0, 8], [0.5, 16]]
[data]
name = "digits"
validation_fraction = 0.2
[model]
name = "convmixer"
dim = 16
[optimizer]
name = "sgd"
[for.vit]
epochs = 3
[augmentation.mix]
mixup = 0.2
"""
COMPARISON = """
seeds = 2
budget = "epochs=2"
[experiment.data]
name = "digits"
[variants.a.model]
name = "convmixer_64_4"
[variants.b]
model = "vit_64_4_patch2"
epochs = 3
"""


def changed(values: Any, dice: random.Random) -> Any:
    """Return a tree of values after one to three accidents."""
    found = copy.deepcopy(values)
    for _ in range(dice.randint(1, 3)):
        holders = [each for each in _holders(found) if each]
        if not holders:
            return _hostile(dice)
        holder = dice.choice(holders)
        key = dice.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        match dice.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[dice.choice(("name", "x", "__class__", "", str(key) + "s"))] = _hostile(dice)
            case 2:
                holder[key] = [holder[key]] * dice.choice((1, 2))
            case _:
                holder[key] = _hostile(dice)
    return found


def _hostile(dice: random.Random) -> Any:
    return copy.deepcopy(dice.choice(HOSTILE))  # the next accident may be to it


def _holders(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [value, *(holder for each in inside for holder in _holders(each))]


def as_text(values: Any, dice: random.Random) -> bytes:
    """Return JSON of changed values, or changed JSON of values."""
    if dice.random() < 0.7:
        return json.dumps(changed(values, dice)).encode()
    return mutated(json.dumps(values).encode(), dice)


def experiment(dice: random.Random, root: Path) -> None:
    values = compose("", {"model": dice.choice(("vit", "resnet", "convmixer"))}, []).model_dump(mode="json")
    found = parse_experiment(changed(values, dice))
    found.steps(100)
    found.learning_rate(1, 100)
    found.image_size(1, 100, 8)


def experiment_file(dice: random.Random, root: Path) -> None:
    values = compose("", {}, []).model_dump(mode="json")
    (root / "run").mkdir(exist_ok=True)
    for name in ("experiment", "request", "summary", "splits", "files", "environment"):
        (root / "run" / f"{name}.json").write_bytes(as_text(values, dice))
    (root / "run" / "metrics.jsonl").write_bytes(as_text({"epoch": 1, "step": 3}, dice))
    run = find_run(root / "run")
    list_runs(root)
    readers = (run.metrics, run.read_splits, run.read_files, run.read_environment)
    parts = ("summary", "request", "experiment")
    for read in (*readers, *(functools.partial(getattr, run, part) for part in parts)):
        with contextlib.suppress(MixlabError):
            read()


def override(dice: random.Random, root: Path) -> None:
    words = [mutated(dice.choice(WORDS).encode(), dice).decode("utf-8", "surrogateescape") for _ in range(2)]
    for word in words:
        parse_override(word)
    compose("", {"model": "convmixer_64_4"}, words)


def flags(dice: random.Random, root: Path) -> None:
    text = mutated(dice.choice(("1h30m", "epochs=3", "time=10m", "1e6", "4,5,6", "3")).encode(), dice).decode("latin1")
    match dice.randrange(3):
        case 0:
            seconds(text, text)
        case 1:
            parse_budget(text)
        case _:
            parse_seeds(text)  # pyright: ignore[reportArgumentType]


def recipe(dice: random.Random, root: Path) -> None:
    (root / "recipe.toml").write_bytes(mutated(RECIPE.encode(), dice))
    read_toml(root / "recipe.toml")
    compose(root / "recipe.toml", {}, ["model.depth=2"])


def comparison(dice: random.Random, root: Path) -> None:
    (root / "comparison.toml").write_bytes(mutated(COMPARISON.encode(), dice))
    compose_request(read_file(root / "comparison.toml"), (), (), {}, ())


def leaderboard(dice: random.Random, root: Path) -> None:
    row = {"name": "a", "model": {}, "parameters": 3, "macs": 3, "runs": [{"run": "x", "seed": 0}]}
    (root / "request.json").write_bytes(as_text({"variants": [row]}, dice))
    (root / "leaderboard.json").write_bytes(as_text({"data": "digits", "protocol": "honest", "rows": [row]}, dice))
    is_comparison(root)
    read_comparison(root)


def model_fields(dice: random.Random, root: Path) -> None:
    fields = changed({"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2}, dice)
    parse_model(fields if dice.random() < 0.3 else {**fields, "name": "convmixer"}).build(SPEC)


def bundle(dice: random.Random, root: Path) -> None:
    folder = root / "bundle"
    if not folder.exists():
        good_bundle(folder)
        (root / "kept.json").write_bytes((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_bytes(as_text(json.loads((root / "kept.json").read_text()), dice))
    read_bundle(folder).build()


def manifest(dice: random.Random, root: Path) -> None:
    run = Run(root / "run")
    run.folder.mkdir(exist_ok=True)
    tensors = {"model.a": torch.zeros(2)}
    folder = checkpoint.save_checkpoint(run, checkpoint.Checkpoint(1, tensors, {"epoch": 1, "best": {}}))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    name = dice.choice(list(files))
    damaged = mutated(files[name], dice) if dice.random() < 0.5 else as_text({"step": 1, "epoch": 1}, dice)
    if name == "manifest.json" or dice.random() < 0.3:
        (folder / name).write_bytes(damaged)
    else:  # with sums that are right
        durable.write_folder(folder, {each: files[each] for each in files if each != "manifest.json"} | {name: damaged})
    checkpoint.load_newest(run)


def picture(dice: random.Random, root: Path) -> None:
    kind, options = dice.choice(FORMS)
    decode(mutated(saved(photograph(dice.randrange(9)), kind, **options), dice), dice.choice((1, 3)), 16)


def labels(dice: random.Random, root: Path) -> None:
    for name in ("a.png", "b.png"):
        (root / name).touch()
    (root / "labels.csv").write_bytes(mutated(b'file,class,split\na.png,cat,train\nb.png,"a dog",test\n', dice))
    read_labels(root, "labels.csv")


def pack(dice: random.Random, root: Path) -> None:
    path = root / "a.pixels"
    rows = [(Identity(f"{index}.png", 3, 4, 5), np.full((3, 4, 4), index, np.uint8), "") for index in range(3)]
    write_pack(path, rows)
    whole = path.read_bytes()
    if dice.random() < 0.5:
        path.write_bytes(mutated(whole, dice))
    else:
        path.write_bytes(_with_index(whole, changed(json.loads(whole[144:-20]), dice)))
    found = open_pack(path)
    if found is not None and any(len(entry.identity) != 4 for entry in found.entries):
        raise ValueError("a pack without identities")


def _with_index(whole: bytes, index: Any) -> bytes:
    """Return a pack with another index whose sum is right."""
    text = json.dumps(index).encode()
    return whole[:144] + text + FOOTER.pack(len(text), zlib.crc32(text), MAGIC)


def archive(dice: random.Random, root: Path) -> None:
    whole = dice.choice((good_tar(), zip_of(("a/b", b"one" * 99, 0o100644), ("c", b"", 0o100644))))
    (root / "archive").write_bytes(mutated(whole, dice))
    extract(root / "archive", root / f"out{dice.random()}", max_bytes=10**7, max_files=100)


def cifar(dice: random.Random, root: Path) -> None:
    batch = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [3]}, protocol=2)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (root / name).write_bytes(batch)
    (root / "test_batch").write_bytes(mutated(batch, dice))
    read_cifar(root, "cifar10")


def upload(dice: random.Random, root: Path) -> None:
    body = form(*[(f"{place}.jpg", b"a picture\r\n") for place in range(dice.randint(0, 3))])
    kind = dice.choice((FORM, mutated(FORM.encode(), dice).decode("latin-1")))
    pictures_in(mutated(body, dice), kind, Limits(max_pictures=2))


Parser = Callable[[random.Random, Path], None]
PARSERS: tuple[Parser, ...] = (
    experiment, experiment_file, override, flags, recipe, comparison, leaderboard, model_fields, bundle, manifest,
    picture, labels, pack, archive, cifar, upload,
)  # fmt: skip


def case(number: int, root: Path) -> str:
    """Feed one parser."""
    parse, dice = PARSERS[number % len(PARSERS)], random.Random(number)
    for place in range(INPUTS):
        started = time.process_time()
        try:
            parse(dice, root)
        except MixlabError as error:
            if len(str(error)) > 3000:
                return f"{parse.__name__}, input {place}: a message of {len(str(error))} characters"
        except Exception as error:
            return f"{parse.__name__}, input {place}: {type(error).__name__}: {str(error)[:200]}"
        if time.process_time() - started > SECONDS:
            return f"{parse.__name__}, input {place} takes long"
    return ""


CHECKS = [
    Check(
        name="S3",
        claim="20 damaged inputs of one parser end in a value or an error of our own, each within 5 s",
        case=case,
        full=20 * len(PARSERS),
        sample=2 * len(PARSERS),
        quick=len(PARSERS),
    )
]
