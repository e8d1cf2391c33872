"""From photos of persons to the garments they wear, flat before white: sampling, and the translator of folders.

DDIM (arXiv:2010.02502) from noise, with a denoiser that looks at the person once (`GarmentDenoiser`) and guidance of
two conditions (arXiv:2207.12598; composed as in InstructPix2Pix, arXiv:2211.09800, equation 3):

    e = e(-, -) + s_ref (e(R, -) - e(-, -)) + s_img (e(R, I) - e(R, -))

with R the reference and I the image tokens; without a scale for the tokens both move together, at two rows an image.

Deviations
- IGR's sampler, steps and guidance are not public; 2.0 and some twenty steps are what its open relatives use
  (IDM-VTON, TryOffDiff).
- The prompt names the category in every row: it is known, and guidance is for what was seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from r2r.diffusion import composed_guidance
from r2r.errors import InputError
from r2r.models.exported_parts import load_base
from r2r.models.garment_denoiser import GarmentDenoiser, read_settings
from r2r.models.image_encoder import ImageEncoder
from r2r.models.stable_diffusion import TextConditioning
from r2r.tasks.trajectory import Step, branch_rows, descending_steps, guided_sampling, same_noise
from r2r.types import GarmentMask, Images

WORDS = {"upper": "upper garment", "lower": "lower garment", "full": "dress"}  # by slot
PROMPT = "a flat photo of a {garment}"


@dataclass(frozen=True, kw_only=True)
class RestorationSettings:
    """How to sample."""

    num_inference_steps: int = 20
    guidance_scale: float = 2.0  # of the reference, and of the image tokens too without a scale of their own
    image_guidance_scale: float | None = None  # of the image tokens; None: they move with the reference

    def __post_init__(self) -> None:
        if self.num_inference_steps < 2:
            raise InputError(f"num_inference_steps={self.num_inference_steps} must be at least 2")
        if self.guidance_scale < 0 or (self.image_guidance_scale or 0) < 0:
            scales = f"guidance_scale={self.guidance_scale} image_guidance_scale={self.image_guidance_scale}"
            raise InputError(f"{scales}: neither may be negative")

    @property
    def branches(self) -> list[tuple[bool, bool]]:
        """Rows of an image, by whether they see the reference and the image tokens."""
        if self.image_guidance_scale is None:
            return [(True, True)] if self.guidance_scale == 1 else [(False, False), (True, True)]
        return [(False, False), (True, False), (True, True)]

    def guide(self, noises: Sequence[Tensor]) -> Tensor:
        """Their noises as one."""
        if len(noises) == 1:
            return noises[0]
        scales = (self.guidance_scale, self.image_guidance_scale)
        return composed_guidance(noises, [scale for scale in scales if scale is not None])


class GarmentRestorer:
    """Flat garments from images of persons.

    >>> pipe = GarmentRestorer.from_pretrained("logs/igr_fine/export")  # doctest: +SKIP
    >>> flats = pipe(persons, ["upper"], masks)  # doctest: +SKIP
    """

    def __init__(self, denoiser: GarmentDenoiser, prompt: str = PROMPT) -> None:
        """`prompt` is that of the training; {garment} in it becomes the words of the slot."""
        self.denoiser, self.model, self.prompt = denoiser, denoiser.model, prompt

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, encoder: ImageEncoder | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> "GarmentRestorer":
        """An export of `experiment=igr_coarse` or `igr_fine`, or "tiny", the shipped one; the base model is loaded too.

        Raises:
            InputError: no such export, or an image encoder of another width.
            MissingWeightsError: base model or encoder neither cached nor reachable.
        """
        settings = read_settings(folder)
        model = load_base(settings, dtype)
        if "image_prompt" in settings["parts"] and encoder is None:
            encoder = ImageEncoder.from_pretrained(**settings["encoder"])
        denoiser = GarmentDenoiser(
            model,
            encoder if "image_prompt" in settings["parts"] else None,
            settings["image_prompt"],
            use_reference="reference" in settings["parts"],
            min_stride=settings["min_stride"],
        )
        denoiser.load(folder)
        denoiser.to(getattr(torch, dtype)).requires_grad_(False).eval()
        return cls(denoiser.to_device(device), settings["prompt"])

    def steps(self, settings: RestorationSettings) -> list[Step]:
        """From noise to the picture, in descending time order."""
        return descending_steps(self.model.schedule, settings.num_inference_steps)

    @torch.no_grad()
    def __call__(
        self,
        persons: Images,
        slots: Sequence[str],
        masks: GarmentMask | None = None,
        *,
        seed: int = 0,
        settings: RestorationSettings | None = None,
    ) -> Images:
        """The garments as images in [-1, 1], in the size of the persons' (sides multiples of `model.size_multiple`).

        Args:
            persons: images in [-1, 1], shape (b, 3, h, w).
            slots: which garment of each person: upper, lower or full.
            masks: where it is, shape (b, 1, h, w); then nothing else of the person is seen by the reference net.
            seed: of the start noise, the same for every image.
            settings: defaults if None.
        """
        options = settings or RestorationSettings()
        condition = self.model.encode_prompts(garment_prompts(self.prompt, slots))
        appearance = self.denoiser.look(persons, condition, masks)
        start = same_noise(appearance.shape, seed).to(persons.device, self.model.unet.dtype)
        branches = options.branches
        looking, told = branch_rows(branches, len(start), start.device)
        predict = partial(
            self.denoiser.predict,
            condition=TextConditioning.cat([condition] * len(branches)),
            appearance=appearance,
            looking=looking,
            told=told,
        )
        steps = self.steps(options)
        latents = guided_sampling(self.model.schedule, steps, start, len(branches), predict, options.guide)
        return self.model.decode(latents)


def garment_prompts(prompt: str, slots: Sequence[str]) -> list[str]:
    """The prompt of each slot: upper, lower or full."""
    return [prompt.format(garment=WORDS[slot]) for slot in slots]
