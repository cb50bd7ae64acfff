"""Scalars and images for TensorBoard, where it is installed."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixlab.errors import UsageError
from mixlab.evaluation import explanation
from mixlab.run.folder import Run

SHOWN = 64  # images or filters of one picture, at most
SIDE = 32  # pixels that each is enlarged to, at least nearly


def require() -> None:
    """Raise UsageError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UsageError("--log tensorboard needs TensorBoard: pip install 'mixlab[tensorboard]'") from None


def begin(run: Run, step: int) -> None:
    """Forget what an interrupted training logged after the step that this one starts from.

    From step 0 that is everything, so the files go: a note to forget could be read after what it is older than.
    """
    from torch.utils.tensorboard import SummaryWriter

    if step:
        SummaryWriter(str(run.tensorboard), purge_step=step + 1).close()
        return
    for path in run.tensorboard.iterdir():
        path.unlink()


def log_epoch(run: Run, row: Mapping[str, float]) -> None:
    """Add one row of metrics.jsonl: train/loss, validation/top1, ..., learning_rate."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.tensorboard)) as writer:
        for name, value in row.items():
            if name == "learning_rate":
                writer.add_scalar(name, value, int(row["step"]))
            elif name not in ("step", "epoch"):
                writer.add_scalar(name.replace("_", "/", 1), value, int(row["step"]))


def log_inputs(run: Run, images: Tensor) -> None:
    """Add a batch (batch, channels, side, side) in [0, 1], as the network sees it before it normalises."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.tensorboard)) as writer:
        writer.add_image("training batch", tile(images), 0)


def log_filters(run: Run, model: nn.Module, step: int) -> None:
    """Add pictures of what reads the pixels and of every depthwise kernel, each filter between its own extremes."""
    from torch.utils.tensorboard import SummaryWriter

    patches = explanation.patch_filters(model)
    found = {} if patches is None else {"patches": patches}
    found |= {name: kernels[:, None] for name, kernels in explanation.depthwise_kernels(model).items()}
    with SummaryWriter(str(run.tensorboard)) as writer:
        for name, weights in found.items():
            weight = torch.from_numpy(weights)
            lowest, highest = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
            writer.add_image(f"filters/{name}", tile((weight - lowest) / (highest - lowest).clamp(min=1e-12)), step)


def tile(images: Tensor) -> Tensor:
    """Lay the first 64 of (count, channels, height, width) out as one picture, white lines of 1 pixel between them.

    Small ones are enlarged by a whole factor; other than 1 or 3 channels become their mean.
    """
    images = images[:SHOWN].detach().cpu().float().clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    factor = max(SIDE // max(images.shape[2:]), 1)
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    framed = functional.pad(images, (1, 0, 1, 0), value=1.0)  # (count, channels, height + 1, width + 1)
    empty = framed.new_ones(rows * columns - len(framed), *framed.shape[1:])
    placed = torch.cat([framed, empty]).unflatten(0, (rows, columns))
    joined = placed.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)  # (channels, rows * height, columns * width)
    return functional.pad(joined, (0, 1, 0, 1), value=1.0)
