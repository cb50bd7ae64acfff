"""`mixlab doctor`."""

from pathlib import Path

import click

from mixlab.cli import common
from mixlab.errors import CheckFailed


@click.command(short_help="Check this machine.")
@common.out
@common.as_json
@common.quiet_warnings
def doctor(out: str, as_json: bool) -> None:
    """Say what is installed and at hand, and train, resume and compare a tiny model on the spot."""
    from mixlab import diagnosis

    found = diagnosis.examine(Path(out))
    if as_json:
        common.print_json({"findings": [row._asdict() for row in found]})
    else:
        common.print_table(["", "", ""], [["ok" if row.ok else "BAD", row.name, row.text] for row in found])
    bad = [row.name for row in found if not row.ok]
    if bad:
        raise CheckFailed(f"not in order: {', '.join(bad)}")
