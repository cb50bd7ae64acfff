"""The sheet shows what evaluation and training compute, not something like it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab.data.augmentation import augment
from mixlab.data.draws import draw
from mixlab.data.images import read_exact
from mixlab.evaluation import contact_sheet
from mixlab.evaluation.contact_sheet import EACH, GAP
from mixlab.experiment import parse_experiment


def test_images_of_the_sheet_are_those_of_evaluation_and_of_training(
    tiny: dict, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (pictures / "blue" / "0.png").write_text("I am no picture")
    values = tiny | {"augmentation": {"horizontal_flip": {"probability": 0.5}, "mix": {"mixup": 0.5}}}
    experiment = parse_experiment(values)
    data = experiment.data.load(0, carve_validation=True)
    drawn = []
    monkeypatch.setattr(contact_sheet, "_draw", lambda path, *rest: drawn.append(rest))
    contact_sheet.contact_sheet(tmp_path / "sheet.png", experiment, data)
    sheet, classes, parts, _ = drawn[0]
    assert classes == ["blue", "red"]
    assert parts == ["as evaluated", "in training, epoch 1", "in training, epoch 2"]
    side = sheet.shape[0] // 2
    scale = (side - GAP) // 16
    width = sheet.shape[1] // 3
    chosen = np.concatenate([contact_sheet._some_of(data, label) for label in range(2)])
    names = [data.train.names[index] for index in chosen]
    assert [name.split("/")[0] for name in names] == ["blue"] * EACH + ["red"] * EACH
    assert "blue/0.png" not in names

    def shown(part: int, place: int) -> np.ndarray:
        top, left = place // EACH * side, part * width + place % EACH * side
        return sheet[top : top + side - GAP : scale, left : left + side - GAP : scale].astype(float)

    batch = data.train.batch(chosen)
    targets = np.eye(2, dtype=np.float32)[batch.labels]
    for place, name in enumerate(names):
        expected = 255 * read_exact(pictures / name, data.spec).permute(1, 2, 0).numpy()
        assert shown(0, place) == pytest.approx(expected, abs=0.5)
    for epoch in range(2):
        step = epoch * experiment.steps_per_epoch(len(data.train))
        draws = draw(experiment.augmentation, 16, chosen, experiment.seed, step, epoch)
        altered, _ = augment(experiment.augmentation, data.spec, batch.images, torch.from_numpy(targets), draws)
        for place in range(2 * EACH):
            expected = 255 * altered[place].permute(1, 2, 0).numpy()
            assert shown(1 + epoch, place) == pytest.approx(expected, abs=0.51)
