"""The datamodule: batches of every kind, exact resume under Lightning, first-minute errors."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from r2r.cli import build, compose
from r2r.data import ImageDataModule
from r2r.errors import DataError, InputError
from tests.data.shard_writing import png, write_images, write_shard, write_studio

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores are enough
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),  # Lightning's own
]


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    return write_studio(tmp_path / "studio data")


def module(root: Path, **options) -> ImageDataModule:
    data = ImageDataModule(root, **{"resolution": 8, "batch_size": 3, "num_workers": 0} | options)
    data.setup("fit")
    return data


def keys(data: ImageDataModule, batches: int = 3) -> list[list[str]]:
    return [batch["key"] for batch in islice(data.train_dataloader(), batches)]


def test_one_domain(studio: Path) -> None:
    data = module(studio, image_member="photo.png", mask_member="garment_mask.png", caption_dropout=0.0)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (3, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert (batch["image"][:, 1] == 1).all() and (batch["image"][:, 2] == -1).all()
    assert batch["garment_mask"].dtype == torch.bool
    assert batch["garment_mask"].shape == (3, 1, 8, 8)
    assert batch["garment_mask"][0, 0, 0].tolist() == [True] * 4 + [False] * 4
    index = batch["key"][0].removeprefix("train")
    assert batch["caption"][0] == f"shirt {index}"
    assert batch["image"][0, 0, 0, 0] == pytest.approx(int(index) / 127.5 - 1)


def test_pairs(studio: Path) -> None:
    batch = next(iter(module(studio, view="pairs").train_dataloader()))
    assert set(batch) == {"rendered", "photo", "garment_mask", "caption", "category", "texture", "key"}
    assert torch.equal(batch["rendered"][:, 0], batch["photo"][:, 0])
    assert (batch["rendered"][:, 1] == -1).all() and (batch["photo"][:, 1] == 1).all()
    assert batch["category"] == ["shirt"] * 3 and batch["texture"] == ["stripes"] * 3


def test_mixed_domains_speak_their_own_words(studio: Path) -> None:
    templates = ["a photo of a {texture} {category}", "a 3d render of a {caption}"]
    data = module(studio, image_member=["photo.png", "rendered.png"], caption_template=templates, caption_dropout=0.0)
    assert data.describe()["train_samples"] == 20
    for batch in data.train_dataloader():
        for key, caption, image in zip(batch["key"], batch["caption"], batch["image"], strict=True):
            photo = key.endswith(".photo")
            assert caption.startswith("a photo of a stripes shirt" if photo else "a 3d render of a shirt")
            assert bool(image[1, 0, 0] == 1) is photo


def test_caption_dropout_and_flips_follow_the_place_not_the_worker(studio: Path) -> None:
    options = {"image_member": "photo.png", "caption_dropout": 0.5, "horizontal_flip": True}
    here, there = module(studio, **options), module(studio, num_workers=2, **options)
    captions = [batch["caption"] for batch in here.train_dataloader()]
    assert captions == [batch["caption"] for batch in there.train_dataloader()]
    assert 0 < sum(caption == "" for batch in captions for caption in batch) < 9
    assert all(caption for batch in here.val_dataloader() for caption in batch["caption"])


def test_mask_and_image_flip_together(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 4, 8))
    image.save(tmp_path / "half.png")
    half = (tmp_path / "half.png").read_bytes()
    write_shard(tmp_path / "s" / "train-0.tar", {f"{i}": {"png": half, "mask.png": half} for i in range(20)})
    data = module(tmp_path / "s", image_member="png", mask_member="mask.png", horizontal_flip=True, batch_size=19)
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["image"][:, :1] > 0, batch["garment_mask"])
    assert 0 < batch["garment_mask"][:, 0, 0, 0].sum() < 19


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_loading_a_state_continues_the_straight_run(studio: Path, workers: int) -> None:
    straight = module(studio, image_member="photo.png", num_workers=0)
    first = keys(straight)
    straight.load_state_dict({"consumed_batches": 3})
    resumed = module(studio, image_member="photo.png", num_workers=workers)
    resumed.load_state_dict({"consumed_batches": 2})
    assert keys(resumed) == first[2:] + keys(straight)[:2]
    assert resumed.state_dict() == {"consumed_batches": 2}


class Recorder(LightningModule):
    """Notes which samples it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[str]] = []
        self.validated: list[str] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["key"])
        return (self.weight * batch["image"].mean()).sum()

    def validation_step(self, batch, batch_idx):
        self.validated += batch["key"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, folder: Path, steps: int, workers: int, resume: Path | None = None, **options) -> Recorder:
    task = Recorder()
    save = ModelCheckpoint(
        folder, filename="{step}", auto_insert_metric_name=False, every_n_train_steps=1, save_top_k=-1
    )
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[save],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    data = ImageDataModule(root, image_member="photo.png", resolution=8, batch_size=3, num_workers=workers)
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=False if resume else None)
    return task


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 2}, {"check_val_every_n_epoch": 5}])
def test_resume_under_lightning_equals_a_straight_run(studio: Path, tmp_path: Path, options: dict) -> None:
    straight = fit(studio, tmp_path / "ckpt", 8, workers=0, **options)
    assert len(straight.seen) == 8
    for step, workers in ((1, 0), (3, 0), (4, 2), (6, 0)):
        checkpoint = tmp_path / "ckpt" / f"{step}.ckpt"
        resumed = fit(studio, tmp_path / "ckpt", 8, workers, resume=checkpoint, **options)
        assert resumed.seen == straight.seen[step:]


def test_lightning_validates_each_sample_once(studio: Path, tmp_path: Path) -> None:
    task = fit(studio, tmp_path / "ckpt", 3, workers=0)
    assert sorted(task.validated) == [f"val{i}" for i in range(5)]


def test_more_workers_than_shards(tmp_path: Path) -> None:
    data = module(write_studio(tmp_path, shards=1), image_member="photo.png", num_workers=4)
    assert len({key for batch in keys(data) for key in batch}) == 9
    assert sorted(key for batch in data.val_dataloader() for key in batch["key"]) == [f"val{i}" for i in range(5)]


def test_describe_and_first_batch(studio: Path, tmp_path: Path) -> None:
    data = module(studio, view="pairs", caption_dropout=0.0)
    found = data.describe()
    assert (found["train_samples"], found["val_samples"], found["epoch_batches"]) == (10, 5, 3)
    assert found["smallest_image"] == found["largest_image"] == "12x10"
    before = keys(data)
    data.first_batch_grid(tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as sheet:
        assert sheet.width > 3 * 16
    assert keys(data) == before


def test_bad_roots(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a folder.*gone"):
        module(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no train-\*\.tar in .* which holds nothing"):
        module(tmp_path)
    with pytest.raises(DataError, match="no images in"):
        module(tmp_path, layout="folder")
    with pytest.raises(InputError, match=r"unknown data\.layout 'zip'"):
        module(tmp_path, layout="zip")


def test_bad_shards(tmp_path: Path) -> None:
    write_studio(tmp_path, shards=1)
    shard = tmp_path / "train-0000.tar"
    whole = shard.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in (end // 2, end // 2 + 256, end // 512 * 512, end // 512 * 512 - 512, end - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"truncated shard: .*train-0000\.tar"):
            module(tmp_path, view="pairs")
    shard.write_bytes(b"")
    with pytest.raises(DataError, match=r"shard: .*train-0000\.tar"):
        module(tmp_path, view="pairs")


def test_bad_samples(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", {"a": {"jpg": b"noise"}, "b": {"jpg": png(1)}})
    with pytest.raises(DataError, match=r"not an image: a\.jpg in .*train-0\.tar"):
        module(tmp_path, batch_size=1)
    with pytest.raises(DataError, match=r"has no 'photo\.png', only jpg"):
        module(tmp_path, batch_size=1, image_member="photo.png")
    write_shard(tmp_path / "train-0.tar", {"a": {"x.png": png(1), "y.png": png(1)}, "b": {"x.png": png(1)}})
    with pytest.raises(DataError, match=r"has 2 images \(x\.png, y\.png\).*image_member"):
        module(tmp_path, batch_size=1)


def test_bad_samples_met_in_training_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", {"a": {"png": png(1)}, "b": {"png": b"noise"}})
    data = module(tmp_path, batch_size=1, checked_samples=1, num_workers=1, val_fraction=0.0)
    with pytest.raises(DataError, match=r"not an image: b\.png in .*train-0\.tar"):
        list(data.train_dataloader())


def test_bad_settings(studio: Path) -> None:
    with pytest.raises(DataError, match="batch_size 99 needs 99 training samples, found 10"):
        module(studio, view="pairs", batch_size=99)
    with pytest.raises(InputError, match=r"caption_dropout outside \[0, 1\]: 2"):
        module(studio, caption_dropout=2.0)
    with pytest.raises(InputError, match="1 caption_template for 2 image_member"):
        module(studio, image_member=["photo.png", "rendered.png"])
    with pytest.raises(DataError, match=r"caption_template .* does not fit sample train0"):
        module(studio, view="pairs", caption_template="{colour}")
    with pytest.raises(InputError, match="batch_size must be at least 1: 0"):
        module(studio, batch_size=0)


def test_embedded_shards_are_the_default() -> None:
    assert Path(ImageDataModule().root).parts[-3:] == ("r2r", "assets", "studio")


def test_setup_twice_keeps_the_samples(studio: Path) -> None:
    data = module(studio, view="pairs")
    first = data.train_samples
    data.setup("validate")
    assert data.train_samples is first


def test_folder_without_a_split_validates_on_a_fixed_part(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(20)]
    data = module(write_images(tmp_path, names), layout="folder", val_fraction=0.2)
    train, val = ({s.key for s in samples} for samples in (data.train_samples, data.val_samples))
    assert len(val) == 4 and not train & val and train | val == set(names)
    assert {s.key for s in module(tmp_path, layout="folder", val_fraction=0.2, seed=9).val_samples} == val


def write_identities(root: Path, count: int = 20) -> Path:
    """Shards without a validation split: three scenes of each identity."""
    words = [json.dumps({"seed": 1, "identity": i}).encode() for i in range(count)]
    return write_shard(
        root / "train-0.tar",
        {f"{i:03d}-{view}": {"photo.png": png(i), "json": words[i]} for i in range(count) for view in range(3)},
    ).parent


def test_a_hold_out_keeps_identities_together(tmp_path: Path) -> None:
    data = module(write_identities(tmp_path), val_fraction=0.2)
    train, val = ({sample.key[:3] for sample in samples} for samples in (data.train_samples, data.val_samples))
    assert (len(train), len(val)) == (16, 4) and not train & val
    assert (len(data.train_samples), len(data.val_samples)) == (48, 12)


def test_halves_are_disjoint_identities_whatever_the_seed(tmp_path: Path) -> None:
    root = write_identities(tmp_path)
    halves = [
        {sample.key for sample in module(root, half=half, seed=seed).train_samples}
        for half, seed in (("first", 0), ("second", 1), (None, 2))
    ]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == halves[2]
    assert not {key[:3] for key in halves[0]} & {key[:3] for key in halves[1]}
    assert all(15 < len(half) < 45 for half in halves[:2])
    held = {tuple(sample.key for sample in module(root, half=half).val_samples) for half in ("first", "second", None)}
    assert len(held) == 1  # whole for all of them
    with pytest.raises(InputError, match=r"data\.half=third is unknown; use first, second, or null"):
        module(root, half="third")
    with pytest.raises(InputError, match=r"unknown data\.view 'pair'; known: image, pairs"):
        module(root, view="pair")
    with pytest.raises(InputError, match=r"data\.resolution=\[1, 2, 3\] is neither a number nor"):
        module(root, resolution=[1, 2, 3])


def test_the_two_domains_of_translation_show_other_scenes(studio: Path) -> None:
    shown = []
    for name in ("studio_photos", "studio_renders"):
        data = build(compose("train", [f"data={name}", f"data.root={studio}", "data.batch_size=1"]).data)
        data.setup()
        shown.append({sample.key for sample in data.train_samples})
    assert shown[0] and shown[1] and not shown[0] & shown[1]
