"""The quick cases of every check of `torture` in the fast suite, its samples in the slow one."""

from pathlib import Path

import pytest

from torture import sheet
from torture.catalogue import CHECKS
from torture.check import ROOT, Check, run
from torture.sabotage import SABOTAGES


@pytest.mark.parametrize(
    ("check", "number"),
    [pytest.param(check, number, id=f"{check.name}-{number}") for check in CHECKS for number in range(check.quick)],
)
def test_quick_cases_hold(check: Check, number: int):
    assert run(check, number).problem == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("check", "number"),
    [
        pytest.param(check, number, id=f"{check.name}-{number}", marks=[pytest.mark.alone] if check.alone else [])
        for check in CHECKS
        for number in range(check.quick, check.sample)
    ],
)
def test_sampled_cases_hold(check: Check, number: int):
    assert run(check, number).problem == ""


def test_a_failing_case_is_a_problem_and_so_is_an_error_of_the_case():
    def broken(number: int, folder: Path) -> str:
        return str(1 // number)

    check = Check("X", "a claim", broken, full=2, sample=2)
    assert "ZeroDivisionError" in run(check, 0).problem
    assert run(check, 1).problem == "1"


def test_each_check_has_one_name_and_more_cases_the_longer_it_runs():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.quick <= check.sample <= check.full for check in CHECKS)


@pytest.mark.parametrize("fault", SABOTAGES, ids=lambda fault: fault["fault"])
def test_each_sabotage_still_fits_its_source(fault: dict):
    source = (ROOT / "src" / "mixlab" / fault["file"]).read_text(encoding="utf-8")
    assert source.count(fault["old"].strip("\n")) == 1


def test_the_sheet_has_a_row_for_each_check():
    text = (sheet.ROOT / sheet.PLACE).read_text(encoding="utf-8")
    assert all(f"| {check.name} |" in text for check in CHECKS)
