"""Scalars for TensorBoard, where it is installed."""

from collections.abc import Mapping

from mixlab.errors import UsageError
from mixlab.run.folder import Run


def require() -> None:
    """Raise UsageError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UsageError("--log tensorboard needs TensorBoard: pip install 'mixlab[tensorboard]'") from None


def log_epoch(run: Run, row: Mapping[str, float]) -> None:
    """Add one row of metrics.jsonl; rows that a resumed run repeats replace the old ones."""
    from torch.utils.tensorboard import SummaryWriter

    step = int(row["step"])
    with SummaryWriter(str(run.tensorboard), purge_step=step) as writer:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                writer.add_scalar(name.replace("_", "/", 1), value, step)
