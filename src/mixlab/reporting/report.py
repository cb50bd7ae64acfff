from pathlib import Path


def write_report(folder: Path, found) -> Path:
    return folder / "report.html"
