"""How often a paired difference is claimed, between equal models and between unequal ones.

    python benchmarks/equal_models.py

Answers are simulated: one is right where skill + easiness + luck > 0. Each image has its easiness, N(1, 1.5), the same
for both models; each training has its skill, N(0, spread), with the effect added for the second model; each answer has
its luck, N(0, 0.7). Every simulation draws all of them anew, so its interval has to cover other images and other seeds.
"""

import argparse
import itertools
import json

import numpy as np

from mixlab.evaluation.paired import Difference, paired_difference

IMAGES, SEEDS, SPREADS = (359, 2000), (3, 5, 10), (0.0, 0.05, 0.2)


def simulate(generator: np.random.Generator, images: int, seeds: int, spread: float, effect: float) -> Difference:
    """Return what is said of two models, the second better by `effect` in skill."""
    easiness = generator.normal(1.0, 1.5, images)
    first, second = (
        [easiness + generator.normal(0, spread) + more + generator.normal(0, 0.7, images) > 0 for _ in range(seeds)]
        for more in (0.0, effect)
    )
    return paired_difference(first, second)


def cell(images: int, seeds: int, spread: float, effect: float, simulations: int, seed: int) -> dict[str, float]:
    """Return the shares of simulations that claim a difference, and the right one, and the mean difference."""
    generator = np.random.default_rng(seed)
    found = [simulate(generator, images, seeds, spread, effect) for _ in range(simulations)]
    return {
        "images": images,
        "seeds": seeds,
        "spread": spread,
        "effect": effect,
        "claims": float(np.mean([each.verdict != "within noise" for each in found])),
        "second_better": float(np.mean([each.verdict == "worse" for each in found])),
        "difference": -float(np.mean([each.value for each in found])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How often equal and unequal models are called different.")
    parser.add_argument("--simulations", type=int, default=200, help="of each cell")
    parser.add_argument("--effect", type=float, default=0.2, help="skill that the second of unequal models has more")
    parser.add_argument("--seed", type=int, default=0, help="of the simulations")
    parser.add_argument("--json", action="store_true", help="print each cell as one line of JSON")
    for name, kind, usual in (("images", int, IMAGES), ("seeds", int, SEEDS), ("spreads", float, SPREADS)):
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=usual, metavar="NUMBER")
    chosen = parser.parse_args()
    if not chosen.json:
        print("images  seeds  spread   equal, claimed   unequal, found   mean difference")
    for images, seeds, spread in itertools.product(chosen.images, chosen.seeds, chosen.spreads):
        equal, unequal = (
            cell(images, seeds, spread, effect, chosen.simulations, chosen.seed) for effect in (0.0, chosen.effect)
        )
        if chosen.json:
            print(json.dumps(equal), json.dumps(unequal), sep="\n", flush=True)
            continue
        shown = f"{equal['claims']:17.1%}{unequal['second_better']:17.1%}{100 * unequal['difference']:11.1f} points"
        print(f"{images:6,}{seeds:7}{spread:8}{shown}", flush=True)


if __name__ == "__main__":
    main()
