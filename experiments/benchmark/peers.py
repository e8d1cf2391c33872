"""What r2r is timed against: diffusers' training scripts and its pipelines that edit images.

The wheel of diffusers has no scripts; these are the loops of its `examples/text_to_image/train_text_to_image.py` and
`examples/textual_inversion/textual_inversion.py`, statement by statement, with their defaults where they have any
(accelerate, AdamW by torch, VAE and text encoder in every step, the loss read by the host in every step, and for the
embedding the whole table in the optimizer, its other rows put back after each step). Argument parsing, checkpoints,
validation and trackers are left out, as in r2r's runs.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, DiffusionPipeline
from diffusers.optimization import get_scheduler
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

TOKEN, VECTORS = "<rendered>", 4


class Clock:
    """Seconds of a step, in windows of several, each from one point where the device has done all work to the next."""

    def __init__(self, seconds: float, warm_up: int, window: int) -> None:
        self.seconds, self.warm_up, self.window = seconds, warm_up, window
        self.steps, self.last, self.windows = 0, 0.0, list[float]()

    def tick(self) -> bool:
        """Once after each step; whether time is up."""
        self.steps += 1
        since = self.steps - self.warm_up
        if since < 0 or since % self.window:
            return False
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if since:
            self.windows.append((now - self.last) / self.window)
        elif torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.last = now
        return sum(self.windows) * self.window >= self.seconds and len(self.windows) > 1


class Stopwatch(Callback):
    """A clock in a Lightning run, which it ends."""

    clock: Clock

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """One step more."""
        trainer.should_stop = self.clock.tick()


def pictures(folder: Path, side: int, batch: int, workers: int) -> Callable[[], Iterator[Any]]:
    """Endless shuffled batches of images and captions, as the scripts transform them."""
    change = transforms.Compose(
        [
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    paths = sorted(folder.glob("*.png"))

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
            return change(Image.open(paths[index]).convert("RGB")), paths[index].with_suffix(".txt").read_text()

    loader = DataLoader(Pictures(), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    return batches


def noisy(vae: Any, schedule: Any, images: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Encoded images with noise, what the U-Net is to say of them, and the timesteps."""
    latents = vae.encode(images.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
    noise = torch.randn_like(latents)
    times = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),), device=latents.device).long()
    return (
        schedule.add_noise(latents.float(), noise.float(), times).to(dtype),
        target(schedule, latents, noise, times),
        times,
    )


def target(schedule: Any, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The noise, or v."""
    if schedule.config.prediction_type == "epsilon":
        return noise
    return schedule.get_velocity(latents, noise, times)


def loss_of(unet: Any, latents: torch.Tensor, wanted: torch.Tensor, times: torch.Tensor, told: Any) -> torch.Tensor:
    """Mean squared error of the prediction."""
    predicted = unet(latents, times, told, return_dict=False)[0]
    return F.mse_loss(predicted.float(), wanted.float(), reduction="mean")


def tokens(pipe: Any, captions: list[str], device: torch.device) -> torch.Tensor:
    """Captions as the scripts tokenise them."""
    length = pipe.tokenizer.model_max_length
    told = pipe.tokenizer(captions, max_length=length, padding="max_length", truncation=True, return_tensors="pt")
    return told.input_ids.to(device)


def text_to_image(model: Path, data: Callable[[], Iterator[Any]], clock: Clock) -> None:
    """The loop of `train_text_to_image.py`, until the clock ends it."""
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    pipe, device = DiffusionPipeline.from_pretrained(model, safety_checker=None), accelerator.device
    schedule, unet = DDPMScheduler.from_config(pipe.scheduler.config), pipe.unet.train()
    for frozen in (pipe.vae, pipe.text_encoder):
        frozen.requires_grad_(False).to(device, dtype=dtype)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    unet, optimizer, rate = accelerator.prepare(unet, optimizer, get_scheduler("constant", optimizer))
    for images, captions in data():
        with accelerator.accumulate(unet):
            latents, wanted, times = noisy(pipe.vae, schedule, images.to(device), dtype)
            told = pipe.text_encoder(tokens(pipe, captions, device), return_dict=False)[0]
            loss = loss_of(unet, latents, wanted, times, told)
            accelerator.gather(loss.repeat(len(images))).mean().item()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        if clock.tick():
            return


def textual_inversion(model: Path, data: Callable[[], Iterator[Any]], clock: Clock) -> None:
    """The loop of `textual_inversion.py`, until the clock ends it."""
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    pipe, device = DiffusionPipeline.from_pretrained(model, safety_checker=None), accelerator.device
    schedule, encoder = DDPMScheduler.from_config(pipe.scheduler.config), pipe.text_encoder
    names = [TOKEN, *(f"{TOKEN}_{each}" for each in range(1, VECTORS))]
    pipe.tokenizer.add_tokens(names)
    encoder.resize_token_embeddings(len(pipe.tokenizer))
    for frozen in (pipe.vae, pipe.unet):
        frozen.requires_grad_(False).to(device, dtype=dtype)
    encoder.requires_grad_(False)
    table = encoder.get_input_embeddings()
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW(table.parameters(), lr=2e-3, weight_decay=1e-2)
    encoder, optimizer, rate = accelerator.prepare(encoder.train(), optimizer, get_scheduler("constant", optimizer))
    before, kept = table.weight.data.clone(), torch.ones(len(pipe.tokenizer), dtype=torch.bool)
    kept[pipe.tokenizer.convert_tokens_to_ids(names)] = False
    prompt = tokens(pipe, [" ".join(names)], device)
    for images, _ in data():
        with accelerator.accumulate(encoder):
            latents, wanted, times = noisy(pipe.vae, schedule, images.to(device), dtype)
            told = encoder(prompt.repeat(len(images), 1))[0].to(dtype)
            loss = loss_of(pipe.unet, latents, wanted, times, told)
            accelerator.backward(loss)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            with torch.no_grad():
                table.weight[kept] = before[kept]
            loss.detach().item()
        if clock.tick():
            return


def editing(name: str, model: Path, device: str, dtype: torch.dtype) -> tuple[Any, Callable[[list[Image.Image]], Any]]:
    """A pipeline of diffusers and how it edits pictures at strength 0.3 of 50 steps, or as far as it goes."""
    import diffusers

    pipe: Any = getattr(diffusers, name).from_pretrained(model, safety_checker=None, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    if name.startswith("LEdits"):  # its own default, and what its documentation takes
        sampler: Any = diffusers.DPMSolverMultistepScheduler
        pipe.scheduler = sampler.from_config(pipe.scheduler.config, algorithm_type="sde-dpmsolver++", solver_order=2)
    else:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    if hasattr(pipe, "inverse_scheduler"):
        pipe.inverse_scheduler = diffusers.DDIMInverseScheduler.from_config(pipe.scheduler.config)
    photo, render = "a photo of clothing", "a render of clothing"

    def img2img(images: list[Image.Image]) -> Any:
        return pipe([photo] * len(images), image=images, strength=0.3, num_inference_steps=50, guidance_scale=7.5)

    def diffedit(images: list[Image.Image]) -> Any:
        for image in images:  # its inversion takes one at a time
            mask = pipe.generate_mask(image, target_prompt=photo, source_prompt=render, num_maps_per_mask=1)
            inverted = pipe.invert(image=image, prompt=render, inpaint_strength=0.3, num_inference_steps=50).latents
            told = {"prompt": photo, "negative_prompt": render, "inpaint_strength": 0.3, "num_inference_steps": 50}
            pipe(mask_image=mask, image_latents=inverted, **told)

    def ledits(images: list[Image.Image]) -> Any:
        for image in images:
            pipe.invert(image=image, num_inversion_steps=50, skip=0.7)
            pipe(editing_prompt=[photo], edit_guidance_scale=7.5, edit_threshold=0.9)

    ways = {
        "StableDiffusionImg2ImgPipeline": img2img,
        "StableDiffusionDiffEditPipeline": diffedit,
        "LEditsPPPipelineStableDiffusion": ledits,
    }
    return pipe, ways[name]
