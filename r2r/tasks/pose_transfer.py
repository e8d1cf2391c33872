"""Pose transfer: learn to draw a person of one picture in the pose of another.

TruePose, *Human-Parsing-guided Attention Diffusion for Full-ID Preserving Pose Transfer* (arXiv:2502.03426). The
network is `r2r.models.pose_denoiser`, sampling `r2r.tasks.pose_sampler`; loss and conditioning are here.

Deviations
- Steps, rates, batch size, resolution, loss and what is trained are not public; the defaults are r2r's: AdamW at 1e-5
  on everything but VAE, text encoder and image encoder, pose and source left out in 10 % of the rows each.
- Pairs of a picture with itself are trained too, and timesteps may lean to noise (`timesteps.cubic`), both after CFLD
  (arXiv:2402.18078).
- The biases of the regions have a rate of their own: at the weights' 1e-5 a log-bias would not move.
- The loss of alignment is one reading of the paper's "CLIP-guided alignment"; it is off by default.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Generator, Tensor

from r2r.diffusion import NoiseLevels
from r2r.errors import InputError
from r2r.models.image_encoder import ImageEncoder
from r2r.models.latent_cache import cached
from r2r.models.pose_denoiser import PoseDenoiser
from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.denoising import denoising_loss, encode_captions, encode_images, keep_codes, noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.tasks.pose_sampler import PROMPT, PoseSampler, PoseSettings
from r2r.types import Images, PoseBatch


class PoseTransfer(LightningModule):
    """Trains TargetNet, SourceNet, pose encoder, region biases and image prompts on pairs of pictures of a person.

    Args:
        model: what TargetNet and SourceNet begin as.
        encoder, image_prompt, crops, use_source, share_weights, use_parsing, use_fusion_bias, min_stride: as of
            `PoseDenoiser`.
        train_source: False keeps SourceNet as it begins.
        pose_dropout, source_dropout: shares of rows that do not see the pose, or the source; independent of each other.
        alignment_weight: of the loss that ties SourceNet's values to the image encoder (CAA as a loss); 0: none.
        region_lr: learning rate of the region biases.
        prompt: of every row.
        sampling: of previews.
        cache_latents: keep the latents and tokens of every image in memory, so that each is encoded once; a folder, for
            later runs too.
        initial: export to begin with.

    Raises InputError for shares outside [0, 1], settings that do not fit each other, or another `initial`.
    """

    def __init__(
        self,
        model: StableDiffusion,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        encoder: ImageEncoder | None = None,
        image_prompt: dict[str, Any] | None = None,
        crops: Sequence[str] = ("face", "clothes"),
        use_source: bool = True,
        share_weights: bool = False,
        use_parsing: bool = True,
        use_fusion_bias: bool = True,
        min_stride: int = 1,
        train_source: bool = True,
        pose_dropout: float = 0.1,
        source_dropout: float = 0.1,
        alignment_weight: float = 0.0,
        region_lr: float = 1e-3,
        prompt: str = PROMPT,
        sampling: PoseSettings | None = None,
        timesteps: NoiseLevels | None = None,
        min_snr_gamma: float | None = None,
        gradient_checkpointing: bool = False,
        cache_latents: bool | str = False,
        initial: str | None = None,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials waiting for parameters and optimizer."""
        super().__init__()
        if not all(0 <= share <= 1 for share in (pose_dropout, source_dropout)):
            raise InputError(f"pose_dropout={pose_dropout} source_dropout={source_dropout} must lie in [0, 1]")
        if gradient_checkpointing and share_weights:
            raise InputError("gradient_checkpointing runs layers again when TargetNet fuses: not with share_weights")
        parts = {"crops": crops, "use_source": use_source, "share_weights": share_weights, "use_parsing": use_parsing}
        parts |= {"use_fusion_bias": use_fusion_bias, "align": alignment_weight > 0, "min_stride": min_stride}
        self.denoiser = PoseDenoiser(model, encoder, image_prompt, **parts)
        if initial is not None:
            self.denoiser.load(initial)
        self.denoiser.requires_grad_(True).train()
        if self.denoiser.source is not None:
            self.denoiser.source.requires_grad_(train_source)
        self.model, self.optimizer, self.lr_scheduler, self.seed = model, optimizer, lr_scheduler, seed
        self.encode = model.cached_encode(cache_latents)
        if cache_latents and encoder is not None:
            self.denoiser.read = cached(encoder.__call__, cache_latents, encoder)
        self.pose_dropout, self.source_dropout, self.region_lr = pose_dropout, source_dropout, region_lr
        self.alignment_weight, self.prompt, self.sampling = alignment_weight, prompt, sampling or PoseSettings()
        self.timesteps, self.min_snr_gamma = timesteps or NoiseLevels(), min_snr_gamma
        if gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
            if self.denoiser.source is not None and train_source:
                self.denoiser.source.unet.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]

    def on_fit_start(self) -> None:
        """Bring the frozen networks along; they are not in the module tree."""
        self.denoiser.to_device(self.device)

    def on_train_end(self) -> None:
        """Write what was encoded last."""
        keep_codes(self.encode, self.denoiser.read)

    def training_step(self, batch: PoseBatch, batch_idx: int) -> Tensor:
        """The denoising loss of the targets; chance depends on seed, step and rank alone."""
        generator, count = noise_generator(self, self.seed), len(batch["target"])
        posed, looking = (torch.rand(2, count, generator=generator, device=generator.device)).unbind()
        loss = self._loss(batch, generator, looking >= self.source_dropout, posed >= self.pose_dropout)
        self.log("train/loss", loss, batch_size=count)
        return loss

    def validation_step(self, batch: PoseBatch, batch_idx: int) -> None:
        """The same loss on noise fixed by the batch index, all conditions seen."""
        loss = self._loss(batch, Generator(self.device).manual_seed(batch_idx))
        self.log("val/loss", loss, batch_size=len(batch["target"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over what trains, region biases at a rate of their own, and a schedule stepped every step."""
        regions = list(self.denoiser.fusion.parameters())
        known = {id(parameter) for parameter in regions}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        groups: list[Any] = [{"params": rest}]
        if regions:
            groups.append({"params": regions, "lr": self.region_lr, "weight_decay": 0.0})
        return stepwise(self.optimizer, self.lr_scheduler, groups)

    @torch.no_grad()
    def preview(self, batch: PoseBatch) -> dict[str, Images]:
        """Sources, the persons in the targets' poses, and the targets."""
        sources, poses = batch["source"].to(self.device), batch["target_pose"].to(self.device)
        sampler = PoseSampler(self.denoiser, self.prompt)
        posed = sampler(sources, self._parsing(batch), poses, settings=self.sampling)
        return {"source": sources, "posed": posed, "target": batch["target"]}

    def export(self, folder: Path) -> None:
        """Write what differs from the base model; see `PoseDenoiser.save`."""
        self.denoiser.save(folder, prompt=self.prompt)

    def _loss(
        self,
        batch: PoseBatch,
        generator: Generator,
        looking: Tensor | None = None,
        posed: Tensor | None = None,
    ) -> Tensor:
        sources = batch["source"]
        latents, own = (encode_images(self.encode, batch, name) for name in ("target", "source"))
        condition = encode_captions(self.model, [self.prompt] * len(latents), train=False)
        seen = self.denoiser.look(sources, self._parsing(batch), condition, own)
        residuals = self.denoiser.pose(batch["target_pose"], (sources.shape[2], sources.shape[3]))
        told = {"condition": condition, "seen": seen, "residuals": residuals, "looking": looking, "posed": posed}
        predict = partial(self.denoiser.predict, **told)
        loss = denoising_loss(self.model, latents, predict, generator, self.timesteps, self.min_snr_gamma)
        return loss if seen.misalignment is None else loss + self.alignment_weight * seen.misalignment

    def _parsing(self, batch: PoseBatch) -> Tensor | None:
        return batch["source_parsing"].to(self.device) if "source_parsing" in batch else None
