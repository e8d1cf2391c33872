"""Two domains side by side: batches of images that have nothing to do with each other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader

from r2r.data.datamodule import ImageDataModule
from r2r.errors import InputError

Domain = Callable[..., ImageDataModule]


class UnpairedDataModule(LightningDataModule):
    """Batches of type `UnpairedBatch` from two image datamodules.

    Each domain keeps its own order and its own epochs; an epoch of both ends with the shorter one, and the next goes on
    from there in each. Resuming is as exact as that of `ImageDataModule`.

    Args:
        source: domain to translate, an `ImageDataModule` waiting for the settings below.
        target: domain to translate to.
        resolution: as of `ImageDataModule`; of both domains, like the following.
        batch_size: images of each domain, per rank and batch.
        num_workers: processes that load each domain.
        seed: of the orders; the target's is another one.
        horizontal_flip: mirror half of the training images.
        random_crop: train on random parts of this size, as the released code does with 256 of 286 px; see
            `ImageDataModule`.
        second_source: a second, independent draw from the source domain in each batch (UNSB).

    Raises: InputError or DataError, as `ImageDataModule`; InputError for a domain with `buckets`, as steps see both
    domains in one shape.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        resolution: int | list[int] = 256,
        batch_size: int = 1,
        num_workers: int = 2,
        seed: int = 0,
        horizontal_flip: bool = True,
        random_crop: int | list[int] | None = None,
        second_source: bool = False,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {"resolution": resolution, "batch_size": batch_size, "num_workers": num_workers}
        shared |= {"horizontal_flip": horizontal_flip, "random_crop": random_crop}
        self.domains = {"source": source(**shared, seed=seed), "target": target(**shared, seed=seed + 1)}
        if second_source:
            self.domains["second_source"] = source(**shared, seed=seed + 2)
        for name, domain in self.domains.items():
            if domain.buckets is not None:
                raise InputError(f"data.{name}.buckets={domain.buckets}: both domains need one shape; leave it null")

    def setup(self, stage: str | None = None) -> None:
        """Find and check the data of every domain."""
        for domain in self._placed():
            domain.setup(stage)

    def describe(self) -> dict[str, Any]:
        """What a run would see of each domain."""
        return {name: domain.describe() for name, domain in self.domains.items()}

    def first_batch_grid(self, path: str | Path) -> None:
        """Save the next training images of source and target as `<path>_source.png` and `<path>_target.png`."""
        for name in ("source", "target"):
            self.domains[name].first_batch_grid(Path(path).with_stem(f"{Path(path).stem}_{name}"))

    def train_dataloader(self) -> CombinedLoader:
        """One batch of each domain at a time."""
        self._placed()
        return CombinedLoader({name: each.train_dataloader() for name, each in self.domains.items()}, "min_size")

    def val_dataloader(self) -> CombinedLoader | list[Any]:
        """Every validation image of source and target once, None in place of a domain that is through."""
        self._placed()
        loaders = {name: self.domains[name].val_dataloader() for name in ("source", "target")}
        return CombinedLoader(loaders, "max_size") if all(loaders.values()) else []

    def _placed(self) -> list[ImageDataModule]:
        """The domains, which know of the trainer what this module knows."""
        for domain in self.domains.values():
            domain.trainer = self.trainer
        return list(self.domains.values())


class PriorDataModule(UnpairedDataModule):
    """Batches of type `UnpairedBatch` to train on; the target is to be learned, the source to stay as it can be drawn.

    Validation shows the target alone, as `ImageBatch`. Arguments and errors are those of `UnpairedDataModule`.
    """

    def val_dataloader(self) -> Any:
        """Every validation image of the target once."""
        self._placed()
        return self.domains["target"].val_dataloader()
