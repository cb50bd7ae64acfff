"""ONNX Runtime for browsers: files that stay in the cache once they were given or fetched, checked each time."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from mixlab import durable
from mixlab.errors import RunError, first_line
from mixlab.places import cache_home, expand_user

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENSE = f"""\
ONNX Runtime Web {VERSION}: ort.wasm.min.js, ort-wasm-simd-threaded.js and ort-wasm-simd-threaded.wasm

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def web_runtime(place: str = "", download: bool = False) -> dict[str, bytes]:
    """Return the runtime's files and its licence by the names that the page knows.

    They end in .js, because not every static host knows that .mjs is a script.

    Args:
        place: a folder or the npm package's archive that holds them; "": the cache.
        download: have npm fetch what is not in the cache.

    Raises:
        RunError: where they are missing or not those of this version.
    """
    kept = cache_home() / f"{PACKAGE}-{VERSION}"
    if place:
        found = _read(expand_user(place))
    elif durable.verify_folder(kept) == "":
        found = _read(kept)
    elif download:
        found = _fetch()
    else:
        raise RunError(
            f"a page needs {PACKAGE} {VERSION} (14 MB), which is not in {kept.parent}: add --download to have npm "
            f"fetch it, or --runtime PLACE, a folder or archive of that npm package"
        )
    durable.make_folder(kept.parent)
    durable.write_folder(kept, found)
    return {name.replace(".mjs", ".js"): content for name, content in found.items()} | {
        f"{PACKAGE}.LICENSE.txt": LICENSE.encode()
    }


def _fetch() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise RunError(
            f"npm is needed to fetch {PACKAGE}; install it, or fetch {PACKAGE}@{VERSION} and add --runtime PLACE"
        )
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(  # noqa: S603
            [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", folder],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if packed.returncode or not archives:
            reason = packed.stderr.strip() or "it says nothing"
            raise RunError(f"npm could not fetch {PACKAGE}@{VERSION}: {first_line(reason)}")
        return _read(archives[0])


def _read(place: Path) -> dict[str, bytes]:
    """Return the files of a folder, or of the package's archive, as they are needed."""
    try:
        found = _of_folder(place) if place.is_dir() else _of_archive(place)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise RunError(f"{place} cannot be read: {error}") from None
    for name, digest in SHA256.items():
        if name not in found:
            raise RunError(f"{place} does not hold {name} of {PACKAGE} {VERSION}")
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise RunError(f"{name} in {place} is not that of {PACKAGE} {VERSION}: its SHA-256 differs")
    return found


def _of_folder(place: Path) -> dict[str, bytes]:
    inside = place / "dist" if (place / "dist").is_dir() else place
    return {name: durable.read_bytes(inside / name) for name in SHA256 if (inside / name).is_file()}


def _of_archive(place: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(place) as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            content = archive.extractfile(member) if name in SHA256 and member.isreg() else None
            if content is not None:
                found[name] = content.read(100_000_000)  # larger is none of them
    return found
