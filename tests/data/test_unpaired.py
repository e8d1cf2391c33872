"""Two domains side by side: each in its own order, all of the validation, and early errors."""

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r2r.cli import build, compose
from r2r.data import ImageDataModule, UnpairedDataModule
from r2r.errors import DataError, InputError


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Ten red sources and six blue targets, their numbers in the green channel."""
    found = {}
    for name, count, colour in (("renders", 10, (255, 0)), ("photos", 6, (0, 255))):
        found[name] = tmp_path / name
        found[name].mkdir()
        for number in range(count):
            picture = Image.new("RGB", (20, 24), (colour[0], 20 * number, colour[1]))
            picture.save(found[name] / f"{number}.png")
    return found


def unpaired(folders: dict[str, Path], **settings: Any) -> UnpairedDataModule:
    options = {"layout": "folder", "val_fraction": 0.3, "caption_dropout": 0.0}
    domains = [partial(ImageDataModule, root=folders[name], **options) for name in ("renders", "photos")]
    data = UnpairedDataModule(*domains, resolution=16, num_workers=0, **settings)
    data.setup("fit")
    return data


def test_batches_hold_images_of_both_domains(folders: dict[str, Path]) -> None:
    data = unpaired(folders, batch_size=2, second_source=True)
    batch, _, _ = next(iter(data.train_dataloader()))
    assert set(batch) == {"source", "target", "second_source"}
    assert {name: tuple(part["image"].shape) for name, part in batch.items()} == dict.fromkeys(batch, (2, 3, 16, 16))
    for name, sign in (("source", 1), ("second_source", 1), ("target", -1)):
        assert (batch[name]["image"][:, 0] == sign).all()


def test_an_epoch_ends_with_the_shorter_domain_and_each_has_its_own_order(folders: dict[str, Path]) -> None:
    data = unpaired(folders, second_source=True)
    loader = data.train_dataloader()
    batches = [batch for batch, _, _ in loader]
    assert len(batches) == len(data.domains["target"].train_samples)
    keys = {name: [batch[name]["key"][0] for batch in batches] for name in ("source", "second_source")}
    assert keys["source"] != keys["second_source"]
    again = [batch["source"]["key"][0] for batch, _, _ in unpaired(folders).train_dataloader()]
    assert again == keys["source"]


def test_validation_shows_every_image_once(folders: dict[str, Path]) -> None:
    data = unpaired(folders)
    shown: Counter[str] = Counter()
    for batch, _, _ in data.val_dataloader():
        for name in ("source", "target"):
            shown.update(f"{name}/{key}" for key in (batch[name]["key"] if batch[name] else []))
    expected = {f"{n}/{s.key}" for n in ("source", "target") for s in data.domains[n].val_samples}
    assert set(shown) == expected and set(shown.values()) == {1}


def test_the_first_batch_is_drawn_for_each_domain(folders: dict[str, Path], tmp_path: Path) -> None:
    unpaired(folders).first_batch_grid(tmp_path / "first.png")
    assert {path.name for path in tmp_path.glob("first*.png")} == {"first_source.png", "first_target.png"}


def test_training_sees_random_parts_and_validation_the_whole(folders: dict[str, Path]) -> None:
    for place in folders["renders"].iterdir():  # pictures in which every place differs from its neighbours
        Image.radial_gradient("L").crop((0, 0, 100, 120)).resize((20, 24)).convert("RGB").save(place)
    data = unpaired(folders, random_crop=[8, 4], horizontal_flip=False)
    view, sample = data.domains["source"].view, data.domains["source"].train_samples[0]
    windows = view(sample, None)["image"].unfold(1, 8, 1).unfold(2, 4, 1)
    parts = [view(sample, place)["image"] for place in range(20)]
    assert {tuple(part.shape) for part in parts} == {(3, 8, 4)}
    found = [((windows - part[:, None, None]).abs().amax((0, 3, 4)) == 0).nonzero().tolist() for part in parts]
    assert all(len(places) == 1 for places in found) and len({tuple(places[0]) for places in found}) > 10
    assert view(sample, 7)["image"].equal(parts[7])
    batch, _, _ = next(iter(data.val_dataloader()))
    assert batch["source"]["image"].shape[2:] == (16, 16)


def test_a_part_must_fit(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"random_crop=\(32, 32\) does not fit"):
        unpaired(folders, random_crop=32)
    with pytest.raises(InputError, match=r"random_crop is for data\.view=image"):
        ImageDataModule(view="pairs", random_crop=32)


def test_a_batch_larger_than_a_domain_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="batch_size 8"):
        unpaired(folders, batch_size=8)


def test_the_config_takes_any_two_configs_of_images(folders: dict[str, Path]) -> None:
    settings = ["data=unpaired", "model=cut", "data@data.source=folder", "data@data.target=folder"]
    settings += [f"data.source.root={folders['renders']}", f"data.target.root={folders['photos']}"]
    data = build(compose("train", [*settings, "data.resolution=16", "data.num_workers=0", "data.batch_size=1"]).data)
    data.setup("fit")
    assert list(islice(data.describe(), 2)) == ["source", "target"]
    assert data.describe()["target"]["batch_size"] == 1
