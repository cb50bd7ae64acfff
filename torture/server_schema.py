"""V11: requests drawn from openapi.json, and from its opposite; each answer must be as the schema says."""

from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from torture.check import Check
from torture.served import shared

EXAMPLES = 40  # of each address in a case
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


def drawn(number: int, root: Path) -> str:
    """Ask every address, with good values in even cases and with wrong ones in odd ones."""
    mode = GenerationMode.NEGATIVE if number % 2 else GenerationMode.POSITIVE
    schema: Any = schemathesis.openapi.from_url(f"http://127.0.0.1:{shared().port}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            _ask(operation, mode, number)
        except (FailureGroup, AssertionError) as error:
            return f"{operation.label}: {str(getattr(error, 'exceptions', [error])[0])[:500]}"
        except Unsatisfiable:  # nothing about this address can be wrong
            continue
    return ""


def _ask(operation: Any, mode: GenerationMode, seed: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=SLOW)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code == 503, response.text  # noqa: S101
        case.validate_response(response, excluded_checks=[positive_data_acceptance])  # most files are no pictures

    ask()


CHECKS = [
    Check(
        name="V11",
        claim="requests drawn from openapi.json, right ones and wrong ones, get no 5xx and what the schema says",
        case=drawn,
        full=20,
        sample=2,
    )
]
