"""Restoration of a folder: photos of persons with their label maps in, flat garments out; what cannot be is said early.

A label map tells where the garment is and which: without one a model that was trained on masks has nothing to go by.
`GarmentCutout` is the simplest thing to compare with: the worn garment, cut out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image

from r2r.data.images import fit_to_multiple, load_image, to_pil, to_tensor
from r2r.errors import DataError, InputError
from r2r.models.garment_denoiser import read_settings
from r2r.parsing import REGIONS
from r2r.tasks.garment_restorer import WORDS, GarmentRestorer, RestorationSettings
from r2r.tasks.label_maps import LabelMaps, resized_mask

LEAST_GARMENT = 0.005  # share of the picture
FRAME = 0.9  # of the picture that a cut-out garment fills


@dataclass(frozen=True)
class Person:
    """A photo, which garment is wanted, and where it is."""

    image: Image.Image
    slot: str
    mask: Bool[np.ndarray, "h w"] | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo."""
        return self.image.size


class PersonReader:
    """Photos with the garment that is wanted of each.

    Args:
        input: folder of the photos, or one of them.
        parsing: folder of label maps with the photos' relative names, `.png`; None: nothing is known of the photos.
        label_set: theirs; a name of `r2r.parsing.LABEL_SETS`.
        slot: upper, lower or full; with label maps also "largest", the one that shows most.

    Raises InputError for a setting that is unfit, or no folder of label maps.
    """

    def __init__(
        self,
        input: str | Path,
        parsing: str | Path | None = None,
        label_set: str = "ATR_18",
        slot: str = "largest",
    ) -> None:
        if slot not in (*WORDS, "largest"):
            raise InputError(f"task.slot={slot} is none of {', '.join(WORDS)}, largest")
        if parsing is None and slot == "largest":
            raise InputError("task.slot=largest must be measured: give task.parsing=FOLDER of label maps, or a slot")
        self.maps = None if parsing is None else LabelMaps(input, parsing, label_set)
        self.slot = slot

    def __call__(self, path: Path) -> Person:
        """A photo with its mask.

        Raises DataError, naming the file, for a photo or label map that is missing or broken, labels of another set,
        several persons, or no garment of the slot.
        """
        image = load_image(path)
        if self.maps is None:
            return Person(image, self.slot, None)
        regions = self.maps(path, image)
        try:
            return Person(image, *garment(regions, self.slot))
        except DataError as error:
            raise DataError(f"{self.maps.place(path)}: {error}") from error


class GarmentTranslator:
    """Restore one garment of each person.

    >>> pipe = GarmentTranslator("logs/igr_fine/export", "persons", "parsing")  # doctest: +SKIP
    >>> flats = pipe([pipe.load(path) for path in photos])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str,
        input: str | Path,
        parsing: str | Path | None = None,
        label_set: str = "ATR_18",
        slot: str = "largest",
        sampling: RestorationSettings | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        """Check what is given, then load an export of `experiment=igr_coarse` or `igr_fine`, or the shipped "tiny".

        `input`, `parsing`, `label_set` and `slot` are those of `PersonReader`.

        Raises:
            InputError: a setting is unfit, there is no export, or it was trained on masks and there is no `parsing`.
            MissingWeightsError: the base model or the image encoder is not at hand.
        """
        if parsing is None and read_settings(model).get("mask_reference", True):
            raise InputError(
                "task.parsing is missing: this model was trained to look at the garment alone; give a folder of label "
                "maps, named as the photos"
            )
        self.load = PersonReader(input, parsing, label_set, slot)
        self.restorer = GarmentRestorer.from_pretrained(model, device=device, dtype=dtype)
        self.sampling, self.device = sampling or RestorationSettings(), device

    @torch.no_grad()
    def __call__(self, persons: Sequence[Person], *, seed: int = 0, resolution: int | None = None) -> list[Image.Image]:
        """Flat garments in the sizes of the photos, which must be equal; `resolution` is the short side to work at."""
        fitted = [fit_to_multiple(person.image, self.restorer.model.size_multiple, resolution) for person in persons]
        pixels = torch.stack([to_tensor(image) for image, _ in fitted]).to(self.device)
        known = [person.mask for person in persons if person.mask is not None]
        masks = (
            torch.stack([resized_mask(mask, fitted[0][0].size) for mask in known]).to(self.device) if known else None
        )
        slots = [person.slot for person in persons]
        flats = self.restorer(pixels, slots, masks, seed=seed, settings=self.sampling)
        return [back(to_pil(flat)) for flat, (_, back) in zip(flats, fitted, strict=True)]

    def work(self) -> dict[str, int]:
        """U-Net evaluations so far: of the denoiser, and of the reference net."""
        denoiser = self.restorer.denoiser
        looked = denoiser.reference.sample_evals if denoiser.reference is not None else 0
        return {"unet_sample_evals": denoiser.model.sample_evals, "reference_sample_evals": looked}


class GarmentCutout:
    """The worn garment cut out, scaled to fill the frame, before white: what needs no model.

    `input`, `parsing`, `label_set` and `slot` are those of `PersonReader`; label maps are needed. Raises as it does.
    """

    def __init__(
        self, input: str | Path, parsing: str | Path | None = None, label_set: str = "ATR_18", slot: str = "largest"
    ) -> None:
        if parsing is None:
            raise InputError("task=garment_cutout needs task.parsing=FOLDER of label maps, named as the photos")
        self.load = PersonReader(input, parsing, label_set, slot)

    def __call__(self, persons: Sequence[Person]) -> list[Image.Image]:
        """Pictures in the sizes of the photos."""
        return [_cut_out(person) for person in persons]


def garment(regions: UInt8[np.ndarray, "h w"], slot: str) -> tuple[str, Bool[np.ndarray, "h w"]]:
    """A garment of the person in a region map: its slot, found for "largest", and its mask.

    Raises DataError for one that shows in less than half a per cent of the picture.
    """
    masks = {name: regions == REGIONS.index(name) for name in (WORDS if slot == "largest" else (slot,))}
    found = max(masks, key=lambda name: masks[name].sum())
    if masks[found].mean() < LEAST_GARMENT:
        wanted = "garment" if slot == "largest" else f"{slot} garment"
        raise DataError(f"no {wanted}: {masks[found].mean():.2%} of the picture")
    return found, masks[found]


def _cut_out(person: Person) -> Image.Image:
    mask = Image.fromarray(np.asarray(person.mask, np.uint8) * 255)
    left, top, right, bottom = box = mask.getbbox() or (0, 0, *person.size)
    scale = FRAME * min(person.size[0] / (right - left), person.size[1] / (bottom - top))
    size = max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top)))
    picture, cover = (part.crop(box).resize(size, Image.Resampling.LANCZOS) for part in (person.image, mask))
    sheet = Image.new("RGB", person.size, (255, 255, 255))
    sheet.paste(picture, ((person.size[0] - size[0]) // 2, (person.size[1] - size[1]) // 2), cover)
    return sheet
