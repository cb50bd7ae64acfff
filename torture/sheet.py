"""The score sheet: docs/reliability.md, whose table is written from results and from nothing else."""

import os
import platform

from torture.catalogue import CHECKS
from torture.check import ROOT, Check, outcomes, score

PLACE = "docs/reliability.md"
BEGIN, END = "<!-- scores: written by python -m torture --sheet -->", "<!-- end of scores -->"


def write() -> str:
    """Put the results there are for today's sources between the marks; rows without results stay as they are."""
    path = ROOT / PLACE
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")}
    table = ["| | what each case shows | mixlab | others | cases | measured |", "|---|---|---|---|---|---|"]
    table += [_row(check) or rows.get(check.name) or _missing(check) for check in CHECKS]
    path.write_text("\n".join([before.rstrip("\n"), "", BEGIN, *table, END]) + after, encoding="utf-8")
    return PLACE


def _row(check: Check) -> str:
    """Return the row of a check, or "" where it has no results."""
    found = outcomes(check)
    if not found:
        return ""
    machine = f"{os.cpu_count()} cores, {platform.system()}"
    day = max(outcome.when for outcome in found)[:10]
    cases = "all" if len(found) == check.full else f"{len(found):,} of {check.full:,}"
    shown = f"**{score(check, found)}**"
    return f"| {check.name} | {check.claim} | {shown} | {check.others} | {cases} | {day}, {machine} |"


def _missing(check: Check) -> str:
    return f"| {check.name} | {check.claim} | not measured yet | {check.others} | 0 of {check.full:,} | |"
