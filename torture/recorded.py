"""A training that writes down which pictures each step computes: RECORD/<rank>.jsonl, one line a step.

RECORD=folder torchrun --nproc-per-node 2 torture/recorded.py train --data ...
"""

import json
import os
import sys
from pathlib import Path

from mixlab.cli.main import main
from mixlab.ranks import ALONE
from mixlab.training import loop

taken = loop.train_step


def written_down(state, experiment, spec, batch, rate, ranks=ALONE) -> None:
    parts = ranks.own_parts(len(batch.whole), experiment.parts)
    own = (batch.places >= parts[0].start) & (batch.places < parts[-1].stop)
    line = {"step": state.step, "pictures": batch.indices[own].tolist()}
    with (Path(os.environ["RECORD"]) / f"{ranks.rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    taken(state, experiment, spec, batch, rate, ranks)


if __name__ == "__main__":
    loop.train_step = written_down
    sys.exit(main())
