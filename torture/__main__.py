"""The command line: `python -m torture`."""

import argparse
import os
import sys

from torture import sheet
from torture.catalogue import CHECKS
from torture.check import outcomes, run_missing, score


def main() -> int:
    """Run checks; 3 where a case failed, as `mixlab` does for a check that did not pass."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"any of {', '.join(c.name for c in CHECKS)}")
    parser.add_argument("--sample", action="store_true", help="only the cases that .ci/run takes")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="cases at once, but of checks that measure time (the cores)"
    )
    parser.add_argument("--sheet", action="store_true", help=f"write {sheet.PLACE} from the results; run nothing")
    chosen = parser.parse_args()
    unknown = set(chosen.checks) - {check.name for check in CHECKS}
    if unknown:
        parser.error(f"there is no check {', '.join(sorted(unknown))}; known: {', '.join(c.name for c in CHECKS)}")
    if chosen.sheet:
        print(sheet.write())
        return 0
    failed = False
    for check in CHECKS:
        if chosen.checks and check.name not in chosen.checks:
            continue
        cases = check.sample if chosen.sample else check.full
        for outcome in run_missing(check, cases, chosen.jobs):
            if outcome.problem:
                print(f"{check.name}  case {outcome.number}: {outcome.problem}", flush=True)
        found = [outcome for outcome in outcomes(check) if outcome.number < cases]
        failed |= any(outcome.problem for outcome in found)
        print(f"{check.name:<4} {score(check, found):>15}  {check.claim}", flush=True)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
