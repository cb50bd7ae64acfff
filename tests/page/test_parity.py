"""Answers in real headless Chromium are those of Python."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlab.data.decode import decode
from mixlab.data.images import fit
from mixlab.evaluation.explanation import heat_maps
from mixlab.run import bundle
from tests.page.asking import HOSTILE, ask, check_clean, downloaded, furthest, saved, static_host

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of PyTorch's exporter
TOLERANCE = 1e-3  # of a probability


def test_fifty_png_get_the_answers_of_python(photo_run, photographs, browser, tmp_path: Path):
    run, address, _ = photo_run
    browser.open(address)
    files = saved(photographs, tmp_path / "png", ".png")
    ask(browser, files)
    rows = downloaded(browser, tmp_path)
    assert furthest(run, files, rows) < TOLERANCE
    assert {row["unknown"] for row in rows} == {"1", "0"}  # some are above 0.7, some below
    assert browser.run("document.querySelectorAll('.card img[src^=blob]').length") == 50
    assert browser.run("document.querySelectorAll('.card.unknown').length") == [r["unknown"] for r in rows].count("1")
    assert HOSTILE in browser.run("document.getElementById('answers').textContent")
    check_clean(browser, address)


def test_grey_digits_get_the_answers_of_python(digits, photographs, browser, tmp_path: Path):
    run, address, _ = digits
    images = pytest.importorskip("sklearn.datasets").load_digits().images
    pictures = [Image.fromarray((255 - 15 * images[index]).astype(np.uint8)).resize((90, 90)) for index in range(25)]
    browser.open(address)
    files = saved([*pictures, *photographs[:25]], tmp_path / "png", ".png")
    ask(browser, files)
    assert furthest(run, files, downloaded(browser, tmp_path)) < TOLERANCE
    check_clean(browser, address)


def test_jpegs_get_the_answers_of_python(digits, photographs, browser, tmp_path: Path):
    """Chromium and Pillow decode by the same library; another browser may differ."""
    run, address, _ = digits
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = saved(photographs[:20], tmp_path / "plain", ".jpg", quality=85)
    rotated = saved(photographs[20:40], tmp_path / "turned", ".jpeg", quality=95, exif=turned, progressive=True)
    browser.open(address)
    ask(browser, [*plain, *rotated])
    assert furthest(run, [*plain, *rotated], downloaded(browser, tmp_path)) < TOLERANCE
    check_clean(browser, address)


ANSWER = """(async () => {
  const { openEngine } = await import("./engine.js");
  const engine = openEngine(await (await fetch("model.json")).json());
  const answer = await engine.answer(new File([await (await fetch("asked.png")).blob()], "asked.png"));
  const bytes = new Uint8Array(await (await fetch(answer.view)).arrayBuffer());
  return JSON.stringify({ ...answer, view: Array.from(bytes) });
})()"""


def test_the_view_and_the_heat_map_are_those_of_python(photo_run, photographs, browser, tmp_path: Path):
    run, _, exported = photo_run
    found = bundle.read_bundle(run)
    spec = found.description.spec
    folder = shutil.copytree(exported, tmp_path / "web")
    asked = photographs[3].copy()
    asked.putalpha(Image.linear_gradient("L").resize(asked.size))
    asked.save(folder / "asked.png")
    html = (folder / "index.html").read_text().replace("connect-src 'self'", "connect-src 'self' blob:")  # for the view
    (folder / "index.html").write_text(html)
    with static_host(folder) as address:
        browser.open(address)
        answer = json.loads(browser.run(ANSWER))
    seen = fit(decode(folder / "asked.png", 3), spec)
    view = np.array(Image.open(io.BytesIO(bytes(answer["view"]))).convert("RGB")) / 255
    assert np.abs(view - seen.permute(1, 2, 0).numpy()).max() < 0.51 / 255
    [expected] = heat_maps(found.build(), seen[None], [spec.classes.index(answer["top"][0]["class"])])
    heat = np.reshape(answer["heat_map"]["values"], (answer["heat_map"]["rows"], answer["heat_map"]["columns"]))
    np.testing.assert_allclose(heat, expected, atol=1e-3)
