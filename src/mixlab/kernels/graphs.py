"""Work on a GPU as one graph (cudaGraph): a small network's kernels take less time than their launches.

Only work of the same shapes is the same graph. A graph reads and writes the same memory each time: what it is given is
copied to where it reads, gradients are handed over as they lie. Random numbers are those of the generator as it is
seeded when the graph is run.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mixlab.errors import first_line
from mixlab.kernels import library

WARM_UP = 2  # runs before the last one that is not captured: libraries choose their kernels in them, and so do we
Work = Callable[..., None]  # of tensors; adds gradients to a model's parameters


def is_usable(device: torch.device) -> bool:
    """Return whether work on a device can be a graph; MIXLAB_KERNELS=stock turns graphs off too."""
    return device.type == "cuda" and library.is_on()


def captured(work: Work, given: Sequence[Tensor], model: nn.Module, kept: Sequence[Tensor] = ()) -> Work:
    """Return what does the same as `work`, to the last bit, on any tensors of the shapes of those given.

    Where it cannot be a graph, it is `work` itself. Nothing is changed by the capture; gradients are None after it.

    Args:
        work: must not wait for the GPU, nor seed a generator.
        model: its gradients are None whenever the work is done; its buffers may be changed in place.
        kept: what else is changed in place.
    """
    changed = [*model.buffers(), *kept]
    before = [tensor.clone() for tensor in changed]
    held = [tensor.clone() for tensor in given]
    number = held[0].get_device()
    try:
        with torch.cuda.device(number):
            graph, gradients = _capture(work, held, model)
    except RuntimeError as error:
        warnings.warn(f"training steps are not captured in a graph: {first_line(error)}", stacklevel=2)
        return work
    finally:
        _forget_gradients(model)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)

    def replay(*tensors: Tensor) -> None:
        for place, tensor in zip(held, tensors, strict=True):
            place.copy_(tensor)
        with torch.cuda.device(number):
            graph.replay()
        for parameter, gradient in gradients:
            parameter.grad = gradient

    return replay


def _capture(
    work: Work, held: Sequence[Tensor], model: nn.Module
) -> tuple[torch.cuda.CUDAGraph, list[tuple[nn.Parameter, Tensor]]]:
    """Do the work until nothing new happens in it, on a stream of its own as torch asks for, then capture it.

    Not by torch.cuda.graph: it leaves its stream the current one where a capture fails.
    """
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                _forget_gradients(model)
                work(*held)
            _forget_gradients(model)
            with _refusing_to_wait():
                work(*held)
            _forget_gradients(model)  # those of the graph lie in its own memory
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work(*held)
            finally:
                graph.capture_end()
    finally:
        current.wait_stream(stream)
    return graph, [(each, each.grad) for each in model.parameters() if each.grad is not None]


@contextlib.contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Make an error of waiting for the GPU: what fails while it is captured leaves torch's memory in disorder."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")  # it may miss some, says torch
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _forget_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None
