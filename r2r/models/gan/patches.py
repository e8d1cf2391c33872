"""The contrast between patches: feature vectors at some positions, and how well they are told apart (arXiv:2007.15651).

The sampler is `mlp_sample` of CUT's code, 0.56 million parameters for its five layers.

Deviations
- The sampler is built with the networks, not at the first forward pass: a generator knows its channels.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from r2r.models.gan.layers import initialize
from r2r.models.gan.losses import patch_nce

Positions = Sequence[Int[Tensor, " _"]]  # row * width + column, in each layer
Draw = Callable[[Sequence[Tensor]], Positions]  # positions for feature maps


class PatchContrast(nn.Module):
    """The contrastive loss of feature maps against constant ones, at `num_patches` positions of each layer."""

    def __init__(
        self, channels: Sequence[int], num_patches: int = 256, width: int = 256, temperature: float = 0.07
    ) -> None:
        """`channels` are those of the layers."""
        super().__init__()
        self.sampler = PatchSampler(channels, width)
        self.num_patches, self.temperature = num_patches, temperature

    def forward(self, queries: Sequence[Tensor], keys: Sequence[Tensor], positions: Positions) -> Float[Tensor, ""]:
        """Mean over images, positions and layers."""
        with torch.no_grad():
            known = self.sampler(keys, positions)
        pairs = zip(self.sampler(queries, positions), known, strict=True)
        return torch.stack([patch_nce(query, key, self.temperature).mean() for query, key in pairs]).mean()

    def draw(self, chance: Generator) -> Draw:
        """Draws as many different positions of each map as are wanted, or as there are."""

        def positions(features: Sequence[Tensor]) -> Positions:
            sizes = [feature.shape[2] * feature.shape[3] for feature in features]
            shuffled = [torch.randperm(size, generator=chance, device=chance.device) for size in sizes]
            return [order[: self.num_patches] for order in shuffled]

        return positions


class PatchSampler(nn.Module):
    """Feature vectors at some positions, through a small network for each layer, on the unit sphere."""

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.sizes = [*channels], width
        for number, size in enumerate(channels):
            self.add_module(f"mlp_{number}", nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width)))
        initialize(self)

    def forward(
        self, features: Sequence[Float[Tensor, "b _ _ _"]], positions: Positions
    ) -> list[Float[Tensor, "b s d"]]:
        """One tensor for each layer; positions are row * width + column, the same for every image."""
        return [
            unit(self.get_submodule(f"mlp_{number}")(patches(feature, place)))
            for number, (feature, place) in enumerate(zip(features, positions, strict=True))
        ]


def patches(feature: Float[Tensor, "b c h w"], positions: Int[Tensor, " s"]) -> Float[Tensor, "b s c"]:
    """The vectors at positions row * width + column."""
    return feature.flatten(2)[:, :, positions].transpose(1, 2)


def unit(vectors: Float[Tensor, "b s c"]) -> Float[Tensor, "b s c"]:
    """Vectors of length |v| / (|v| + 1e-7), in float32."""
    vectors = vectors.float()
    return vectors / (vectors.norm(dim=-1, keepdim=True) + 1e-7)
