"""Cached features equal fresh ones; the second call decodes nothing and runs nothing; bad files are written anew."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r2r.errors import InputError
from r2r.metrics.backbones import Backbone
from r2r.metrics.features import FeatureCache


class Counted(Sequence[Tensor]):
    """Images that say how often they were decoded."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images, self.decoded = list(images), 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        self.decoded += 1
        return self.images[index]

    def __iter__(self) -> Iterator[Tensor]:
        raise AssertionError("decoded all at once")


class Network(torch.nn.Module):
    """Means per channel, with the batches it has seen."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.scale * images.mean((2, 3))


@pytest.fixture
def images() -> Counted:
    """Two sizes in turns."""
    draws = torch.Generator().manual_seed(0)
    return Counted([torch.rand(3, 4 + index % 2, 6, generator=draws) * 2 - 1 for index in range(7)])


IDS = [f"content{index}" for index in range(7)]


def test_features_follow_the_order_of_images_of_any_size(images: Counted) -> None:
    expected = torch.stack([image.mean((1, 2)) for image in images.images])
    for batch_size in (1, 2, 3, 32):
        features = FeatureCache(None, batch_size).features(Backbone("means", Network()), images, IDS)
        assert torch.allclose(features, expected)


def test_batches_hold_one_size_and_stay_bounded(images: Counted) -> None:
    network = Network()
    FeatureCache(None, 4).features(Backbone("means", network), images)
    assert sorted(network.seen) == [(2, 3, 4, 6), (2, 3, 4, 6), (3, 3, 5, 6)]
    assert images.decoded == 7


def test_second_call_decodes_nothing_and_runs_nothing(images: Counted, tmp_path: Path) -> None:
    for cache in (FeatureCache(None), FeatureCache(tmp_path)):
        network = Network()
        backbone = Backbone("means", network)
        first, work = cache.features(backbone, images, IDS), (images.decoded, len(network.seen))
        assert torch.equal(first, cache.features(backbone, images, IDS))
        assert work == (images.decoded, len(network.seen))


def test_next_run_reads_the_file(images: Counted, tmp_path: Path) -> None:
    network = Network()
    first = FeatureCache(tmp_path / "new" / "folder").features(Backbone("means", network), images, IDS)
    untouched = Counted(images.images)
    again = FeatureCache(tmp_path / "new" / "folder").features(Backbone("means", network), untouched, IDS)
    assert torch.equal(first, again)
    assert untouched.decoded == 0
    assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".safetensors"]


def test_anything_else_is_another_set(images: Counted, tmp_path: Path) -> None:
    cache, network = FeatureCache(tmp_path), Network()
    cache.features(Backbone("means", network), images, IDS)
    others = [
        (Backbone("mean", network), IDS),
        (Backbone("means", Network(2.0)), IDS),
        (Backbone("means", network, resize="to 8 px"), IDS),
        (Backbone("means", network), [*IDS[:-1], "changed"]),
        (Backbone("means", network), IDS[::-1]),
    ]
    for count, (backbone, ids) in enumerate(others, start=2):
        cache.features(backbone, images, ids)
        assert images.decoded == 7 * count
    assert len(list(tmp_path.iterdir())) == len(others) + 1


@pytest.mark.parametrize("damage", ["broken", "empty", "foreign", "short"])
def test_bad_files_are_written_anew(damage: str, images: Counted, tmp_path: Path) -> None:
    backbone = Backbone("means", Network())
    expected = FeatureCache(tmp_path).features(backbone, images, IDS)
    (file,) = tmp_path.iterdir()
    if damage in ("broken", "empty"):
        file.write_bytes(file.read_bytes()[:40] if damage == "broken" else b"")
    else:
        rows = torch.zeros(7 if damage == "foreign" else 3, 3)
        save_file({"features": rows}, file, {"key": "another set"} if damage == "foreign" else None)
    assert torch.equal(FeatureCache(tmp_path).features(backbone, images, IDS), expected)
    assert torch.equal(load_file(file)["features"], expected)
    assert images.decoded == 14


def test_without_ids_nothing_is_remembered(images: Counted, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        cache.features(Backbone("means", Network()), images)
    assert images.decoded == 14
    assert not list(tmp_path.iterdir())


def test_bad_calls_are_refused(images: Counted, tmp_path: Path) -> None:
    backbone = Backbone("means", Network())
    with pytest.raises(InputError, match="no images"):
        FeatureCache().features(backbone, [])
    with pytest.raises(InputError, match="2 ids for 7 images"):
        FeatureCache().features(backbone, images, IDS[:2])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can be written"):
        FeatureCache(tmp_path / "file")
    with pytest.raises(InputError, match="scale images"):
        FeatureCache().features(backbone, [torch.full((3, 4, 4), 255.0)])
