import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixlab import page
from mixlab.cli.predict import write_csv
from mixlab.data.resample import resize, square_region
from mixlab.run.table import as_cell

TEXTS = {name: content.decode() for name, content in page.files().items()}
ANSWERS = [
    {"file": '=1+1 "a".png', "unknown": False, "top": [{"class": "-dog\n", "probability": 0.75}]},
    {
        "file": "b.png",
        "unknown": True,
        "top": [{"class": "Katze, grau", "probability": 0.5}, {"class": "犬", "probability": 0.25}],
    },
    {"file": "c.png", "error": "0 bytes"},
    {"file": "\u202e\t\x85\x00d.png", "error": "-1 'byte', \"none\""},
]


def test_the_page_asks_for_no_file_that_is_not_there():
    named = {name for text in TEXTS.values() for name in re.findall(r'"(?:\./)?([\w.-]+\.(?:js|css|svg))"', text)}
    of_the_runtime = {"ort.wasm.min.js", "ort-wasm-simd-threaded.js"}
    assert named - of_the_runtime == set(TEXTS) - {"index.html"}


def test_no_file_names_another_host_or_has_inline_script_or_style():
    for name, text in TEXTS.items():
        assert not re.search(r"""(\w:|["'(])//\w""", text.replace('xmlns="http://www.w3.org/2000/svg"', "")), name
    html = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]* src=)", html)
    assert not [name for name, text in TEXTS.items() if re.search(r"innerHTML|insertAdjacentHTML|eval\(", text)]


def test_the_page_states_the_policy_that_a_server_sends():
    assert f'<meta http-equiv="Content-Security-Policy" content="{page.POLICY}">' in TEXTS["index.html"]


def test_script_and_page_agree_on_the_parts():
    ids = set(re.findall(r' id="([\w-]+)"', TEXTS["index.html"]))
    used = {name for text in TEXTS.values() for name in re.findall(r'(?:part|getElementById)\("([\w-]+)"\)', text)}
    assert used <= ids


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_pure_functions_agree_with_python(tmp_path: Path):
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "cases.json").write_text(json.dumps(cases()))
    shutil.copy(Path(__file__).with_name("page.test.mjs"), tmp_path)
    said = subprocess.run(["node", "--test"], cwd=tmp_path, capture_output=True, text=True)  # noqa: S607
    assert said.returncode == 0, said.stdout


def cases() -> dict:
    shapes = [(7, 11), (40, 23), (16, 16), (5, 90), (1, 1), (33, 32)]
    modes = ("crop", "pad", "squash")
    colours = np.random.default_rng(0).integers(0, 256, (2000, 3), np.uint8)
    rgba = np.concatenate([colours, np.full((2000, 1), 255, np.uint8)], 1)
    return {
        "resized": [resized(*shape, channels, mode) for shape in shapes for channels in (1, 3) for mode in modes],
        "regions": [
            {"height": height, "width": width, "mode": mode, "region": square_region(height, width, mode)}
            for height, width in shapes
            for mode in modes
        ],
        "grey": {
            "rgba": rgba.flatten().tolist(),
            "luma": np.array(Image.fromarray(colours[None]).convert("L")).flatten().tolist(),
        },
        "cells": [
            {"text": text, "cell": as_cell(text)} for text in ("", "a", "=1", "+1", "-1", "@a", "\ta", "'=1", "'a")
        ],
        "csv": {"answers": ANSWERS, "text": as_csv(ANSWERS)},
    }


def resized(height: int, width: int, channels: int, mode) -> dict:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)
    fill = [0.5, 0.25, 0.75][:channels]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    seen = resize(image / 255, 16, mode, torch.tensor(fill))[0].permute(1, 2, 0) * 255
    picture = {"pixels": pixels.flatten().tolist(), "height": height, "width": width, "channels": channels}
    return {"picture": picture, "size": 16, "mode": mode, "fill": fill, "seen": seen.flatten().tolist()}


def as_csv(answers: list[dict]) -> str:
    text = io.StringIO(newline="")
    write_csv(answers, 2, text)
    return text.getvalue()
