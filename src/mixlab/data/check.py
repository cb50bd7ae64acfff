"""The data doctor: every picture of a data set is looked at once, and whatever may be wrong is named."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixlab.data import findings
from mixlab.data.catalogue import DataConfig, ShardsConfig
from mixlab.data.findings import Finding, Kind
from mixlab.data.look import Pictures, Watch, look
from mixlab.data.shard_index import damaged
from mixlab.data.stats import count_classes
from mixlab.errors import DataError
from mixlab.places import expand_user
from mixlab.spec import DataSpec

FailOn = Literal["exact", "near", "unreadable", "never"]
FAILURES: dict[FailOn, tuple[Kind, ...]] = {
    "exact": ("leak",),
    "near": ("leak", "near leak"),
    "unreadable": ("unreadable",),
    "never": (),
}


@dataclass(frozen=True)
class Check:
    """What was found."""

    data: str  # what runs call the data
    spec: DataSpec
    counts: dict[str, dict[str, int]]  # split -> class -> images
    unreadable: dict[str, str]  # file -> reason
    sizes: tuple[tuple[int, int], tuple[int, int]]  # (width, height) of the smallest and the largest picture
    turned: int  # pictures that EXIF turns
    not_square: float  # share of a picture's square that it does not fill, in the mean over all readable pictures
    stretched: float  # longer side over the shorter, the median: one very long picture says nothing of the others
    findings: tuple[Finding, ...]

    def failures(self, fail_on: FailOn) -> list[str]:
        """Return the findings for which a check is to fail."""
        return [finding.text for finding in self.findings if finding.kind in FAILURES[fail_on]]

    def as_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "counts": self.counts,
            "sizes": self.sizes,
            "turned_by_exif": self.turned,
            "resize_mode": self.spec.resize_mode,
            "resize_costs": {"crop_lost": self.not_square, "pad_filled": self.not_square, "squash": self.stretched},
            "unreadable": self.unreadable,
            "findings": [finding.as_json() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        parts = [f"{sum(of_class.values()):,} {split}" for split, of_class in self.counts.items()]
        (width, height), (right, bottom) = self.sizes
        size = f"{width} x {height}" + (f" to {right} x {bottom}" if self.sizes[0] != self.sizes[1] else "")
        found = [f"{'data':<11} {self.data}: {', '.join(parts)} pictures of {self.spec.num_classes} classes"]
        found.append(f"{'sizes':<11} {size} pixels, seen as {self.spec.image_size} x {self.spec.image_size}")
        found += [f"{'resize':<11} {self._costs()}"] if self.not_square else []
        found += [f"{'turned':<11} {self.turned:,} by EXIF, and used as displayed"] if self.turned else []
        if not self.findings:
            return [*found, f"{'in order':<11} nothing to report"]
        return [*found, "", *(line for finding in self.findings for line in finding.lines())]

    def _costs(self) -> str:
        share = f"{self.not_square:.1%}"
        costs = {
            "crop": f"crop cuts away a mean of {share} of the area",
            "pad": f"pad leaves a mean of {share} of the input empty",
            "squash": f"squash stretches the median picture {self.stretched:.2f} times",
        }
        chosen = costs.pop(self.spec.resize_mode)
        return f"{chosen}; {' and '.join(costs.values())}"


def check(
    config: DataConfig,
    workers: int,
    seed: int = 0,
    carve_validation: bool = True,
    watch: Watch = lambda seen, _: seen,
) -> Check:
    """Decode every picture of every split, as an experiment with this seed splits them.

    Args:
        watch: as for `look`.

    Raises:
        DataError: where the data set itself cannot be used.
    """
    data = config.load(seed, carve_validation)
    splits = {name: images for name, images in data.splits.items() if len(images)}
    counts = {name: count_classes(images, data.spec.classes) for name, images in splits.items()}
    pictures = look(splits, data.spec, workers, watch)
    if len(pictures.readable) == 0:
        name, reason = pictures.names[0], pictures.unreadable[0]
        raise DataError(f"not one of {len(pictures.names):,} pictures can be read, such as {name}: {reason}")
    return Check(
        config.label,
        data.spec,
        counts,
        {pictures.names[index]: reason for index, reason in pictures.unreadable.items()},
        _extremes(pictures),
        len(pictures.odd.get("turned by EXIF", [])),
        float((1 - 1 / findings.elongation(pictures)).mean()),
        float(np.median(findings.elongation(pictures))),
        (
            *findings.files(pictures, data.ignored),
            *findings.shards(damaged(expand_user(config.path)) if isinstance(config, ShardsConfig) else {}),
            *(findings.validation(counts) if carve_validation else ()),
            *findings.classes(counts, data.empty_classes),
            *findings.copies(pictures),
            *findings.shapes(pictures, data.spec.resize_mode),
        ),
    )


def _extremes(pictures: Pictures) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes = pictures.sizes[pictures.readable]
    by_area = sizes[sizes.prod(1).argsort(kind="stable")].tolist()
    return tuple(by_area[0]), tuple(by_area[-1])
