"""Which sample comes when: a resumable training order and an exact validation split.

Both derive from `DistributedSampler` only so that Lightning does not replace them under DDP.
"""

import random
from collections.abc import Iterator, Sized
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
        self.epoch_batches = len(samples) // (batch_size * world_size)
        self.start = 0
        if self.epoch_batches == 0:
            ranks = f" on {world_size} ranks" if world_size > 1 else ""
            raise DataError(
                f"batch_size {batch_size}{ranks} needs {batch_size * world_size} training samples, "
                f"found {len(samples)}; lower data.batch_size to at most {len(samples) // world_size}"
            )

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
        seed = random.Random(f"{self.seed}:{epoch}").getrandbits(63)
        return torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(seed)).tolist()

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
