"""Places in the file system: where mixlab keeps what it can make or fetch again, never among the user's files."""

import os
from pathlib import Path

from mixlab.errors import DataError


def user_cache() -> Path:
    """Return mixlab's folder in the user's cache folder: in XDG_CACHE_HOME, or in ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "mixlab"  # XDG: a relative path counts as none


def cache_home() -> Path:
    """Return where decoded pictures and choices of kernels are kept: MIXLAB_CACHE, or the user's cache folder."""
    return expand_user(os.environ.get("MIXLAB_CACHE") or str(user_cache())).absolute()


def expand_user(path: str) -> Path:
    """Expand "~" and "~name".

    Raises:
        DataError: where there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(f"{path}: there is no such user") from None
