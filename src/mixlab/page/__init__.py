"""The page that asks a classifier: files that a server or a static host gives out as they are."""

from importlib import resources


def files() -> dict[str, bytes]:
    """Return the files of the page by their names; index.html is the page."""
    return {"index.html": resources.files(__name__).joinpath("index.html").read_bytes()}
