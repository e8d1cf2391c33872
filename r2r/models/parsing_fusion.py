"""Fusion guided by human parsing: how much each source token counts, by the region of the person it shows.

HPFA of TruePose, *Human-Parsing-guided Attention Diffusion for Full-ID Preserving Pose Transfer* (arXiv:2502.03426).
With S_r the share of a source token's pixels in region r, and b_r learned for each layer,

    out = softmax([Q K^T / sqrt(d), Q K_src^T / sqrt(d) + log sum_r S_r exp(b_r)]) [V, V_src]

Deviations
- The paper's formula is not public; this is r2r's construction. b = 0, where training begins, is plain fusion of own
  and source keys; b_r = -inf hides a region, which is how pictures are edited without training. Own keys always count.
- Regions are those of `r2r.parsing.REGIONS`, so that every label set fits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from r2r.attention import AttentionSite
from r2r.parsing import REGIONS
from r2r.types import Parsing

Visible = Bool[Tensor, "b regions"]


class ParsingFusion(nn.Module):
    """The mask of a `Fuse`: log-biases of the source tokens that were looked at last."""

    def __init__(self, sites: Sequence[AttentionSite], learned: bool = True) -> None:
        """For the layers that are fused; without `learned` all regions count alike."""
        super().__init__()
        self.sites = list(sites)
        names = [_slot(site) for site in sites] if learned else []
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(len(REGIONS))) for name in names})
        self.shares: dict[tuple[int, int], Float[Tensor, "b regions m"]] = {}
        self.size = (0, 0)
        self.looking: Bool[Tensor, " b"] | None = None  # rows that see the source; None: all
        self.groups = 1  # of rows, each as many as persons

    def look(self, parsing: Parsing | None, size: tuple[int, int], visible: Visible | None = None) -> None:
        """Note what sources show, whose latents are of `size`; `visible` says which regions of each count at all."""
        self.shares.clear()
        self.size = size
        if parsing is None or not (self.bias or visible is not None):
            return
        regions = one_hot(parsing)
        if visible is not None:
            regions = regions * visible[:, :, None, None]
        for grid in {site.token_grid(*size) for site in self.sites}:
            self.shares[grid] = F.adaptive_avg_pool2d(regions, grid).flatten(2)

    def join(self, count: int) -> None:
        """Make several sources one: rows of the same place in each run of `count` give their tokens side by side."""
        for grid, shares in self.shares.items():
            self.shares[grid] = side_by_side(shares, count, dim=2)

    def forward(self, site: AttentionSite, tokens: int) -> Bool[Tensor, "b 1 1 m"] | Float[Tensor, "b 1 1 m"] | None:
        """The mask at a layer, for every row of the batch."""
        looking = None if self.looking is None else self.looking[:, None, None, None].expand(-1, 1, 1, tokens)
        if not self.shares:
            return looking
        counts = self.shares[site.token_grid(*self.size)]
        if self.bias:
            counts = counts * self.bias[_slot(site)].float().exp()[:, None]
        bias = counts.sum(1).log()[:, None, None].repeat(self.groups, 1, 1, 1)
        return bias if looking is None else bias.masked_fill(~looking, -torch.inf)


class ParsingEmbedding(nn.Module):
    """Tells a U-Net the parsing of its picture, by adding to what its first convolution gives; begins without effect.

    The convolution of `unet` gets a hook; `parsing` None adds nothing.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(len(REGIONS), unet.config.block_out_channels[0], 3, padding=1)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)
        self.parsing: Parsing | None = None
        unet.conv_in.register_forward_hook(self._added)

    def _added(self, layer: nn.Module, given: Any, features: Tensor) -> Tensor:
        if self.parsing is None:
            return features
        regions = F.adaptive_avg_pool2d(one_hot(self.parsing), features.shape[2:])
        return features + self.conv(regions.to(self.conv.weight.dtype)).to(features.dtype)


def one_hot(parsing: Parsing) -> Float[Tensor, "b regions h w"]:
    """One map of zeros and ones for each region."""
    return F.one_hot(parsing[:, 0].long(), len(REGIONS)).movedim(-1, 1).float()


def side_by_side(rows: Tensor, count: int, dim: int) -> Tensor:
    """(k * count, ...) rows as `count`, k of them joined along `dim`."""
    return torch.cat(rows.split(count), dim=dim)


def _slot(site: AttentionSite) -> str:
    return site.name.replace(".", "-")
