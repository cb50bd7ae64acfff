"""Data sets that can be fetched, and where they then lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from mixlab import places
from mixlab.data import archives, cifar
from mixlab.errors import DataError, did_you_mean
from mixlab.places import expand_user


@dataclass(frozen=True)
class Download:
    url: str
    digest: str
    folder: str  # what the archive holds at its top
    megabytes: int


DOWNLOADS = {
    "cifar10": Download(cifar.CIFAR10_URL, cifar.CIFAR10_DIGEST, "cifar-10-batches-py", 170),
    "cifar100": Download(cifar.CIFAR100_URL, cifar.CIFAR100_DIGEST, "cifar-100-python", 169),
    **{
        f"imagenette{suffix}": Download(
            f"https://s3.amazonaws.com/fast-ai-imageclas/{folder_name}.tgz", f"md5:{digest}", folder_name, megabytes
        )
        for suffix, folder_name, digest, megabytes in (
            ("", "imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612", 1557),
            ("160", "imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412", 99),
            ("320", "imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3", 341),
        )
    },
}
IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def data_home() -> Path:
    """Return where downloaded data sets lie: MIXLAB_DATA, or mixlab in the user's cache folder."""
    return expand_user(os.environ.get("MIXLAB_DATA") or str(places.user_cache()))


def place(name: str, path: str) -> Path:
    """Return the folder of a data set.

    Raises:
        DataError: for a data set that could be downloaded and has not been.
    """
    home = expand_user(path) if path else data_home() / DOWNLOADS[name].folder
    missing = missing_at(home)
    if missing:
        raise DataError(
            f"{missing} is not at {home}. Add --download to fetch it ({DOWNLOADS[missing].megabytes} MB), "
            f"or give the folder it lies in: data.path=FOLDER"
        )
    return home


def fetch_missing(name: str, path: str) -> None:
    """Download the data set of a config, where it is a known one and not there; raises as `fetch`."""
    missing = missing_at(expand_user(path) if path or name not in DOWNLOADS else data_home() / DOWNLOADS[name].folder)
    if missing:
        fetch(missing)


def missing_at(home: Path) -> str:
    """Return the data set that could be downloaded to a folder that is not there, or ""."""
    names = [name for name, download in DOWNLOADS.items() if home == data_home() / download.folder]
    return names[0] if names and not home.exists() else ""


def fetch(name: str) -> Path:
    """Download and unpack a data set into the data home, unless it is there, and return its folder.

    Raises:
        DataError: for a data set without a known archive, a wrong checksum, or a network that does not answer.
    """
    if name not in DOWNLOADS:
        raise DataError(f"{name!r} cannot be downloaded{did_you_mean(name, DOWNLOADS)}; known: {', '.join(DOWNLOADS)}")
    download = DOWNLOADS[name]
    target = data_home() / download.folder
    if target.exists():
        return target
    archive = data_home() / download.url.rsplit("/", 1)[1]
    archive.parent.mkdir(parents=True, exist_ok=True)
    archives.download(download.url, archive, download.digest)
    unpacked = archive.with_name(f"{download.folder}.unpacked")
    archives.extract(archive, unpacked)
    (unpacked / download.folder).rename(target)
    unpacked.rmdir()
    archive.unlink()
    return target
