"""Persons in other poses: DDIM sampling with a denoiser that looks at the source once (`PoseDenoiser`).

DDIM (arXiv:2010.02502) from noise, guided by two conditions (arXiv:2207.12598; composed as in CFLD, arXiv:2402.18078):

    e = e(-, -) + s_pose (e(P, -) - e(-, -)) + s_app (e(P, A) - e(P, -))

with P the pose and A the appearance, which is SourceNet and the tokens of its crops; equal scales cost two rows an
image instead of three.

Deviations
- TruePose's sampler, steps and guidance are not public; both scales are CFLD's 2.0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from r2r.diffusion import composed_guidance
from r2r.errors import InputError
from r2r.models.exported_parts import load_base
from r2r.models.image_encoder import ImageEncoder
from r2r.models.pose_denoiser import PoseDenoiser, read_settings
from r2r.models.stable_diffusion import TextConditioning
from r2r.tasks.trajectory import Step, branch_rows, descending_steps, guided_sampling, same_noise
from r2r.types import Images

PROMPT = "a photo of a person"


@dataclass(frozen=True, kw_only=True)
class PoseSettings:
    """How to sample."""

    num_inference_steps: int = 20
    pose_scale: float = 2.0
    appearance_scale: float = 2.0

    def __post_init__(self) -> None:
        if self.num_inference_steps < 2:
            raise InputError(f"num_inference_steps={self.num_inference_steps} must be at least 2")
        if min(self.pose_scale, self.appearance_scale) < 0:
            scales = f"pose_scale={self.pose_scale} appearance_scale={self.appearance_scale}"
            raise InputError(f"{scales}: neither may be negative")

    @property
    def branches(self) -> list[tuple[bool, bool]]:
        """Rows of an image, by whether they see the pose and the source."""
        if self.pose_scale != self.appearance_scale:
            return [(False, False), (True, False), (True, True)]
        return [(True, True)] if self.pose_scale == 1 else [(False, False), (True, True)]

    def guide(self, noises: Sequence[Tensor]) -> Tensor:
        """Their noises as one."""
        scales = [self.pose_scale, self.appearance_scale]
        return composed_guidance(noises, scales[: len(noises) - 1])


class PoseSampler:
    """Pictures of persons in other poses.

    >>> pipe = PoseSampler.from_pretrained("logs/truepose/export")  # doctest: +SKIP
    >>> pictures = pipe(sources, parsing, poses)  # doctest: +SKIP
    """

    def __init__(self, denoiser: PoseDenoiser, prompt: str = PROMPT) -> None:
        """`prompt` is that of the training."""
        self.denoiser, self.model, self.prompt = denoiser, denoiser.model, prompt

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, encoder: ImageEncoder | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> "PoseSampler":
        """An export of `experiment=truepose`; the base model is loaded too.

        Raises:
            InputError: no such export, or an image encoder of another width.
            MissingWeightsError: base model or encoder neither cached nor reachable.
        """
        settings = read_settings(folder)
        model = load_base(settings, dtype)
        told = "prompts" in settings["parts"]
        if told and encoder is None:
            encoder = ImageEncoder.from_pretrained(**settings["encoder"])
        names = ("crops", "use_source", "share_weights", "use_parsing", "use_fusion_bias", "align", "min_stride")
        built = {name: settings[name] for name in names}
        denoiser = PoseDenoiser(model, encoder if told else None, settings["image_prompt"], **built)
        denoiser.load(folder)
        denoiser.to(getattr(torch, dtype)).requires_grad_(False).eval()
        return cls(denoiser.to_device(device), settings["prompt"])

    def steps(self, settings: PoseSettings) -> list[Step]:
        """From noise to the picture, in descending time order."""
        return descending_steps(self.model.schedule, settings.num_inference_steps)

    @torch.no_grad()
    def __call__(
        self,
        sources: Float[Tensor, "m 3 h w"],
        parsing: UInt8[Tensor, "m 1 h w"] | None,
        poses: Float[Tensor, "b 18 3"],
        *,
        visible: Bool[Tensor, "m regions"] | None = None,
        seed: int = 0,
        settings: PoseSettings | None = None,
    ) -> Images:
        """The persons as images in [-1, 1], in the size of the sources (sides multiples of `model.size_multiple`).

        Args:
            sources: images in [-1, 1], shape (m, 3, h, w): m / b for each person, all first ones first.
            parsing: theirs, as indices of `r2r.parsing.REGIONS`.
            poses: keypoints in pixels of the pictures, shape (b, 18, 3).
            visible: which regions of each source are seen, (m, regions); None: all.
            seed: of the start noise, the same for every image.
            settings: defaults if None.
        """
        options, count = settings or PoseSettings(), len(poses)
        condition = self.model.encode_prompts([self.prompt]).repeat(count)
        latents = self.model.encode(sources)
        seen = self.denoiser.look(sources, parsing, condition, latents, visible)
        residuals = self.denoiser.pose(poses, (sources.shape[2], sources.shape[3]))
        branches, shape = options.branches, latents.shape[1:]
        posed, looking = branch_rows(branches, count, latents.device)
        predict = partial(
            self.denoiser.predict,
            condition=TextConditioning.cat([condition] * len(branches)),
            seen=seen,
            residuals=residuals,
            looking=looking,
            posed=posed,
        )
        start, steps = same_noise((count, *shape), seed).to(latents), self.steps(options)
        found = guided_sampling(self.model.schedule, steps, start, len(branches), predict, options.guide)
        return self.model.decode(found)
