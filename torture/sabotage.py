"""Sabotage: a one-line fault in our own code, and the tests that must notice it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from torture.check import ROOT, Check

SABOTAGES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("sabotages.toml").read_text(encoding="utf-8"))[
    "sabotage"
]


def noticed(number: int, folder: Path) -> str:
    """Run the tests of a sabotage on a copy of the sources that has its fault."""
    sabotage = SABOTAGES[number]
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    place = folder / "src" / "mixlab" / sabotage["file"]
    source = place.read_text(encoding="utf-8")
    old, new = sabotage["old"].strip("\n"), sabotage["new"].strip("\n")
    if source.count(old) != 1:
        return f"{sabotage['fault']}: its line stands {source.count(old)} times in {sabotage['file']}"
    place.write_text(source.replace(old, new), encoding="utf-8")
    words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *sabotage["tests"]]
    words += ["-m", "slow or not slow"] if sabotage.get("slow") else []
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    if found.returncode == 1:  # tests failed, as they should
        return ""
    return f"{sabotage['fault']}: not noticed (pytest ended with {found.returncode})"


QUICK = [number for number, sabotage in enumerate(SABOTAGES) if not sabotage.get("slow")]
CHECKS = [
    Check(
        name="X",
        claim=f"a one-line fault in mixlab makes the tests named for it fail ({len(QUICK)} of them in the fast suite)",
        case=noticed,
        full=len(SABOTAGES),
        sample=5,
    )
]
