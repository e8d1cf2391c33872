"""Multi-concept inversion: several vectors of one placeholder token learn what a single reference picture shows.

*General Image-to-Image Translation with One-Shot Image Guidance* (VCT, arXiv:2307.14352), first half of content-concept
inversion: textual inversion (arXiv:2208.01618) with more than one vector and a second loss term,

    MSE(eps_hat, eps) + l1_weight * L1(z0_hat, z0)

in latents. Everything but the vectors is frozen; the prompt is the placeholder alone. Read: the README, and `main.py`
in the state of a notebook checkpoint.

Deviations
- 500 steps and the L1 term are the README's command; the released defaults are 50 steps without it. The README calls
  100 to 1000 steps usual. Rate 2e-3 is the released 5e-4 times its 4 accumulated gradients, which are one batch here.
- The reference keeps its proportions, its short side at the model's resolution; released: resized to 512 x 512.
- Its latents (and those of its mirror image) are the means of the VAE's posterior, encoded once; released: new samples.
- Vectors start from the tokens of the initializer, cycled (`add_placeholder`); equal for one token. "photo" is r2r's
  choice, the released code has no default.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn.functional import l1_loss

from r2r.data.images import fit_to_multiple, to_rgb, to_tensor
from r2r.diffusion import NoiseLevels, Schedule, training_target, weighted_mse
from r2r.errors import InputError
from r2r.models.placeholder_tokens import add_placeholder
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.denoising import encode_captions
from r2r.tasks.null_text import in_dtype
from r2r.types import Latents


@dataclass(frozen=True, kw_only=True)
class MultiConceptInversion:
    """How to learn a concept; AdamW has betas (0.9, 0.999) and eps 1e-8."""

    placeholder_token: str = "<concept>"
    num_vectors: int = 3
    initializer: str = "photo"
    resolution: int | None = None  # short side of the reference in pixels; the model's if None
    steps: int = 500
    batch_size: int = 4  # noise draws for each step
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    l1_weight: float = 1.0
    flip: bool = True  # half of the draws see the reference mirrored

    def __post_init__(self) -> None:
        size = 1 if self.resolution is None else self.resolution
        if min(self.num_vectors, self.steps, self.batch_size, size) < 1:
            raise InputError(f"{self}: vectors, steps, batch size and resolution must be at least 1")
        if self.learning_rate <= 0 or min(self.weight_decay, self.l1_weight) < 0:
            raise InputError(f"{self}: the rate must be above 0, decay and weight at least 0")


class Concept:
    """The vectors of a placeholder token that stand for a reference picture, one set for each text encoder."""

    def __init__(self, model: StableDiffusion, reference: Image.Image, settings: MultiConceptInversion) -> None:
        """Add the token to the model; it means the initializer until it is learned or loaded.

        Raises:
            InputError: the token is taken, the initializer empty, or there are more vectors than a prompt has places.
        """
        self.model, self.settings, self.learned = model, settings, False
        places = min(tokenizer.model_max_length for _, tokenizer in model.text_parts()) - 2
        if settings.num_vectors > places:
            raise InputError(f"num_vectors={settings.num_vectors} do not fit into a prompt of {places} tokens")
        size = settings.resolution or model.resolution
        self.reference, _ = fit_to_multiple(to_rgb(reference), model.size_multiple, size)
        self.vectors = add_placeholder(model, settings.placeholder_token, settings.num_vectors, settings.initializer)
        self.initial = [vectors.detach().clone() for vectors in self.vectors]

    def learn(self, seed: int = 0, progress: Callable[[int], None] | None = None) -> list[float]:
        """Learn from the beginning; the result depends on the seed alone. Returns the loss of every step.

        `progress` is called with 1 after each step.
        """
        self._set(self.initial)
        latents, losses = self._latents(), list[float]()
        generator = Generator(self.model.device).manual_seed(seed)
        settings = self.settings
        optimizer = torch.optim.AdamW(self.vectors, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        for _ in range(settings.steps):
            losses.append(self._update(optimizer, latents, generator))
            if progress is not None:
                progress(1)
        self.learned = True
        return losses

    def save(self, path: str | Path) -> None:
        """Write `{token: (v, d)}` (`clip_l` and `clip_g` for SDXL) and, as metadata, what it was learned from.

        Raises:
            InputError: there is nothing to save yet.
        """
        if not self.learned:
            raise InputError(f"{self.settings.placeholder_token!r} is not learned yet: call learn() before save()")
        values = [vectors.detach().cpu().contiguous() for vectors in self.vectors]
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        save_file(dict(zip(self._names(), values, strict=True)), partial, metadata=self._origin())
        os.replace(partial, file)

    def load(self, path: str | Path) -> None:
        """Take vectors from a file of `save`, or from a textual inversion that has as many (it has no metadata).

        Raises:
            InputError: no such file, other shapes, or learned from another reference or with other settings.
        """
        values, origin = self._read(path)
        own = self._origin()
        other = [
            f"{name}={origin[name]} instead of {own[name]}" for name in own if origin.get(name, own[name]) != own[name]
        ]
        if other:
            raise InputError(f"concept {str(path)!r} was learned with {', '.join(other)}; remove it to learn anew")
        self._set(values)
        self.learned = True

    def _read(self, path: str | Path) -> tuple[list[Tensor], dict[str, str]]:
        """Vectors of the expected shapes, and the metadata beside them."""
        try:
            with safe_open(path, "pt") as file:
                names = file.keys() if len(self.vectors) == 1 else self._names()
                values, origin = [file.get_tensor(name) for name in names], file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise InputError(f"concept {str(path)!r} cannot be read: {error}") from error
        shapes, expected = ([tuple(vectors.shape) for vectors in each] for each in (values, self.vectors))
        if shapes != expected:
            raise InputError(f"concept {str(path)!r} holds vectors of shapes {shapes}, expected {expected}")
        return values, origin

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for vectors, value in zip(self.vectors, values, strict=True):
            vectors.copy_(value)

    def _names(self) -> list[str]:
        return [self.settings.placeholder_token] if len(self.vectors) == 1 else ["clip_l", "clip_g"]

    def _origin(self) -> dict[str, str]:
        """What the vectors depend on: the reference as it is seen, and every setting."""
        pixels = hashlib.sha256(self.reference.tobytes()).hexdigest()[:16]
        return {"reference": pixels} | {name: str(value) for name, value in vars(self.settings).items()}

    def _latents(self) -> Latents:
        """The reference, and its mirror image if wanted: (1 or 2, c, h, w)."""
        pixels = to_tensor(self.reference)
        views = [pixels, pixels.flip(-1)] if self.settings.flip else [pixels]
        return self.model.encode(torch.stack(views).to(self.model.device))

    @torch.enable_grad()
    def _update(self, optimizer: torch.optim.Optimizer, latents: Latents, generator: Generator) -> float:
        count = self.settings.batch_size
        views = torch.randint(len(latents), (count,), generator=generator, device=generator.device)
        condition = encode_captions(self.model, [self.settings.placeholder_token] * count, train=True)
        loss = concept_loss(self.model, latents[views], condition, generator, self.settings.l1_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()


def concept_loss(
    model: StableDiffusion, latents: Latents, condition: TextConditioning, generator: Generator, l1_weight: float
) -> Float[Tensor, ""]:
    """Mean squared error of the noise (or v), and the L1 distance of the latents it implies, at uniform timesteps."""
    schedule = model.schedule
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
    times = NoiseLevels().sample(len(latents), schedule.num_train_timesteps, generator)
    noisy = schedule.add_noise(latents, noise, times)
    output = model.predict(noisy, times, in_dtype(condition, noisy.dtype))
    error = weighted_mse(output, training_target(schedule, latents, noise, times))
    return error + l1_weight * l1_loss(clean_latents(schedule, output, noisy, times).float(), latents.float())


def clean_latents(schedule: Schedule, output: Latents, noisy: Latents, timesteps: Int[Tensor, " b"]) -> Latents:
    """The clean latents that a network output implies: (x - sqrt(1 - abar) eps) / sqrt(abar), or from v."""
    signal = schedule.alphas_cumprod.to(noisy.device)[timesteps].to(noisy.dtype)[:, None, None, None]
    if schedule.prediction == "epsilon":
        return (noisy - (1 - signal).sqrt() * output) / signal.sqrt()
    return signal.sqrt() * noisy - (1 - signal).sqrt() * output
