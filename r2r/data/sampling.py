"""Which sample comes when: resumable training orders and exact validation splits, plain or bucket by bucket.

All derive from `DistributedSampler` only so that Lightning does not replace them under DDP.
"""

import math
import random
from collections.abc import Iterator, Sequence, Sized
from itertools import chain, count, islice
from typing import NamedTuple

import torch
from torch.utils.data import DistributedSampler

from r2r.errors import DataError


class Draw(NamedTuple):
    """Sample `index` at `place` in the training stream; place None means evaluation."""

    index: int
    place: int | None


class TrainSampler(DistributedSampler[Draw]):
    """Epochs of fresh permutations, cut into global batches; `start` is the first batch to deliver.

    Batch k is decided by (seed, k, batch_size x world_size) alone: epoch `k // epoch_batches`, then a slice of that
    epoch's permutation, of which each rank takes its part. An epoch has `samples // (batch_size x world_size)` batches;
    the remainder, another one each epoch, is left out.
    Raises: DataError when there are fewer samples than one global batch.
    """

    def __init__(self, samples: Sized, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(samples, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.samples, self.batch_size, self.world_size = samples, batch_size, world_size
        self.epoch_batches = _epoch_batches(len(samples), batch_size, world_size)
        self.start = 0

    def __len__(self) -> int:
        return self.epoch_batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = -1, []
        for batch in range(self.start, self.start + self.epoch_batches):
            if batch // self.epoch_batches != epoch:
                epoch = batch // self.epoch_batches
                order = self._order(epoch)
            yield from self._batch(batch, order)

    def _order(self, epoch: int) -> list[int]:
        return _permutation(len(self.samples), f"{self.seed}:{epoch}")

    def _batch(self, batch: int, order: list[int]) -> Iterator[Draw]:
        first = (batch * self.world_size + self.rank) * self.batch_size
        skipped = (batch // self.epoch_batches) * self.epoch_batches * self.world_size * self.batch_size
        return (Draw(order[place - skipped], place) for place in range(first, first + self.batch_size))


class ValidationSampler(DistributedSampler[Draw]):
    """Every sample once, in order; rank r takes samples r, r + world_size, ...

    Ranks must run equally many batches (DDP hangs otherwise), so a rank that would run one fewer repeats its last
    sample as a batch of its own; that happens only when `(samples // world_size) % batch_size == 0` and
    `samples % world_size > 0`. Raises: DataError when a rank would have no sample.
    """

    def __init__(self, samples: Sized, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(samples, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        if len(samples) < world_size:
            raise DataError(
                f"{len(samples)} validation samples for {world_size} ranks; use at most {len(samples)} ranks"
            )
        self.indices = list(range(rank, len(samples), world_size))
        longest = -(-len(samples) // world_size)
        if -(-len(self.indices) // batch_size) < -(-longest // batch_size):
            self.indices.append(self.indices[-1])

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(index, None) for index in self.indices)


class BucketSampler(DistributedSampler[Draw]):
    """Training batches of one bucket each, the same one on all ranks; `start` is the first batch to deliver.

    A bucket's samples come in rounds, each a fresh permutation, which follow one another without a gap and are cut into
    global batches. Epoch e has those batches of a bucket of n samples that its first `e * n` draws do not fill and its
    first `(e + 1) * n` do, in an order of buckets drawn anew. So nothing is left out: after e epochs no sample
    was shown more than e times, nor fewer than `e - ceil(batch_size * world_size / n)`. A global batch repeats a sample
    only where its bucket has too few to fill it (`repeating`). Batch k is decided by seed, k and the global batch.

    A loader ends after as many batches as with `TrainSampler`, wherever that is in an epoch; the next goes on there.
    Raises: DataError when there are fewer samples than one global batch.
    """

    def __init__(
        self, buckets: Sequence[str], batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        """`buckets` names the bucket of every sample."""
        super().__init__(buckets, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.batch_size, self.global_batch = batch_size, batch_size * world_size
        self.epoch_batches = _epoch_batches(len(buckets), batch_size, world_size)
        self.buckets = _members(buckets)
        self.start = 0

    def __len__(self) -> int:
        return self.epoch_batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.start * self.global_batch // sum(map(len, self.buckets.values()))  # begins at `start` or before
        begun = sum(epoch * len(samples) // self.global_batch for samples in self.buckets.values())
        batches = islice(chain.from_iterable(map(self._epoch, count(epoch))), self.start - begun, None)
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for number, batch in zip(range(self.start, self.start + self.epoch_batches), batches, strict=False):
            yield from map(Draw, batch[own], count(number * self.global_batch + own.start))

    @property
    def repeating(self) -> dict[str, int]:
        """Buckets that cannot fill a global batch without repeating samples, and how many these are."""
        return {name: len(samples) for name, samples in self.buckets.items() if len(samples) < self.global_batch}

    def _epoch(self, epoch: int) -> list[list[int]]:
        parts = {bucket: self._batches(bucket, epoch) for bucket in self.buckets}
        order = [bucket for bucket, batches in parts.items() for _ in batches]
        random.Random(f"{self.seed}:{epoch}").shuffle(order)
        waiting = {bucket: iter(batches) for bucket, batches in parts.items()}
        return [next(waiting[bucket]) for bucket in order]

    def _batches(self, bucket: str, epoch: int) -> list[list[int]]:
        size, step = len(self.buckets[bucket]), self.global_batch
        first, end = (draws // step * step for draws in (epoch * size, (epoch + 1) * size))
        rounds = range(first // size, -(-end // size))
        drawn = [sample for number in rounds for sample in self._round(bucket, number)]
        return [drawn[place : place + step] for place in range(first % size, first % size + end - first, step)]

    def _round(self, bucket: str, number: int) -> list[int]:
        """The order of a round; samples that ended the round before, in the batch that it shares with this, come late.

        An order so depends on the one before, back to where a round begins with a batch; of a bucket of two batches or
        more, the end of a round depends on nothing.
        """
        samples, step = self.buckets[bucket], self.global_batch
        aligned = number % (step // math.gcd(step, len(samples)))
        first = number - (min(aligned, 1) if len(samples) >= 2 * step else aligned)
        order: list[int] = []
        for each in range(first, number + 1):
            ended = set(order[max(0, len(samples) - each * len(samples) % step) :])
            order = [samples[i] for i in _permutation(len(samples), f"{self.seed}:{bucket}:{each}")]
            order = sorted(order[:step], key=ended.__contains__) + order[step:]
        return order


class BucketValidationSampler(DistributedSampler[list[Draw]]):
    """Every sample once, in batches of one bucket each, a bucket's last one perhaps smaller.

    Rank r takes a bucket's samples r, r + world_size, ...; a rank that would run one batch fewer of a bucket than
    others repeats a sample of it as a batch of its own. Buckets are spread evenly, so that the first batches show all.
    """

    def __init__(self, buckets: Sequence[str], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        """`buckets` names the bucket of every sample."""
        super().__init__(buckets, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        parts = [_rank_batches(each, batch_size, rank, world_size) for each in _members(buckets).values()]
        spread = [((i + 0.5) / len(part), batch) for part in parts for i, batch in enumerate(part)]
        self.batches = [batch for _, batch in sorted(spread, key=lambda placed: placed[0])]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return ([Draw(index, None) for index in batch] for batch in self.batches)


def _members(buckets: Sequence[str]) -> dict[str, list[int]]:
    """The places of each bucket's samples, buckets in the order of their names."""
    found: dict[str, list[int]] = {name: [] for name in sorted(set(buckets))}
    for place, name in enumerate(buckets):
        found[name].append(place)
    return found


def _rank_batches(samples: Sequence[int], batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    own = samples[rank::world_size]
    batches = [[*own[first : first + batch_size]] for first in range(0, len(own), batch_size)]
    most = -(-len(samples) // (world_size * batch_size))
    return batches + [[(own or samples)[-1]]] * (most - len(batches))


def _epoch_batches(samples: int, batch_size: int, world_size: int) -> int:
    if samples < batch_size * world_size:
        ranks = f" on {world_size} ranks" if world_size > 1 else ""
        raise DataError(
            f"batch_size {batch_size}{ranks} needs {batch_size * world_size} training samples, "
            f"found {samples}; lower data.batch_size to at most {samples // world_size}"
        )
    return samples // (batch_size * world_size)


def _permutation(size: int, name: str) -> list[int]:
    seed = random.Random(name).getrandbits(63)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
