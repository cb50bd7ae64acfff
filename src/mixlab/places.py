"""Where mixlab keeps what it can make or fetch again: never among the user's files."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Return mixlab's folder in the user's cache folder: in XDG_CACHE_HOME, or in ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "mixlab"  # XDG: a relative path counts as none


def cache_home() -> Path:
    """Return where decoded pictures and choices of kernels are kept: MIXLAB_CACHE, or the user's cache folder."""
    return Path(os.environ.get("MIXLAB_CACHE") or user_cache()).expanduser().absolute()
