"""Samples of the torture that `make kill-test` and its kind run in full."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_runs_resume_exactly():
    words = [sys.executable, str(HERE / "exact_resume.py"), "--runs", "5", "--seed", "1"]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "5 of 5 byte-identical" in found.stdout
