import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from mixlab import page
from mixlab.errors import RunError
from mixlab.evaluation.networks import open_onnx
from mixlab.exporting import web_runtime as runtime
from mixlab.exporting.web import export_web
from mixlab.models.convmixer import ConvMixerConfig
from mixlab.models.vit import ViTConfig
from mixlab.run.bundle import Bundle, BundleDescription

CONTENT = {name: f"content of {name}".encode() for name in runtime.SHA256}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path: Path) -> Path:
    """An empty cache, and a runtime of a few bytes."""
    monkeypatch.setattr(runtime, "SHA256", {name: hashlib.sha256(CONTENT[name]).hexdigest() for name in CONTENT})
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def package(place: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(place, "w:gz") as archive:
        for name, text in content.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return place


def unpacked(place: Path) -> Path:
    (place / "dist").mkdir(parents=True)
    for name, text in CONTENT.items():
        (place / "dist" / name).write_bytes(text)
    return place


def test_without_the_runtime_one_line_says_what_to_do():
    with pytest.raises(RunError, match=r"--download .* --runtime"):
        runtime.web_runtime()


def test_a_runtime_that_was_given_once_stays(tmp_path: Path):
    for place in (package(tmp_path / "a.tgz", CONTENT), unpacked(tmp_path / "b"), tmp_path / "b" / "dist"):
        found = runtime.web_runtime(str(place))
        assert found == runtime.web_runtime()
        assert {name.replace(".mjs", ".js") for name in CONTENT} | {"onnxruntime-web.LICENSE.txt"} == set(found)
        assert found["ort.wasm.min.js"] == CONTENT["ort.wasm.min.mjs"]


def test_another_version_or_half_a_package_is_refused(tmp_path: Path, cache: Path):
    wrong = package(tmp_path / "wrong.tgz", {**CONTENT, "ort.wasm.min.mjs": b"another"})
    half = package(tmp_path / "half.tgz", {"ort.wasm.min.mjs": CONTENT["ort.wasm.min.mjs"]})
    text = tmp_path / "text"
    text.write_text("no archive")
    for place, said in ((wrong, "SHA-256"), (half, "does not hold"), (text, "cannot be read"), (tmp_path / "no", "no")):
        with pytest.raises(RunError, match=said):
            runtime.web_runtime(str(place))
    assert not cache.exists()


def test_a_damaged_cache_counts_as_none(tmp_path: Path, cache: Path):
    runtime.web_runtime(str(package(tmp_path / "a.tgz", CONTENT)))
    [file] = cache.glob("*/ort.wasm.min.mjs")
    file.write_bytes(b"cut")
    with pytest.raises(RunError, match="--download"):
        runtime.web_runtime()


def test_download_asks_npm_for_the_pinned_version(tmp_path: Path, monkeypatch):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    source = package(tmp_path / "source.tgz", CONTENT)
    npm.write_text(f'#!/bin/sh\n[ "$2" = {runtime.PACKAGE}@{runtime.VERSION} ] && cp {source} "$6"/x.tgz\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    assert runtime.web_runtime(download=True)["ort.wasm.min.js"] == CONTENT["ort.wasm.min.mjs"]
    npm.write_text("#!/bin/sh\necho no network >&2; exit 1\n")
    monkeypatch.setenv("MIXLAB_CACHE", str(tmp_path / "another"))
    with pytest.raises(RunError, match=r"npm could not fetch .*: no network"):
        runtime.web_runtime(download=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter
@pytest.mark.parametrize("model", [ConvMixerConfig(dim=8, depth=1, kernel_size=3), ViTConfig(dim=8, depth=1, heads=2)])
def test_the_folder_has_all_that_the_page_asks_for(spec, model, tmp_path: Path):
    runtime.web_runtime(str(unpacked(tmp_path / "package")))
    description = BundleDescription(mixlab="1", model=model, spec=spec, data="/home/me/birds", reject_below=0.5)
    bundle = Bundle(description, model.build(spec).state_dict())
    (tmp_path / "web").mkdir()
    export_web(tmp_path / "web" / "model.onnx", bundle)
    names = {path.name for path in (tmp_path / "web").iterdir()}
    assert names == {*page.files(), *runtime.web_runtime(), "model.onnx", "model.json"}
    said = json.loads((tmp_path / "web" / "model.json").read_text())
    assert (said["engine"], said["classes"], said["reject_below"]) == ("browser", ["a", "b", "c"], 0.5)
    assert said["name"].endswith(" on birds")
    outputs = [output.name for output in open_onnx(tmp_path / "web" / said["onnx"]).get_outputs()]
    assert ("heat" in outputs) == said["has_heat"] == (model.name == "convmixer")
