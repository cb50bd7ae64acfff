"""Training steps at one batch size: images a second, page faults and memory, where freed memory is kept or given back.

    python benchmarks/large_batches.py [MODEL] [--batch-size 512] [--image-size 32] [--give-back] [--warm-up 12]

--give-back is what malloc does with blocks above 32 MiB unless mixlab asks otherwise. A process each, on an idle
machine; Linux with glibc.
"""

import argparse
import ctypes
import resource
import time

import torch
from torch.nn import functional

from mixlab.kernels import library
from mixlab.models.catalogue import create_model

STEPS = 3
MMAP_MAX, MMAP_MAX_DEFAULT, MMAP_THRESHOLD = -4, 65536, -3  # of mallopt(3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="convmixer_256_8")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--give-back", action="store_true")
    parser.add_argument("--warm-up", type=int, default=12)
    asked = parser.parse_args()
    library.library()
    if asked.give_back:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, MMAP_MAX_DEFAULT)
        mallopt(MMAP_THRESHOLD, 2**25)  # the highest that glibc takes
    torch.manual_seed(0)
    model = create_model(asked.model, num_classes=10)
    images = torch.rand(asked.batch_size, 3, asked.image_size, asked.image_size)
    images, labels = images.contiguous(memory_format=torch.channels_last), torch.arange(asked.batch_size) % 10
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    for _ in range(asked.warm_up):
        step()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds, after = (time.perf_counter() - started) / STEPS, resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{asked.batch_size / seconds:.1f} img/s, {(after.ru_minflt - before.ru_minflt) / STEPS:,.0f} page faults and "
        f"{(after.ru_stime - before.ru_stime) / STEPS:.2f} s of the system a step, {after.ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
