"""One datamodule for all sources: finds the samples, checks them in the first minute, and batches them resumably."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from r2r.data.batches import SampleBatches, SampleDataset
from r2r.data.buckets import Buckets, bucket_names
from r2r.data.captions import CaptionRule
from r2r.data.curation import Curation
from r2r.data.datasets import find_samples
from r2r.data.grid import caption_grid, shown_pictures
from r2r.data.people import PoseView, RestorationView
from r2r.data.samples import Sample, in_half, without_held_out
from r2r.data.sampling import BucketSampler, BucketValidationSampler, TrainSampler, ValidationSampler
from r2r.data.shards import is_streamed, shard_addresses
from r2r.data.streams import Resampled, TrainStream, ValidationStream, first_entry
from r2r.data.views import Geometry, ImageView, PairView, View, binary_foreground, image_size, labelled_foreground
from r2r.errors import DataError, InputError

log = logging.getLogger(__name__)

Order = TrainSampler | BucketSampler | TrainStream
"""Training items, or which they are, from batch `start` on."""


class TrainLoader(DataLoader[dict[str, Any]]):
    """Training batches from where the datamodule says the run stands; to Lightning a resumable loader."""

    def __init__(self, datamodule: "ImageDataModule", order: Order, **options: Any) -> None:
        super().__init__(**options)
        self.datamodule, self.order = datamodule, order

    def __iter__(self) -> Any:
        self.order.start = self.datamodule.consumed_batches
        return super().__iter__()

    def state_dict(self) -> dict[str, int]:
        return self.datamodule.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.datamodule.load_state_dict(state)


class ImageDataModule(LightningDataModule):
    """Batches of images, or of whatever else a `view` makes of the samples.

    Training order, captions dropped and images mirrored depend on `seed` and the batch number alone, not on workers:
    a resumed run equals a straight one. Validation shows every sample once.

    Args:
        root: folder (see `r2r.data.datasets` for layouts), brace pattern of shards with `{split}` in it, shard address
            to stream (`pipe:...{split}...`, `https://.../{split}-{0000..0009}.tar`), or "embedded": the demo shards.
        layout: a name of `r2r.data.datasets.LAYOUTS`.
        view: "image" (`ImageBatch`), or of studio shards "pairs" (`PairedBatch`), "restoration" (`RestorationBatch`),
            "pose" (`PoseBatch`) or "pose_and_itself", which has each picture as its own target too. The last three also
            of the layouts in `r2r.data.garment_layouts`.
        half: "first" or "second" half of the training identities, so that two domains can show disjoint scenes.
        resolution: height and width of the training view in pixels, one number for a square (resized to cover it,
            centre crop); of `buckets` the area.
        buckets: several sizes, of which a picture is shown in the one of the nearest aspect ratio, so that less is
            cropped; a batch has one size. For the view "image" of data that are not streamed, without `random_crop`.
        batch_size: samples per rank and batch.
        image_member: image of a shard sample ("photo.png"), several for mixed domains, None for the only one.
        mask_member: member holding the garment mask, None for no mask; both members are for the view "image" alone.
        captions: caption file, when not `captions.json` or `metadata.jsonl` in the root.
        caption_field, caption_template, prompt, caption_dropout: see `CaptionRule`; one template for each
            `image_member`. Dropout concerns training alone.
        horizontal_flip: mirror half of the training images; mirrors lettering too.
        random_crop: height and width, or one number, of a random part of each training image, for the view "image".
        val_fraction: share of the identities held out by a hash of their names when the data has no validation split.
        epoch_samples: length of an epoch over all ranks, for streamed shards, which have no length of their own.
        shuffle_buffer: undecoded samples a worker mixes when shards are streamed.
        curation: drops bad training pairs, for the view "restoration" of data that are not streamed.
        checked_samples: evenly spaced training samples decoded in `setup`; None checks all.

    Raises: InputError or DataError, from `setup` at the latest, for data that is missing, empty, broken or too small.
    """

    def __init__(
        self,
        root: str | Path = "embedded",
        layout: str = "shards",
        view: str = "image",
        half: str | None = None,
        resolution: int | Sequence[int] = 128,
        buckets: Buckets | None = None,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        image_member: str | Sequence[str] | None = None,
        mask_member: str | None = None,
        captions: str | Path | None = None,
        caption_field: str = "caption",
        caption_template: str | Sequence[str] = "{caption}",
        prompt: str = "a photo of clothing",
        caption_dropout: float = 0.1,
        horizontal_flip: bool = False,
        random_crop: int | Sequence[int] | None = None,
        val_fraction: float = 0.05,
        epoch_samples: int | None = None,
        shuffle_buffer: int = 1000,
        curation: Curation | None = None,
        checked_samples: int | None = 16,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size must be at least 1: {batch_size}")
        self.root = str(files("r2r") / "assets" / "studio") if str(root) == "embedded" else str(root)
        self.layout, self.captions, self.val_fraction = layout, captions, val_fraction
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.epoch_samples, self.shuffle_buffer, self.checked_samples = epoch_samples, shuffle_buffer, checked_samples
        rules = _rules(image_member, caption_template, (prompt, caption_field, caption_dropout))
        rule = next(iter(rules.values()))
        geometry = Geometry(_width_height(resolution), horizontal_flip, _window(random_crop, view))
        foreground = labelled_foreground if layout == "face_synthetics" else binary_foreground
        views: dict[str, View] = {
            "image": ImageView(geometry, rules, mask_member, foreground, seed),
            "pairs": PairView(geometry, rule, seed),
            "restoration": RestorationView(geometry, rule, seed),
            "pose": PoseView(geometry, rule, seed),
            "pose_and_itself": PoseView(geometry, rule, seed, self_pairs=True),
        }
        if view not in views:
            raise InputError(f"unknown data.view {view!r}; known: {', '.join(views)}")
        self.view, self.view_name, self.half = views[view], view, half
        self.streamed, self.curation = is_streamed(self.root), curation
        if curation is not None and (view != "restoration" or self.streamed):
            raise InputError(
                "data.curation is for data.view=restoration of files or local shards, which can be measured"
            )
        self.resolution, self.buckets = geometry.size, buckets
        if buckets is not None:
            buckets.check(geometry, view, self.streamed)
        self.train_samples: list[Sample] = []
        self.val_samples: list[Sample] = []
        self.shards: dict[str, list[str]] = {}
        self._consumed = 0

    def setup(self, stage: str | None = None) -> None:
        """Find and check the data; a second call, when the ranks are known, checks the batches anew."""
        if not (self.train_samples or self.shards):
            self._find()
            for sample in self._checked():
                self.view(sample, None)
            if self.curation is not None:
                self.train_samples = self.curation.keep(self.train_samples, self.view)
        self._train_order()

    def describe(self) -> dict[str, Any]:
        """What a run would see: counts, image sizes (of the checked samples), epoch length in batches of one rank.

        With `buckets`, how many training samples each of them has, by width and height.
        """
        counts = Counter(bucket_names(self.train_samples) if self.buckets else ())
        sizes = sorted(image_size(sample) for sample in self._checked())
        return {
            "root": self.root,
            "layout": self.layout,
            "train_samples": self.epoch_samples if self.streamed else len(self.train_samples),
            "val_samples": None if self.streamed else len(self.val_samples),
            "smallest_image": "x".join(map(str, sizes[0])),
            "largest_image": "x".join(map(str, sizes[-1])),
            "batch_size": self.batch_size,
            "ranks": self._placement[1],
            "workers": self.num_workers,
            "epoch_batches": self._train_order().epoch_batches,
            **({"buckets": dict(sorted(counts.items()))} if self.buckets else {}),
        }

    def first_batch_grid(self, path: str | Path) -> None:
        """Save the images and captions of the next training batch as one picture; the stream does not move."""
        order = self._train_order()
        order.start = self.consumed_batches
        items = order if isinstance(order, TrainStream) else (self.view(self.train_samples[i], p) for i, p in order)
        batch = list(islice(items, self.batch_size))
        cells = [(shown_pictures(item), item["caption"]) for item in batch]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        caption_grid(cells).save(path)

    def train_dataloader(self) -> TrainLoader:
        """Endless in effect: every `iter` gives one epoch's number of batches, beginning at `consumed_batches`."""
        order = self._train_order()
        if isinstance(order, BucketSampler):
            _tell_repeats(order)
        options: dict[str, Any] = (
            {"dataset": order}
            if isinstance(order, TrainStream)
            else {"dataset": SampleDataset(self.train_samples, self.view), "sampler": order}
        )
        persistent = self.num_workers > 0 and not self.streamed
        return TrainLoader(self, order, drop_last=True, persistent_workers=persistent, **options, **self._loading)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Every validation sample once (see `ValidationSampler` for ranks); no loader when there are none."""
        rank, world_size = self._placement
        if self.streamed:
            stream = ValidationStream(self.shards["val"], self.view.entries, self.view, rank, world_size)
            return DataLoader(stream, **self._loading)
        if not self.val_samples:
            return []
        samples = SampleDataset(self.val_samples, self.view)
        if self.buckets is None:
            order = ValidationSampler(self.val_samples, self.batch_size, rank, world_size)
            return DataLoader(samples, sampler=order, **self._loading)
        batches = BucketValidationSampler(bucket_names(self.val_samples), self.batch_size, rank, world_size)
        return DataLoader(SampleBatches(samples), sampler=batches, **{**self._loading, "batch_size": None})

    @property
    def consumed_batches(self) -> int:
        """Batches of one rank trained so far, as the trainer counts them; without a trainer, as last loaded."""
        if self.trainer is None:
            return self._consumed
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def state_dict(self) -> dict[str, int]:
        """Where the run stands; in a Lightning run the trainer's own counters are what resumes."""
        return {"consumed_batches": self.consumed_batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after that many batches."""
        self._consumed = state_dict["consumed_batches"]

    @property
    def _train_entries(self) -> partial[Iterator[Sample]]:
        return partial(_entries_in_half, view=self.view, half=self.half)  # goes to workers without the datamodule

    @property
    def _placement(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _loading(self) -> dict[str, Any]:
        pin = torch.cuda.is_available()
        return {"batch_size": self.batch_size, "num_workers": self.num_workers, "pin_memory": pin}

    def _find(self) -> None:
        if self.streamed:
            self.shards = {split: shard_addresses(self.root, split) for split in ("train", "val")}
            return
        train, val = find_samples(self.root, self.layout, self.captions, self.val_fraction)
        train = without_held_out(train, val) if self.view_name.startswith("pose") else train
        self.train_samples, self.val_samples = list(self._train_entries(train)), list(self.view.entries(val))
        if not self.train_samples:
            raise DataError(
                f"none of the {len(train)} training samples in {self.root} fits data.view={self.view_name} with "
                f"data.half={self.half}: restoration needs persons with parsing and flat garments, pose two pictures "
                "with keypoints of one person; render persons with r2r.studio, choose other data, or data.half=null"
            )
        if self.buckets is not None:
            self.train_samples = self.buckets.place(self.train_samples, self.resolution)
            self.val_samples = self.buckets.place(self.val_samples, self.resolution)

    def _train_order(self) -> Order:
        rank, world_size = self._placement
        if self.streamed:
            source = Resampled(self.shards["train"], self._train_entries, self.seed, self.shuffle_buffer)
            return TrainStream(source, self.view, self.batch_size, self.epoch_samples, rank, world_size)
        if self.buckets is not None:
            return BucketSampler(bucket_names(self.train_samples), self.batch_size, self.seed, rank, world_size)
        return TrainSampler(self.train_samples, self.batch_size, self.seed, rank, world_size)

    def _checked(self) -> list[Sample]:
        if self.streamed:
            return [first_entry(self.shards["train"], self._train_entries)]
        count = len(self.train_samples)
        return self.train_samples[:: max(1, count // (self.checked_samples or count))]


def _entries_in_half(samples: Iterable[Sample], view: View, half: str | None) -> Iterator[Sample]:
    return view.entries(in_half(samples, half))


def _rules(
    image_member: str | Sequence[str] | None, caption_template: str | Sequence[str], told: tuple[str, str, float]
) -> dict[str | None, CaptionRule]:
    """How each image member is captioned. Raises: InputError when there are not as many templates."""
    members = [image_member] if image_member is None or isinstance(image_member, str) else list(image_member)
    templates = [caption_template] if isinstance(caption_template, str) else list(caption_template)
    if len(templates) != len(members):
        raise InputError(f"{len(templates)} caption_template for {len(members)} image_member; give one for each")
    return {member: CaptionRule(template, *told) for member, template in zip(members, templates, strict=True)}


def _tell_repeats(order: BucketSampler) -> None:
    for name, count in order.repeating.items():
        log.warning(
            "bucket %s has %d images for batches of %d on all ranks: they come together, repeated, and no more often "
            "than others; a lower data.buckets.max_ratio has fewer buckets",
            *(name, count, order.global_batch),
        )


def _window(size: int | Sequence[int] | None, view: str) -> tuple[int, int] | None:
    """Raises: InputError for a view that shows more than one image, whose parts would not match."""
    if size is not None and view != "image":
        raise InputError(f"data.random_crop is for data.view=image, not for {view}")
    return None if size is None else _width_height(size, "random_crop")


def _width_height(size: int | Sequence[int], name: str = "resolution") -> tuple[int, int]:
    """Raises: InputError when a size is neither a number nor height and width."""
    if isinstance(size, int):
        return size, size
    if len(size) != 2:
        raise InputError(f"data.{name}={[*size]} is neither a number nor [height, width]")
    return size[1], size[0]
