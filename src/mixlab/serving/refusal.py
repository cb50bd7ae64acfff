"""A request that is not answered: a status, and one line that says why."""

import json
from typing import Any

from mixlab.errors import MixlabError
from mixlab.run.table import one_line

RETRY_AFTER = 1  # seconds


class Refusal(MixlabError):
    """The answer to a request that gets no other one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def body(self) -> bytes:
        return error_body(str(self))

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(RETRY_AFTER)} if self.status == 503 else {}


def busy(why: str) -> Refusal:
    return Refusal(503, f"{why}; try again in {RETRY_AFTER} second")


def error_body(message: str, **more: Any) -> bytes:
    """Return the JSON of every error."""
    return json.dumps({"error": one_line(message), **more}, ensure_ascii=False).encode("utf-8", "replace")
