"""Streamed shards: deterministic, resumable with the same workers, refused when ranks outnumber shards."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from r2r.data import ImageDataModule
from r2r.data.samples import Sample
from r2r.data.shards import is_streamed, shard_addresses
from r2r.data.streams import Resampled, TrainStream
from r2r.errors import DataError, InputError
from tests.data.shard_writing import write_studio

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores are enough


@pytest.fixture
def address(tmp_path: Path) -> str:
    write_studio(tmp_path)
    (tmp_path / "val-0001.tar").write_bytes((tmp_path / "val-0000.tar").read_bytes())
    return f"pipe:cat {tmp_path}/{{split}}-{{0000..0001}}.tar"


def stream(address: str, **options) -> ImageDataModule:
    defaults = {"resolution": 8, "batch_size": 2, "num_workers": 0, "image_member": "photo.png", "epoch_samples": 10}
    data = ImageDataModule(address, shuffle_buffer=8, **defaults | options)
    data.setup()
    return data


class KeyView:
    """Shows the key alone."""

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return iter(samples)

    def __call__(self, sample: Sample, place: int | None) -> dict[str, str]:
        return {"key": sample.key}


def keys(data: ImageDataModule, batches: int) -> list[list[str]]:
    return [batch["key"] for batch in islice(data.train_dataloader(), batches)]


def test_addresses() -> None:
    assert is_streamed("https://host/{split}-0.tar") and is_streamed("pipe:cat x") and not is_streamed("/data/x")
    assert shard_addresses("https://h/{split}-{0..1}.tar", "val") == ["https://h/val-0.tar", "https://h/val-1.tar"]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_stream_resumes_exactly(address: str, workers: int) -> None:
    data = stream(address, num_workers=workers)
    straight = keys(data, 5)
    data.load_state_dict({"consumed_batches": 5})
    straight += keys(data, 5)
    assert straight[:5] != straight[5:]
    for consumed in (1, 3, 4):
        data.load_state_dict({"consumed_batches": consumed})
        assert keys(data, 5) == straight[consumed : consumed + 5]


def test_ranks_see_different_streams(address: str) -> None:
    source = Resampled(shard_addresses(address, "train"), buffer=8)
    ranks = [[item["key"] for item in TrainStream(source, KeyView(), 2, 20, rank, 2)] for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 10
    assert ranks[0] != ranks[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_shows_each_sample_once(address: str, workers: int) -> None:
    data = stream(address, num_workers=workers)
    shown = [key for batch in data.val_dataloader() for key in batch["key"]]
    assert sorted(shown) == sorted([f"val{i}" for i in range(5)] * 2)


def test_mixed_domains_stream_too(address: str) -> None:
    data = stream(address, image_member=["photo.png", "rendered.png"], caption_template=["a {caption}", "b {caption}"])
    suffixes = {key.split(".")[1] for batch in keys(data, 5) for key in batch}
    assert suffixes == {"photo", "rendered"}


def test_errors(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="epoch_samples=None"):
        stream(address, epoch_samples=None)
    with pytest.raises(DataError, match="more ranks than shards: 3 ranks, 2 shards"):
        TrainStream(Resampled(["a", "b"]), KeyView(), 1, 10, 0, 3)
    with pytest.raises(DataError, match=r"cannot stream pipe:cat .*gone"):
        stream(f"pipe:cat {tmp_path}/gone-{{split}}.tar 2>/dev/null")
    with pytest.raises(DataError, match=r"no \{split\}"):
        stream("https://host/train-0.tar")
