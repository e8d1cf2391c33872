"""What the denoising tasks share: reproducible noise, conditioning on captions, and the loss itself."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Generator, Tensor

from r2r.diffusion import NoiseLevels, min_snr_weights, offset_noise, training_target, weighted_mse
from r2r.errors import DataError
from r2r.models.latent_cache import LatentCache, NonFiniteCodes
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.types import Images, Latents


def noise_generator(task: LightningModule, seed: int) -> Generator:
    """Depends on seed, training batch and rank alone: a resumed run draws what a straight one draws."""
    batch = task.trainer.fit_loop.total_batch_idx
    return Generator(task.device).manual_seed((seed * 1_000_003 + batch) * 4_099 + task.global_rank)


def encode_captions(
    model: StableDiffusion, captions: list[str], train: bool, known: dict[str, TextConditioning] | None = None
) -> TextConditioning:
    """Conditioning for each caption; every distinct caption goes through the text encoder once.

    Captions in `known` do not go through it again, and new ones are added: for text encoders that stay as they are.
    """
    unique = sorted(set(captions))
    if known is not None:
        if missing := [caption for caption in unique if caption not in known]:
            with torch.no_grad():
                encoded = model.encode_prompts(missing)
            known |= {caption: encoded.select([row]) for row, caption in enumerate(missing)}
        return TextConditioning.cat([known[caption] for caption in captions])
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        encoded = model.encode_prompts(unique)
        return encoded.select([unique.index(caption) for caption in captions])


def encode_images(encode: Callable[[Images], Tensor], batch: Mapping[str, Any], name: str) -> Tensor:
    """Latents or tokens of the batch's images of that name, which a cache knows by the digests that lie beside them.

    Raises DataError naming the image for which a cache gets NaN or infinity.
    """
    try:
        known = (batch.get(f"{name}_digest"),) if isinstance(encode, LatentCache) else ()
        return encode(batch[name], *known)
    except NonFiniteCodes as error:
        raise DataError(
            f"{batch['key'][error.row]}: its code is not finite; look at the image, and encode in float32 or bfloat16"
        ) from error


def keep_codes(*encoders: Any) -> None:
    """Let encoders that cache in a folder write what is not there yet."""
    for encoder in encoders:
        if isinstance(encoder, LatentCache):
            encoder.flush()


def denoising_loss(
    model: StableDiffusion,
    latents: Latents,
    predict: Callable[[Latents, Tensor], Latents],
    generator: Generator,
    timesteps: NoiseLevels,
    min_snr_gamma: float | None = None,
    offset: float = 0.0,
    places: Tensor | None = None,
) -> Tensor:
    """Mean squared error of what `predict` makes of noisy latents, noise or v, at random timesteps.

    `offset` is the strength of `offset_noise`; `places`, (b, 1, zh, zw), how much each place counts.
    """
    schedule = model.schedule
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
    times = timesteps.sample(len(latents), schedule.num_train_timesteps, generator)
    noise = offset_noise(noise, offset, generator) if offset else noise
    output = predict(schedule.add_noise(latents, noise, times), times)
    weights = None if min_snr_gamma is None else min_snr_weights(schedule, times, min_snr_gamma)
    return weighted_mse(output, training_target(schedule, latents, noise, times), weights, places)
