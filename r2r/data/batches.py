"""What workers make of draws: samples behind a view, one by one or a batch at a time."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, default_collate

from r2r.data.samples import Sample
from r2r.data.sampling import Draw
from r2r.data.views import View


class SampleDataset(Dataset[dict[str, Any]]):
    """Indexed samples behind a view; asked by `Draw`, so that what is random follows the place in the stream."""

    def __init__(self, samples: Sequence[Sample], view: View) -> None:
        self.samples, self.view = samples, view

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return self.view(self.samples[draw.index], draw.place)


class SampleBatches(Dataset[dict[str, Any]]):
    """Whole batches of indexed samples, where batches differ in length."""

    def __init__(self, samples: SampleDataset) -> None:
        self.samples = samples

    def __getitem__(self, draws: list[Draw]) -> dict[str, Any]:
        return default_collate([self.samples[draw] for draw in draws])
