"""A reference net: a U-Net that looks at a clean picture once, and whose keys and values another U-Net fuses.

The twin network of garment restoration (IGR, arXiv:2412.11513), pose transfer and try-on. Features of the picture are
aligned with those of the denoiser because both networks have one architecture and begin with the same weights.

Deviations
- IGR's formula is not public. Here, as in open relatives (Animate Anyone, IDM-VTON), self-attention is over own and
  reference keys in one softmax, at t = 0 and in a single pass; but keys and values are those of the reference net's own
  projections, where those relatives project its features by the denoiser's: at the start the two are equal.
- What cannot reach a recorded layer is cut off: the up blocks behind the last of them, and in that one query, softmax,
  cross-attention and feed-forward.
"""

from copy import deepcopy
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from r2r.attention import (
    AttentionBank,
    AttentionInputs,
    AttentionSite,
    KeyValue,
    Record,
    Sites,
    attention_sites,
    install,
)


class ReferenceNet(nn.Module):
    """Fills `bank` with keys and values of every self-attention that `where` selects, whenever it is called."""

    def __init__(self, unet: UNet2DConditionModel, where: Sites | None = None) -> None:
        """Begin as a copy of `unet`, which is left alone; every parameter that is kept can matter.

        Raises ValueError when `where` selects no self-attention of the middle or of an up block.
        """
        super().__init__()
        self.unet, self.bank, self.sample_evals = deepcopy(unet), AttentionBank(), 0
        self.where = where or Sites("self")
        self.sites = [site for site in attention_sites(self.unet) if self.where(site)]
        if not self.sites or self.sites[-1].place == "down":
            raise ValueError(f"{self.where} selects no self-attention of the middle or of an up block to fuse")
        record = Record(self.bank, self.where, query=False)
        _cut(self.unet, self.sites[-1])
        install(self.unet, record)
        last: Any = self.unet.get_submodule(self.sites[-1].name)
        last.set_processor(KeysAndValues(self.sites[-1], record))

    def forward(self, latents: Tensor, **told: Any) -> AttentionBank:
        """Keys and values of scaled latents (b, c, h, w) at t = 0; `told` as by `StableDiffusion.told`."""
        self.bank.clear()  # other persons may be other in number and size
        self.sample_evals += len(latents)
        times = torch.zeros((), dtype=torch.long, device=latents.device)
        self.unet(latents, times, return_dict=False, **told)
        return self.bank


class KeysAndValues:
    """In place of the last attention: what it would attend to is recorded, and nothing is computed from it."""

    def __init__(self, site: AttentionSite, record: Record) -> None:
        self.site, self.record = site, record

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], attn.heads, -1).transpose(1, 2)

        key, value = split(attn.to_k(hidden_states)), split(attn.to_v(hidden_states))
        self.record(AttentionInputs(key, (KeyValue(key, value),)), self.site)
        return hidden_states


class _Nothing(nn.Module):
    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros_like(hidden_states)


def _cut(unet: Any, last: AttentionSite) -> None:
    """Take away what comes after a site."""
    kept = int(last.name.split(".")[1]) + 1 if last.place == "up" else 0
    unet.up_blocks = unet.up_blocks[:kept]
    unet.conv_norm_out, unet.conv_out = None, nn.Identity()
    block = unet.get_submodule(last.name.removesuffix(".attn1"))
    transformer = unet.get_submodule(last.name.split(".transformer_blocks")[0])
    if kept:
        unet.up_blocks[-1].upsamplers = None
    block.attn2, block.ff = None, _Nothing()
    block.norm2, block.norm3, transformer.proj_out = None, nn.Identity(), nn.Identity()
    block.attn1.to_q, block.attn1.to_out = nn.Identity(), nn.Identity()
    if not kept:
        unet.mid_block.resnets[1:] = [_Nothing() for _ in unet.mid_block.resnets[1:]]
