"""Orders: decided by seed and batch number alone, split over ranks, resumable."""

from collections import Counter

import pytest

from r2r.data.sampling import Draw, TrainSampler, ValidationSampler
from r2r.errors import DataError


def draws(start: int = 0, **options) -> list[Draw]:
    sampler = TrainSampler(range(23), **{"batch_size": 3, "seed": 5} | options)
    sampler.start = start
    return list(sampler)


def test_an_epoch_never_repeats_a_sample_and_the_next_is_ordered_anew() -> None:
    first, second = draws(), draws(start=7)
    assert len(first) == len(second) == 21
    assert max(Counter(draw.index for draw in first).values()) == 1
    assert [d.index for d in first] != [d.index for d in second]


def test_the_order_is_that_of_earlier_releases() -> None:
    sampler = TrainSampler(range(10), 3, seed=5)
    sampler.start = 2
    assert [draw.index for draw in sampler] == [9, 4, 3, 6, 8, 0, 3, 1, 2]


def test_the_seed_decides() -> None:
    assert draws() == draws()
    assert draws() != draws(seed=6)


@pytest.mark.parametrize("start", [1, 6, 7, 16])
def test_starting_later_continues_the_same_stream(start: int) -> None:
    straight = [draw for epoch in range(4) for draw in draws(start=epoch * 7)]
    assert draws(start=start) == straight[start * 3 : (start + 7) * 3]


def test_ranks_share_the_global_batches_of_one_process() -> None:
    ranks = [draws(rank=rank, world_size=2) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 9
    assert not {d.index for d in ranks[0]} & {d.index for d in ranks[1]}
    together = [draw for k in range(3) for rank in ranks for draw in rank[3 * k : 3 * k + 3]]
    assert together == draws(batch_size=6)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(DataError, match=r"batch_size 8 on 3 ranks needs 24 .* found 23.* at most 7"):
        TrainSampler(range(23), batch_size=8, world_size=3)


@pytest.mark.parametrize("count", range(3, 14))
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_covers_everything_in_equally_many_batches(count: int, world_size: int) -> None:
    ranks = [[d.index for d in ValidationSampler(range(count), 2, rank, world_size)] for rank in range(world_size)]
    seen = Counter(index for rank in ranks for index in rank)
    assert set(seen) == set(range(count))
    assert len({-(-len(rank) // 2) for rank in ranks}) == 1
    repeats_needed = world_size > 1 and (count // world_size) % 2 == 0 and count % world_size > 0
    assert (max(seen.values()) == 1) is not repeats_needed


def test_fewer_validation_samples_than_ranks_are_refused() -> None:
    with pytest.raises(DataError, match="2 validation samples for 3 ranks"):
        ValidationSampler(range(2), 1, world_size=3)
