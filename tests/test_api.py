"""The names of `import mixlab`."""

import re
from pathlib import Path

import pytest

import mixlab

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
NAMES = {name for page in PAGES for name in re.findall(r"\bmixlab\.(\w+)\(", page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", sorted(NAMES | set(mixlab.__all__)))
def test_every_name_that_the_documents_call_is_there(name: str):
    assert getattr(mixlab, name)
    assert name in dir(mixlab)
