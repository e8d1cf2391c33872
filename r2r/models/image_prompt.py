"""Image tokens as a second prompt: decoupled cross-attention (IP-Adapter, arXiv:2308.06721, equation 5).

    out = softmax(Q K^T / sqrt(d)) V + scale * softmax(Q K'^T / sqrt(d)) V'

with K', V' from the tokens that a resampler reads out of an image encoder; the resampler is diffusers' copy of
IP-Adapter plus'.

Deviations
- Keys begin as the layer's own, as in IP-Adapter; values begin at zero, so that an untrained image prompt changes
  nothing. IP-Adapter begins with the layer's own values.
- To leave the prompt out for a row its tokens are set to zero, which adds exactly nothing: projections have no bias.
"""

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from jaxtyping import Float
from torch import Tensor, nn

from r2r.attention import AttentionInputs, AttentionSite, KeyValue, attention_sites


class ImagePrompt(nn.Module):
    """A control with weights: adds one more softmax, over `tokens`, at every cross-attention."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        encoder_width: int,
        *,
        num_tokens: int = 16,
        width: int = 768,
        depth: int = 4,
        head_width: int = 64,
        scale: float = 1.0,
    ) -> None:
        """For a U-Net and an encoder of that many features; width, depth and heads are the resampler's.

        Raises ValueError when heads do not divide the width, or the U-Net has no cross-attention.
        """
        super().__init__()
        if width % head_width:
            raise ValueError(f"image_prompt.width={width} must be a multiple of image_prompt.head_width={head_width}")
        sites = [site for site in attention_sites(unet) if site.kind == "cross"]
        if not sites:
            raise ValueError("an image prompt needs cross-attention, and this U-Net has none")
        layers: dict[str, Any] = {site.name.replace(".", "-"): unet.get_submodule(site.name) for site in sites}
        inside = unet.config.cross_attention_dim
        self.resampler = IPAdapterPlusImageProjection(
            encoder_width, inside, width, depth, head_width, width // head_width, num_tokens
        )
        self.keys = nn.ModuleDict({name: _copy(layer.to_k) for name, layer in layers.items()})
        self.values = nn.ModuleDict({name: _zeros(layer.to_v) for name, layer in layers.items()})
        self.scale = scale
        self.tokens: Tensor | None = None

    def read(self, encoded: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d2"]:
        """The tokens of encoded images, as wide as the text's."""
        return self.resampler(encoded.to(self.resampler.proj_in.weight.dtype))

    def forward(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        """The control: `tokens`, shape (b, k, d2), are those of the rows of the batch; None adds nothing."""
        if self.tokens is None or site.kind != "cross":
            return inputs
        name, heads = site.name.replace(".", "-"), inputs.query.shape[1]
        key, value = (
            part[name](self.tokens).unflatten(2, (heads, -1)).transpose(1, 2) for part in (self.keys, self.values)
        )
        return AttentionInputs(inputs.query, (*inputs.sources, KeyValue(key, value, scale=self.scale)))


def _copy(layer: nn.Linear) -> nn.Linear:
    copy = nn.Linear(layer.in_features, layer.out_features, bias=False)
    copy.weight.data.copy_(layer.weight.data)
    return copy


def _zeros(layer: nn.Linear) -> nn.Linear:
    zeros = nn.Linear(layer.in_features, layer.out_features, bias=False)
    nn.init.zeros_(zeros.weight)
    return zeros
