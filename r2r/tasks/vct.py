"""Visual Concept Translator: images translated into the look of one reference picture.

*General Image-to-Image Translation with One-Shot Image Guidance* (ICCV 2023, arXiv:2307.14352). Content-concept
inversion learns the reference as a placeholder word (`multi_concept_inversion`) and finds, for each source image, the
noise and the unconditional embeddings from which guided sampling brings it back (DDIM inversion and `null_text`).
Content-concept fusion then samples two streams from that noise, the content told nothing and the result told the word,
and gives the result the content's attention maps (Prompt-to-Prompt, arXiv:2208.01626): of self-attention in the deep
layers, and of cross-attention, refined and reweighted (`prompt_to_prompt`). The facts are the released code's; of the
paper only the abstract was read. The modules named list deviations of their own.

Deviations
- Maps of self-attention are injected as queries and keys. "Tokens <= 32^2", written for 64 x 64 latents, is a rule of
  strides here, stride >= 2, whatever the size of an image.
- Refinement and reweighting act in the cross-attention window only, as released. The released `get_word_inds` counts
  without the start token, so its factor of 0.5 falls on the start token and on all vectors but the last;
  `reweighted="released"` reproduces that, "concept" is what it says it does.
- Windows are int(T * ratio) steps; the released one of cross-attention is int((T + 1) * ratio), equal at the defaults.
- Only work that can change the result is done: the content's latents are known from the null-text optimisation, so its
  unconditional row is never computed and its conditional row rides along only while a window is open; no call for the
  step at t = 0 (an identity). At the defaults 143 sample-evals for the fusion of an image; released: 200.
- Images keep their own size and proportions; the released code crops to squares and resizes to 512 x 512.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from r2r.attention import Inject, Rows, Sites, attention_control
from r2r.data.images import fit_to_multiple, load_image, to_pil, to_tensor
from r2r.diffusion import classifier_free_guidance, ddim_step, injected_steps
from r2r.diffusion.schedule import check_unit
from r2r.errors import InputError
from r2r.models.required_sites import require_sites
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.image_translation import Progress, RenderedToReal
from r2r.tasks.multi_concept_inversion import Concept, MultiConceptInversion
from r2r.tasks.null_text import MAX_STEPS, NullText, NullTextOptimization, in_dtype
from r2r.tasks.prompt_to_prompt import CrossRefine
from r2r.tasks.trajectory import Step
from r2r.tasks.translation_settings import TranslationSettings
from r2r.types import Latents


@dataclass(frozen=True, kw_only=True)
class ContentConceptFusion:
    """What the result takes from the content; larger ratios keep more of it."""

    cross_ratio: float = 0.2  # share of the steps, noisiest first, with the content's cross-attention maps, in [0, 1]
    self_ratio: float = 0.9  # the same for self-attention
    min_stride: int = 2  # self-attentions from this stride on
    reweight: float = 0.5  # factor on the maps of the concept's vectors while the cross window is open
    reweighted: str = "concept"  # "concept", or "released": all positions one too early

    def __post_init__(self) -> None:
        check_unit("cross_ratio", self.cross_ratio)
        check_unit("self_ratio", self.self_ratio)
        if self.reweight < 0:
            raise InputError(f"reweight={self.reweight} must be at least 0")
        if self.reweighted not in ("concept", "released"):
            raise InputError(f"reweighted={self.reweighted!r} must be one of concept, released")

    def controls(self, concept: TextConditioning, num_vectors: int) -> tuple[Inject, CrossRefine]:
        """The controls of self- and cross-attention for a batch of rows `unconditional`, `content`, `result`."""
        route = Rows(("unconditional", "content", "result"), 1).route(result="content")
        first = 1 if self.reweighted == "concept" else 0
        weights = concept.prompt_embeds.new_ones(concept.prompt_embeds.shape[1])
        weights[first : first + num_vectors] = self.reweight
        return Inject(self.self_sites, route), CrossRefine(Sites("cross"), route, num_vectors, weights)

    @property
    def self_sites(self) -> Sites:
        """Where self-attention is injected."""
        return Sites("self", min_stride=self.min_stride)

    def windows(self, num_inference_steps: int) -> tuple[int, int]:
        """How many of the first steps take the content's self-attention, and its cross-attention."""
        self_steps, cross_steps = (
            injected_steps(num_inference_steps, 1.0, ratio) for ratio in (self.self_ratio, self.cross_ratio)
        )
        return self_steps, cross_steps


class VisualConceptTranslator:
    """Translate images into the look of one reference picture.

    >>> pipe = VisualConceptTranslator(StableDiffusion.from_pretrained("sd15"), "photo.jpg")  # doctest: +SKIP
    >>> pipe.learn_concept()  # doctest: +SKIP
    >>> photos = pipe([render])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: StableDiffusion,
        reference: str | Path | Image.Image,
        *,
        concept: MultiConceptInversion | None = None,
        null_text: NullTextOptimization | None = None,
        fusion: ContentConceptFusion | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        """Check everything and add the concept's placeholder token to the model; nothing is learned yet.

        Args:
            model: in float32 or bfloat16.
            reference: the picture to take the look from, or its file.
            concept: how to learn it.
            null_text: how to optimise the unconditional embeddings.
            fusion: what is taken from the content.
            num_inference_steps: of inversion and sampling, 2 to 100.
            guidance_scale: of null-text optimisation and sampling, above 1.

        Raises:
            InputError: a setting, the reference or the model is unfit, or a control would find no attention layer.
        """
        if not 2 <= num_inference_steps <= MAX_STEPS:
            raise InputError(f"num_inference_steps={num_inference_steps} must lie in [2, {MAX_STEPS}]")
        if guidance_scale <= 1:
            raise InputError(f"guidance_scale={guidance_scale} must be above 1: VCT works on the unconditional half")
        if model.unet.dtype == torch.float16:
            raise InputError("dtype=float16: VCT optimises embeddings, whose gradients vanish there; use bfloat16")
        self.model, self.guidance_scale = model, guidance_scale
        self.null_text, self.fusion = null_text or NullTextOptimization(), fusion or ContentConceptFusion()
        self.settings = TranslationSettings(num_inference_steps=num_inference_steps, strength=1.0)
        self.translator = RenderedToReal(model)
        self._require_sites()
        self.concept = Concept(model, _picture(reference), concept or MultiConceptInversion())

    @property
    def steps(self) -> list[Step]:
        """The steps of inversion and sampling in ascending time order, from t = 0 on."""
        return self.translator.steps(self.settings)

    def learn_concept(self, *, seed: int = 0, progress: Progress | None = None) -> list[float]:
        """Learn the reference, once for all images; `progress` is called with 1 after each step. Returns the losses."""
        return self.concept.learn(seed, progress)

    def save_concept(self, path: str | Path) -> None:
        """Keep what was learned, so that an interrupted job need not learn it again; raises `InputError` before."""
        self.concept.save(path)

    def load_concept(self, path: str | Path) -> None:
        """Take up what was saved; raises `InputError` if it is of another reference or of other settings."""
        self.concept.load(path)

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Image.Image] | Image.Image,
        *,
        seed: int = 0,
        resolution: int | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Translate PIL images of any sizes, one after the other; each comes back in its own size.

        Args:
            images: source images.
            seed: of learning the concept, if it is neither learned nor loaded yet; all the rest is deterministic.
            resolution: short side to work at, in pixels; by default the image's own. Sides are rounded to multiples of
                `model.size_multiple`, and the result is resized back.
            progress: called with 1 each time an image is done.
        """
        if not self.concept.learned:
            self.learn_concept(seed=seed)
        results: list[Image.Image] = []
        for image in [images] if isinstance(images, Image.Image) else images:
            fitted, restore = fit_to_multiple(image, self.model.size_multiple, resolution)
            latents = self.model.encode(to_tensor(fitted)[None].to(self.model.device))
            results.append(restore(to_pil(self.model.decode(self.translate_latents(latents))[0])))
            if progress is not None:
                progress(1)
        return results

    @torch.no_grad()
    def translate_latents(self, latents: Latents) -> Latents:
        """Translate scaled latents, shape (b, c, h, w), one image after the other, with the concept as it stands."""
        concept = self._told(self.concept.settings.placeholder_token)
        return torch.cat([self.fuse(self.invert(image[None]), concept) for image in latents])

    @torch.no_grad()
    def invert(self, latents: Latents) -> NullText:
        """Pivotal turning inversion of one image, shape (1, c, h, w): DDIM inversion, then null-text optimisation."""
        empty = self._told("")
        inversion = self.translator.invert(latents, empty, self.settings).latents
        return self.null_text.optimize(
            self.translator.predict_noise, inversion, self.steps, empty, empty, self.guidance_scale
        )

    @torch.no_grad()
    def fuse(self, content: NullText, concept: TextConditioning) -> Latents:
        """Content-concept fusion: sample the result beside the content, from the same noise; `concept` has one row."""
        empty, latents = self._told(""), content.latents[0]
        inject, refine = self.fusion.controls(concept, self.concept.settings.num_vectors)
        self_steps, cross_steps = self.fusion.windows(self.settings.num_inference_steps)
        with attention_control(self.model.unet, inject, refine):
            for index, step in enumerate(reversed(self.steps)):
                if step.is_identity:
                    break
                inject.enabled, refine.enabled = index < self_steps, index < cross_steps
                rows = {"unconditional": (latents, content.unconditional[index])}
                if inject.enabled or refine.enabled:
                    rows["content"] = content.latents[index], empty
                rows["result"] = latents, concept
                noise = self._noise(rows, step)
                guided = classifier_free_guidance(noise["unconditional"], noise["result"], self.guidance_scale)
                latents = ddim_step(latents, guided, step.signal, step.signal_before)
        return latents

    def _told(self, text: str) -> TextConditioning:
        return in_dtype(self.model.encode_prompts([text]), self.model.unet.dtype)

    def _noise(self, rows: dict[str, tuple[Latents, TextConditioning]], step: Step) -> dict[str, Latents]:
        """The predicted noise of named rows, from one U-Net call."""
        batch, told = torch.cat([row for row, _ in rows.values()]), TextConditioning.cat([c for _, c in rows.values()])
        noise = self.translator.predict_noise(batch, step.timestep, step.signal, told)
        return dict(zip(rows, noise.split(1), strict=True))

    def _require_sites(self) -> None:
        """Controls whose window is open for a step at least must act somewhere."""
        self_steps, cross_steps = self.fusion.windows(self.settings.num_inference_steps)
        if self_steps:
            require_sites(self.model, self.fusion.self_sites)
        if cross_steps:
            require_sites(self.model, Sites("cross"))


def _picture(reference: str | Path | Image.Image) -> Image.Image:
    if isinstance(reference, Image.Image):
        return reference
    if not Path(reference).is_file():
        raise InputError(f"reference={str(reference)!r} is not a file; give one picture that has the look")
    return load_image(reference)
