"""Remote WebDataset shards as deterministic streams: shards drawn with replacement, an epoch of stated length.

Built on `webdataset.ResampledShards(deterministic=True)`; the splitting over ranks and workers is by seed.
"""

import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info
from webdataset.filters import shuffle
from webdataset.pipeline import DataPipeline
from webdataset.shardlists import ResampledShards, SimpleShardList
from webdataset.tariterators import tarfile_to_samples

from r2r.data.samples import LoadedPart, Sample
from r2r.data.views import View
from r2r.errors import DataError, InputError

Entries = Callable[[Iterable[Sample]], Iterator[Sample]]
"""What a view makes of the samples: which of them it takes, one or more entries for each."""


@dataclass(frozen=True)
class Resampled:
    """Shards drawn with replacement, samples shuffled in a buffer; equal lanes give equal streams, others differ."""

    shards: Sequence[str]
    entries: Entries = iter
    seed: int = 0
    buffer: int = 1000

    def __call__(self, lane: tuple[int, ...]) -> Iterator[Sample]:
        """Endless samples."""
        number = random.Random(f"{self.seed}:{lane}").getrandbits(31)
        shards = ResampledShards(list(self.shards), seed=number, worker_seed=lambda: 0, deterministic=True)
        samples = self.entries(_samples(shards))
        return shuffle(self.buffer, initial=self.buffer, rng=random.Random(number))(samples)


def in_order(shards: Sequence[str]) -> Iterator[Sample]:
    """Every sample of the shards once."""
    return _samples(SimpleShardList(list(shards)))


def first_entry(shards: Sequence[str], entries: Entries) -> Sample:
    """The first entry of the first shard. Raises: DataError when it has none or cannot be read."""
    try:
        return next(entries(in_order(shards[:1])))
    except StopIteration:
        raise DataError(f"{shards[0]} holds nothing for this view and half; check data.root and data.view") from None
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"cannot stream {shards[0]} ({error!r}); check data.root") from error


def _samples(shards: Any) -> Iterator[Sample]:
    for raw in DataPipeline(shards, tarfile_to_samples()):
        key, url = raw["__key__"], raw["__url__"]
        parts = {name: LoadedPart(f"{key}.{name} in {url}", raw[name]) for name in raw if not name.startswith("__")}
        yield Sample(key, parts)


class TrainStream(IterableDataset[dict[str, Any]]):
    """Streamed training items; `start` is the first batch to deliver.

    Batch k comes from lane `(k mod epoch) mod num_workers` of epoch `k // epoch`, whichever process reads it: with the
    same `num_workers` a resumed run equals a straight one, after skipping at most one epoch of undecoded samples.
    An epoch has `epoch_samples // (batch_size x world_size)` batches.
    Raises: DataError when there are more ranks than shards; InputError when an epoch holds no batch.
    """

    def __init__(
        self,
        source: Resampled,
        view: View,
        batch_size: int,
        epoch_samples: int | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(source.shards) < world_size:
            raise DataError(
                f"more ranks than shards: {world_size} ranks, {len(source.shards)} shards ({source.shards[0]} ...); "
                "use fewer devices, more shards, or a local copy, which is split by sample"
            )
        if (epoch_samples or 0) < batch_size * world_size:
            raise InputError(
                f"data.epoch_samples={epoch_samples}: streamed shards have no length, so say how many samples make an "
                f"epoch, at least {batch_size * world_size} (one batch on all ranks)"
            )
        self.source, self.view = source, view
        self.batch_size, self.epoch_batches = batch_size, (epoch_samples or 0) // (batch_size * world_size)
        self.rank, self.world_size = rank, world_size
        self.start = 0

    def __len__(self) -> int:
        return self.epoch_batches * self.batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        opened: tuple[int, int] | None = None
        samples: Iterator[Sample] = iter(())
        for batch in range(self.start + worker, self.start + self.epoch_batches, workers):
            epoch, offset = divmod(batch, self.epoch_batches)
            row, lane = divmod(offset, workers)
            if opened != (epoch, lane):
                opened = (epoch, lane)
                samples = islice(self.source((epoch, self.rank, lane)), row * self.batch_size, None)
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield from (self.view(sample, first + i) for i, sample in enumerate(islice(samples, self.batch_size)))


class ValidationStream(IterableDataset[dict[str, Any]]):
    """Each streamed sample once: every process reads all shards and keeps its stride of them.

    Ranks may differ by one batch, so validate on one device.
    """

    def __init__(self, shards: Sequence[str], entries: Entries, view: View, rank: int = 0, world_size: int = 1) -> None:
        self.shards, self.entries, self.view = shards, entries, view
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        samples = self.entries(in_order(self.shards))
        mine = islice(samples, self.rank * workers + worker, None, self.world_size * workers)
        return (self.view(sample, None) for sample in mine)


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
