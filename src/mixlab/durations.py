"""Times as people write them."""

import re

from mixlab.errors import UsageError

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str, given: str) -> float:
    """Read a duration such as "90", "90s", "25m" or "1h30m", in seconds.

    Args:
        given: what a message shows, such as "--max-time 5x".

    Raises:
        UsageError: for anything else.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    found = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not found or "".join(number + unit for number, unit in parts) != text.strip():
        raise UsageError(f"{given}: expected a time such as 90s, 25m or 1h30m")
    return found
