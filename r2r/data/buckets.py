"""Buckets of aspect ratios: pictures are shown whole, or nearly so, and a batch still has one shape.

SDXL (arXiv:2307.01952), section 2.3, multi-aspect training.

Deviations
- SDXL lists its sizes, up to 1:4; here they follow from resolution, step and ratio.
- How SDXL orders its batches is not public; see `r2r.data.sampling.BucketSampler`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.progress import track

from r2r.data.samples import Sample
from r2r.data.views import Geometry, image_size
from r2r.errors import InputError

MANY = 2000  # pictures whose sizes take long enough to read for a progress bar


@dataclass(frozen=True)
class Buckets:
    """Which sizes there are: sides are multiples of `step`, neither longer than `max_ratio` times the other.

    `step` is a multiple of the model's `size_multiple`: 64 suits full-size models, 16 the tiny one.
    Raises: InputError for a ratio below 1 or a step that is not positive.
    """

    max_ratio: float = 2.0
    step: int = 64

    def __post_init__(self) -> None:
        if not self.max_ratio >= 1:
            raise InputError(f"data.buckets.max_ratio={self.max_ratio} must be at least 1, which is squares alone")
        if self.step < 1:
            raise InputError(f"data.buckets.step={self.step} must be at least 1; 64 suits full-size models")

    def sizes(self, resolution: tuple[int, int]) -> list[tuple[int, int]]:
        """Widths and heights, narrow to wide, of at most the area of `resolution`; none fits into another one.

        Raises: InputError when the area has no room for a square of `step`.
        """
        room, found, tallest = resolution[0] * resolution[1] // self.step**2, list[tuple[int, int]](), 0
        for width in range(int(min(room, math.sqrt(room * self.max_ratio))), 0, -1):
            height = int(min(room // width, width * self.max_ratio))
            if height > tallest and width <= height * self.max_ratio:
                found.append((width * self.step, height * self.step))
                tallest = height
        if not found:
            raise InputError(
                f"data.resolution={[*resolution[::-1]]} has no room for a square of data.buckets.step={self.step}; "
                "lower the step or raise the resolution"
            )
        return found[::-1]

    def check(self, geometry: Geometry, view: str, streamed: bool) -> None:
        """Raises: InputError for what buckets do not go with, or as `sizes`."""
        if view != "image" or streamed or geometry.window is not None:
            given = f"data.view={view}" if view != "image" else "streamed shards" if streamed else "data.random_crop"
            raise InputError(
                "data.buckets is for data.view=image of files or local shards without data.random_crop, "
                f"not for {given}; leave data.buckets=null there"
            )
        self.sizes(geometry.size)

    def place(self, samples: Sequence[Sample], resolution: tuple[int, int]) -> list[Sample]:
        """Each sample with the `size` of its bucket, the one of the nearest ratio by the logarithm.

        Raises: InputError as `sizes`; DataError for an image whose header cannot be read.
        """
        sizes = self.sizes(resolution)
        shown = track(samples, "reading image sizes", disable=len(samples) < MANY)
        return [replace(sample, size=nearest(image_size(sample), sizes)) for sample in shown]


def bucket_names(samples: Sequence[Sample]) -> list[str]:
    """Width and height of each sample's bucket, as "96x160"; the samples have been placed."""
    return ["x".join(map(str, sample.size or ())) for sample in samples]


def nearest(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of widths and heights, the one whose ratio is nearest to that of `size`; the first of equals."""
    return min(sizes, key=lambda each: abs(math.log(each[0] * size[1] / (each[1] * size[0]))))
