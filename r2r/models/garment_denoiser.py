"""A denoiser of flat garments that looks at the person who wears them: reference net, image prompt, fusion blocks.

IGR, *Improving Diffusion Model for Garment Restoration from Person Image* (arXiv:2412.11513): a pretrained latent
diffusion model, two garment extractors of the person image, for low-level features and for high-level semantics, and
fusion blocks that combine self- and cross-attention.

Deviations
- Of the paper only the abstract, first lines and two captions could be read; no formula of it is known. This is a
  construction of r2r's after its open relatives (IDM-VTON, Magic Clothing, Animate Anyone, IP-Adapter): in every block
  self-attention over own and reference keys (`ReferenceNet`), then cross-attention to the text plus a scaled one to
  image tokens (`ImagePrompt`).
- A summary of the paper calls the IP-Adapter the low-level extractor and the twin network the high-level one; all its
  relatives have it the other way round. The two are named by mechanism here.
- A garment mask on the reference keys and the category in the prompt are r2r's; either can be left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from r2r.attention import AttentionBank, AttentionInputs, AttentionSite, Fuse, KeyValue, RowMap, Sites, install
from r2r.errors import InputError
from r2r.models.exported_parts import base_settings, load_parts, read_content, save_parts
from r2r.models.image_encoder import ImageEncoder
from r2r.models.image_prompt import ImagePrompt
from r2r.models.reference_net import ReferenceNet
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.types import GarmentMask, Images, Latents

SETTINGS = "garment.json"
EXPORTS = {"tiny": Path(__file__).parents[1] / "assets" / "garment"}  # shipped; any other name is a folder
PARTS = ("unet", "reference", "image_prompt")  # what an export may hold, each in NAME.safetensors


@dataclass
class ReferenceKeys:
    """Which reference keys each row sees: those of the garment, or all; none for rows that are not to look."""

    seen: dict[str, Bool[Tensor, "b 1 1 m"]] = field(default_factory=dict)  # by site, where a mask was given
    looking: Bool[Tensor, " b"] | None = None
    groups: int = 1  # of rows, each as many as persons

    def cut(
        self, bank: AttentionBank, sites: Sequence[AttentionSite], mask: GarmentMask, size: tuple[int, int]
    ) -> None:
        """Cut a bank down to the garment, so that attention pays for its keys alone; `size` is that of the latents.

        A token sees the garment where any of its pixels does. Persons of whom fewer tokens do than of another are
        filled up with keys that are masked.
        """
        found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for site in sites:
            grid, inputs = site.token_grid(*size), bank[site.name]
            if grid not in found:
                found[grid] = _first(F.adaptive_max_pool2d(mask.float(), grid).flatten(1) > 0)
            order, seen = found[grid]
            key, value = (inputs.part(part).take_along_dim(order[:, None, :, None], dim=2) for part in ("key", "value"))
            bank[site.name] = AttentionInputs(inputs.query, (KeyValue(key, value),))
            self.seen[site.name] = seen[:, None, None]

    def __call__(self, site: AttentionSite, tokens: int) -> Bool[Tensor, "b 1 1 m"] | None:
        looking = None if self.looking is None else self.looking[:, None, None, None].expand(-1, 1, 1, tokens)
        seen = self.seen.get(site.name)
        if seen is None:
            return looking
        seen = seen.repeat(self.groups, 1, 1, 1)
        return seen if looking is None else seen & looking


@dataclass(frozen=True)
class Appearance:
    """What was seen of persons, once: tokens of the image prompt; the rest lies in the bank."""

    shape: torch.Size  # of the latents: b, c, h, w
    tokens: Float[Tensor, "b k d"] | None

    @property
    def count(self) -> int:
        """How many persons."""
        return self.shape[0]


class GarmentDenoiser(nn.Module):
    """The U-Net of `model` with both extractors; controls are installed for good.

    Parameters of the module are those that may train: U-Net, reference net, image prompt. VAE, text encoder and image
    encoder stay frozen outside.
    """

    def __init__(
        self,
        model: StableDiffusion,
        encoder: ImageEncoder | None = None,
        image_prompt: dict[str, Any] | None = None,
        *,
        use_reference: bool = True,
        min_stride: int = 1,
    ) -> None:
        """Build on a pretrained model.

        Args:
            model: its U-Net becomes the denoiser, and the reference net begins as a copy of it.
            encoder: of the image prompt; None leaves the image prompt out.
            image_prompt: settings of `ImagePrompt`.
            use_reference: False leaves the reference net out.
            min_stride: self-attentions from this stride on are fused; larger ones are cheaper and keep less detail.

        Raises InputError when a setting does not fit the U-Net.
        """
        super().__init__()
        self.model, self.unet, self._encoder = model, model.unet, [encoder]  # in a list: not a module of this one
        where = Sites("self", min_stride=min_stride)
        try:
            self.reference = ReferenceNet(model.unet, where) if use_reference else None
            settings = image_prompt or {}
            self.image_prompt = ImagePrompt(model.unet, encoder.width, **settings) if encoder is not None else None
        except ValueError as error:
            raise InputError(str(error)) from error
        origin = encoder.origin if encoder is not None else None
        self.settings = {
            **base_settings(model),
            "min_stride": min_stride,
            "encoder": origin,
            "image_prompt": settings,
        }
        self.keys, self.reference_is_base = ReferenceKeys(), True
        self.fuse = Fuse(self.reference.bank, where, self.keys) if self.reference is not None else None
        install(model.unet, *(control for control in (self.fuse, self.image_prompt) if control is not None))

    @property
    def encoder(self) -> ImageEncoder | None:
        """The frozen image encoder."""
        return self._encoder[0]

    def to_device(self, device: torch.device | str) -> "GarmentDenoiser":
        """Move everything, also what is frozen."""
        self.model.to(device)
        if self.encoder is not None:
            self.encoder.to(device)
        return self.to(device)

    def look(
        self,
        persons: Images,
        condition: TextConditioning,
        mask: GarmentMask | None = None,
        latents: Latents | None = None,
        encoded: Float[Tensor, "b n d"] | None = None,
    ) -> Appearance:
        """Look at persons once, for any number of predictions.

        The condition is what the denoiser is told; `latents` and `encoded` are the persons' own and what the image
        encoder makes of them, where they are known already. What the reference net saw is kept until the next call.
        """
        latents = self.model.encode(persons) if latents is None else latents
        if self.reference is not None:
            bank = self.reference(latents, **self.model.told(latents, condition))
            self.keys.seen.clear()
            if mask is not None:
                self.keys.cut(bank, self.reference.sites, mask, (latents.shape[2], latents.shape[3]))
        prompt, encoder = self.image_prompt, self.encoder
        if prompt is None or encoder is None:
            return Appearance(latents.shape, None)
        return Appearance(latents.shape, prompt.read(encoder(persons) if encoded is None else encoded))

    def predict(
        self,
        latents: Latents,
        timesteps: Tensor,
        condition: TextConditioning,
        appearance: Appearance,
        looking: Bool[Tensor, " b"] | None = None,
        told: Bool[Tensor, " b"] | None = None,
    ) -> Latents:
        """One denoiser call on k groups of as many rows as persons were looked at, in their order.

        `looking` and `told` say which rows see the reference and the image tokens; None: all of them.
        """
        groups = len(latents) // appearance.count
        if self.fuse is not None:
            self.keys.looking, self.keys.groups = looking, groups
            self.fuse.rows = RowMap.every_group(groups, appearance.count)
        if self.image_prompt is not None and appearance.tokens is not None:
            tokens = appearance.tokens.repeat(groups, 1, 1)
            self.image_prompt.tokens = tokens if told is None else tokens * told[:, None, None].to(tokens)
        return self.model.predict(latents, timesteps, condition)

    @property
    def parts(self) -> list[str]:
        """Which of `PARTS` there are."""
        return [name for name in PARTS if getattr(self, name) is not None]

    def save(self, folder: Path, dtype: torch.dtype = torch.float32, **about: Any) -> None:
        """Write how it is put together, and what differs from the base model (a reference net only if trained).

        `about` is kept beside the settings.
        """
        trained = any(p.requires_grad for p in self.reference.parameters()) if self.reference is not None else False
        changed = trained or not self.reference_is_base
        parts = {name: getattr(self, name) for name in self.parts if name != "reference" or changed}
        save_parts(folder, SETTINGS, {"parts": self.parts, **self.settings, **about}, parts, dtype)

    def load(self, folder: str | Path) -> None:
        """Take up the weights of an export. Raises InputError for one that was put together differently."""
        own, parts = {"parts": self.parts, **self.settings}, {name: getattr(self, name) for name in self.parts}
        found = load_parts(export_folder(folder), read_settings(folder), own, parts)
        self.reference_is_base &= "reference" not in found


def export_folder(name: str | Path) -> Path:
    """An export by the name of a shipped one ("tiny"), or by its folder."""
    return EXPORTS.get(str(name), Path(name))


def read_settings(name: str | Path) -> dict[str, Any]:
    """What an export says of itself. Raises InputError for a folder that is none."""
    return read_content(export_folder(name), SETTINGS, "igr_coarse or igr_fine")


def _first(seen: Bool[Tensor, "b n"]) -> tuple[Tensor, Bool[Tensor, "b m"]]:
    """Places of what is seen, before those of what is not, as many as the row that sees most; and which those are."""
    count = max(1, int(seen.sum(1).max()))
    order = seen.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return order, seen.gather(1, order)
