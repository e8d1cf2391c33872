"""Buckets: which sizes there are, one of them in a batch, and every picture as often as any other."""

import csv
import json
import math
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from r2r.cli import build, compose
from r2r.data import Buckets, ImageDataModule, UnpairedDataModule
from r2r.data.buckets import nearest
from r2r.data.sampling import BucketSampler, BucketValidationSampler, Draw, TrainSampler
from r2r.errors import DataError, InputError
from r2r.train import train
from tests.data.shard_writing import png, write_shard

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

BUCKETS = ["a"] * 11 + ["b"] * 2 + ["c"] * 29 + ["d"] * 6  # of 4: smaller, of one to two, and of more
SHAPES = {"tall": (40, 80), "wide": (90, 50), "square": (50, 50)}


def batches(start: int = 0, count: int = 12, **options: Any) -> list[list[Draw]]:
    """Batches from `start` on, of as many loaders as it takes."""
    sampler = BucketSampler(BUCKETS, **{"batch_size": 4, "seed": 3} | options)
    draws: list[Draw] = []
    while len(draws) < count * sampler.batch_size:
        sampler.start = start + len(draws) // sampler.batch_size
        draws += sampler
    return [draws[i : i + sampler.batch_size] for i in range(0, len(draws), sampler.batch_size)][:count]


def module(root: Path, **options: Any) -> ImageDataModule:
    settings: dict[str, Any] = {"layout": "folder", "resolution": 64, "batch_size": 3, "num_workers": 0}
    settings |= {"val_fraction": 0.25, "buckets": Buckets(step=16)}
    data = ImageDataModule(root, **settings | options)
    data.setup("fit")
    return data


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight of each shape, which their names tell; the colours differ."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, (shape, size) in enumerate(SHAPES.items()):
        for i in range(8):
            (folder / f"{shape}{i}.png").write_bytes(png((20 * place, 25 * i, 90), size))
            (folder / f"{shape}{i}.txt").write_text("a shirt")
    return folder


@pytest.mark.parametrize(
    ("resolution", "step"), [((1024, 1024), 64), ((512, 768), 64), ((128, 128), 16), ((100, 90), 8)]
)
@pytest.mark.parametrize("max_ratio", [1.0, 1.5, 2.0, math.inf])
def test_sizes_fill_the_area_within_the_ratios(resolution: tuple[int, int], step: int, max_ratio: float) -> None:
    area, sizes = resolution[0] * resolution[1], Buckets(max_ratio, step).sizes(resolution)
    assert {size[::-1] for size in sizes} == set(sizes)
    assert [w / h for w, h in sizes] == sorted(w / h for w, h in sizes)
    for size in sizes:
        assert not any(side % step for side in size)
        assert size[0] * size[1] <= area and max(size) <= max_ratio * min(size)
        others = [each for each in sizes if each != size]
        assert not any(each[0] >= size[0] and each[1] >= size[1] for each in others)


def test_known_sizes() -> None:
    assert {(1024, 1024), (1152, 896), (1216, 832), (1344, 768)} <= set(Buckets().sizes((1024, 1024)))  # SDXL's
    assert Buckets(max_ratio=1.0).sizes((512, 512)) == [(512, 512)]


def test_the_nearest_ratio_is_found_by_the_logarithm() -> None:
    sizes = [(100, 200), (100, 100), (200, 100)]
    assert nearest((10, 10), sizes) == nearest((141, 100), sizes) == nearest((100, 141), sizes) == (100, 100)
    assert nearest((142, 100), sizes) == nearest((9, 1), sizes) == (200, 100)
    assert nearest((100, 142), sizes) == (100, 200)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"batch_size": 2, "world_size": 3}, {"batch_size": 1}])
def test_every_batch_is_of_one_bucket_and_every_sample_comes_as_often(options: dict[str, int], seed: int) -> None:
    step = options.get("batch_size", 4) * options.get("world_size", 1)
    parts = [batches(count=400, seed=seed, rank=rank, **options) for rank in range(options.get("world_size", 1))]
    shown: Counter[int] = Counter()
    for done, together in enumerate(zip(*parts, strict=True), 1):
        drawn = [draw.index for part in together for draw in part]
        (bucket,) = {BUCKETS[index] for index in drawn}
        if BUCKETS.count(bucket) >= step:  # ranks share nothing, and no rank repeats a sample
            assert len(set(drawn)) == len(drawn)
        shown.update(drawn)
        for name in set(BUCKETS):
            counts = [shown[index] for index, each in enumerate(BUCKETS) if each == name]
            assert max(counts) - min(counts) <= 1
            epochs = done * step / len(BUCKETS)
            assert epochs - 2 - step / len(counts) < min(counts) and max(counts) < epochs + 3
    places = sorted(draw.place for part in parts for batch in part for draw in batch if draw.place is not None)
    assert places == list(range(400 * step))


def test_an_epoch_shows_nothing_twice_and_leftovers_come_in_the_next() -> None:
    sampler = BucketSampler(BUCKETS, 4)
    shown: Counter[int] = Counter()
    for epoch in range(1, 30):
        shown.update(index for batch in sampler._epoch(epoch - 1) for index in batch)
        for index, bucket in enumerate(BUCKETS):
            assert epoch - math.ceil(4 / BUCKETS.count(bucket)) <= shown[index] <= epoch


@pytest.mark.parametrize("start", [1, 11, 12, 30, 250])
def test_starting_later_continues_the_same_stream(start: int) -> None:
    assert batches(start) == batches(count=start + 12)[start:]
    assert batches(start) != batches(start, seed=4)
    ranks = [batches(start, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert [left + right for left, right in zip(*ranks, strict=True)] == batches(start)


def test_a_small_bucket_repeats_itself_and_is_told() -> None:
    assert BucketSampler(BUCKETS, 4).repeating == {"b": 2}
    assert BucketSampler(BUCKETS, 4, world_size=2).repeating == {"b": 2, "d": 6}
    small = [batch for batch in batches(count=48) if BUCKETS[batch[0].index] == "b"]
    assert len(small) in (1, 2, 3)  # 48 batches are four epochs, of two images each
    assert all(sorted(draw.index for draw in batch) == [11, 11, 12, 12] for batch in small)
    with pytest.raises(DataError, match=r"batch_size 8 on 7 ranks needs 56 .* found 48.* at most 6"):
        BucketSampler(BUCKETS, 8, world_size=7)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_covers_everything_in_equally_many_batches(world_size: int) -> None:
    ranks = [list(BucketValidationSampler(BUCKETS, 4, rank, world_size)) for rank in range(world_size)]
    seen = Counter(draw.index for rank in ranks for batch in rank for draw in batch)
    assert set(seen) == set(range(len(BUCKETS))) and sum(seen.values()) <= len(BUCKETS) + 4 * (world_size - 1)
    assert max(seen.values()) == 1 or world_size > 1
    for together in zip(*ranks, strict=True):
        assert len({BUCKETS[draw.index] for batch in together for draw in batch}) == 1
        assert all(len(batch) <= 4 for batch in together)
    assert {BUCKETS[batch[0].index] for batch in ranks[0][:-1]} == set(BUCKETS)


def test_pictures_come_in_the_shape_of_their_bucket(pictures: Path) -> None:
    data = module(pictures, horizontal_flip=True)
    shapes = {"tall": (80, 48), "wide": (48, 80), "square": (64, 64)}
    counts = Counter(sample.key[0] for sample in data.train_samples)
    assert data.describe()["buckets"] == {"48x80": counts["t"], "64x64": counts["s"], "80x48": counts["w"]}
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            (shape,) = {key.rstrip("0123456789.png") for key in batch["key"]}
            assert tuple(batch["image"].shape[2:]) == shapes[shape]
    assert sorted(key for batch in data.val_dataloader() for key in batch["key"]) == [s.key for s in data.val_samples]


def test_without_buckets_nothing_changes(pictures: Path) -> None:
    data = module(pictures, buckets=None)
    assert "buckets" not in data.describe() and {sample.size for sample in data.train_samples} == {None}
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    assert {tuple(batch["image"].shape) for batch in batches} == {(3, 3, 64, 64)}
    drawn = [data.view(data.train_samples[draw.index], draw.place) for draw in TrainSampler(data.train_samples, 3)]
    assert [key for batch in batches[:6] for key in batch["key"]] == [item["key"] for item in drawn]


def test_workers_and_resuming_give_the_straight_stream(pictures: Path) -> None:
    straight = module(pictures, caption_dropout=0.5, horizontal_flip=True)
    first = list(straight.train_dataloader())
    straight.load_state_dict({"consumed_batches": 6})
    first += list(straight.train_dataloader())
    resumed = module(pictures, caption_dropout=0.5, horizontal_flip=True, num_workers=2)
    resumed.load_state_dict({"consumed_batches": 4})
    for was, now in zip(first[4:], islice(resumed.train_dataloader(), 6), strict=False):
        assert was["key"] == now["key"] and was["caption"] == now["caption"]
        assert torch.equal(was["image"], now["image"])


def test_masks_are_cut_like_their_pictures(tmp_path: Path) -> None:
    halves = {}
    for name, size in SHAPES.items():
        image = Image.new("L", size)
        image.paste(255, (0, 0, size[0] // 2, size[1]))
        image.save(tmp_path / "half.png")
        halves[name] = (tmp_path / "half.png").read_bytes()
    samples = {f"{n}{i}": {"png": half, "mask.png": half} for i in range(5) for n, half in halves.items()}
    write_shard(tmp_path / "s" / "train-0.tar", samples)
    told = {"image_member": "png", "mask_member": "mask.png", "horizontal_flip": True, "layout": "shards"}
    for batch in module(tmp_path / "s", **told).train_dataloader():
        inside = (batch["image"][:, :1] > 0) == batch["garment_mask"]
        assert inside.float().mean() > 0.95  # a border column may differ: the picture is resized smoothly


def test_what_buckets_do_not_go_with_is_refused(pictures: Path) -> None:
    for options, named in (
        ({"view": "pairs"}, "data.view=pairs"),
        ({"random_crop": 32}, "data.random_crop"),
        ({"root": "https://x/{split}-0.tar", "layout": "shards"}, "streamed shards"),
    ):
        with pytest.raises(InputError, match=rf"data\.buckets is for .* not for {named}; leave data\.buckets=null"):
            ImageDataModule(**{"root": pictures, "buckets": Buckets()} | options)
    with pytest.raises(InputError, match=r"data\.resolution=\[32, 48\] has no room .*step=64"):
        ImageDataModule(pictures, resolution=[32, 48], buckets=Buckets())
    with pytest.raises(InputError, match=r"data\.buckets\.max_ratio=0\.5 must be at least 1"):
        Buckets(max_ratio=0.5)
    with pytest.raises(InputError, match=r"data\.buckets\.step=0 must be at least 1"):
        Buckets(step=0)

    def domain(**settings: Any) -> ImageDataModule:
        return ImageDataModule(pictures, "folder", buckets=Buckets(step=16), **settings)

    with pytest.raises(InputError, match=r"data\.source\.buckets=.*leave it null"):
        UnpairedDataModule(domain, domain)


def test_a_picture_without_a_header_is_named(pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"noise")
    with pytest.raises(DataError, match=r"not an image: .*broken\.png"):
        module(pictures, checked_samples=1)


def test_finetuning_on_pictures_of_three_shapes(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two batches to a step, cached latents, validation, previews, and a second half that goes on exactly."""
    settings = [
        *("experiment=fashion_dki", "model=tiny", "data=folder", f"data.root={pictures}", "model.resolution=64"),
        *("data.buckets={_target_: r2r.data.Buckets, step: 16}", "data.num_workers=0", "data.val_fraction=0.25"),
        *("data.batch_size=7", "task.cache_latents=true", "trainer.accelerator=cpu", "trainer.val_check_interval=4"),
        *("trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1", "callbacks.export=null"),
    ]
    for name, steps in (("straight", 4), ("halves", 2), ("halves", 4)):
        out = tmp_path / "runs" / name
        train(compose("train", [*settings, f"trainer.max_steps={steps}", f"paths.output_dir={out}", "resume=auto"]))
    assert "images for batches of 7 on all ranks: they come together, repeated" in caplog.text
    rows = {}
    for name in ("straight", "halves"):
        with (tmp_path / "runs" / name / "metrics.csv").open() as file:
            rows[name] = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert rows["straight"] == rows["halves"] and len(rows["straight"]) >= 4
    height, width = next(iter(module(pictures, batch_size=7).val_dataloader()))["image"].shape[2:]
    assert height != width
    for step in (0, 4):
        with Image.open(tmp_path / "runs" / "straight" / "samples" / f"step_{step:07d}.png") as grid:
            assert (grid.width - 2) % (width + 2) == 0 and (grid.height - 2) % (height + 2) == 0
    assert json.loads((tmp_path / "runs" / "straight" / "run.json").read_text())["status"] == "done"


def test_the_configs_know_buckets() -> None:
    for name in (
        "photos",
        "folder",
        "synfashion",
        "face_synthetics",
        "studio_photos",
        "studio_renders",
        "studio_mixed",
    ):
        given = [f"data={name}", "data.root=x", "data.buckets={_target_: r2r.data.Buckets, max_ratio: 1.5}"]
        assert compose("train", given[:2]).data.buckets is None
        assert build(compose("train", given).data).buckets == Buckets(1.5, 64)
