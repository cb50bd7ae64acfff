"""mixlab trains, compares and ships patch-based image classifiers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlab.api import (
        Answer,
        Classifier,
        Comparison,
        Evaluation,
        Experiment,
        Explanation,
        RangeTest,
        Run,
        compare,
        create_model,
        evaluate,
        explain,
        export,
        find_learning_rate,
        import_weights,
        load,
        report,
        resume,
        train,
    )

__all__ = [
    "Answer",
    "Classifier",
    "Comparison",
    "Evaluation",
    "Experiment",
    "Explanation",
    "RangeTest",
    "Run",
    "compare",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "find_learning_rate",
    "import_weights",
    "load",
    "report",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that `mixlab --help` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'mixlab' has no attribute {name!r}")
    from mixlab import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
