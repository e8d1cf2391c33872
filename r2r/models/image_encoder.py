"""Frozen image encoders, as tokens that a resampler reads: CLIP or DINOv2, or the embedded feature network.

IP-Adapter's "plus" models (arXiv:2308.06721) read the last but one layer of CLIP; DINOv2 (arXiv:2304.07193) is read at
its last.

Deviations
- Pictures are squeezed to the encoder's square, whole. CLIP's own processor crops the middle first, which cuts heads
  and feet off a person.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModel, Dinov2Model

from r2r.errors import InputError, MissingWeightsError
from r2r.models.feature_net import FeatureNet
from r2r.types import Images

Tokens = Float[Tensor, "b n d"]
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder(nn.Module):
    """Images in [-1, 1], of any size, to tokens of `width` features; frozen."""

    def __init__(
        self,
        network: nn.Module,
        tokens: Callable[[Any, Tensor], Tensor],
        width: int,
        size: int,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.5, 0.5, 0.5),
    ) -> None:
        """`tokens(network, pixels)` are those of square pictures of `size` pixels, normalised by `mean` and `std`."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.width, self.size, self._tokens = width, size, tokens
        self.origin: dict[str, str] = {}  # arguments of `from_pretrained`
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (mean, std))

    @torch.no_grad()
    def forward(self, images: Images) -> Tokens:
        """Tokens of a batch, in the network's precision."""
        square = F.interpolate(images.float(), (self.size, self.size), mode="bicubic", antialias=True).clamp(-1, 1)
        pixels = ((square + 1) / 2 - self.mean.to(images.device)) / self.std.to(images.device)
        return self._tokens(self.network, pixels.to(next(self.network.parameters()).dtype))

    @classmethod
    def from_pretrained(cls, pretrained: str = "tiny", subfolder: str = "") -> "ImageEncoder":
        """The embedded feature network ("tiny"), or a CLIP or DINOv2 model, by hub id or folder in transformers format.

        Raises:
            InputError: a model of another kind.
            MissingWeightsError: neither cached nor reachable.
        """
        try:
            encoder = cls._tiny() if pretrained == "tiny" else cls._of_transformers(pretrained, subfolder)
        except OSError as error:
            raise MissingWeightsError(
                f"image encoder {pretrained!r}: neither here nor to be fetched ({str(error).splitlines()[0][:200]}); "
                "give a hub id while online, a local folder in transformers format, or tiny"
            ) from error
        encoder.origin = {"pretrained": pretrained, "subfolder": subfolder}
        return encoder

    @classmethod
    def _tiny(cls) -> "ImageEncoder":
        network = FeatureNet.from_pretrained()
        return cls(network, _feature_tokens, sum(network.channels[-2:]), network.resolution)

    @classmethod
    def _of_transformers(cls, pretrained: str, subfolder: str) -> "ImageEncoder":
        kind = AutoConfig.from_pretrained(pretrained, subfolder=subfolder).model_type
        known = {
            "clip": (CLIPVisionModel, _last_but_one),
            "clip_vision_model": (CLIPVisionModel, _last_but_one),
            "dinov2": (Dinov2Model, _last),
        }
        if kind not in known:
            raise InputError(f"image encoder {pretrained!r} is a {kind}; r2r reads clip, clip_vision_model and dinov2")
        model, tokens = known[kind]
        network = model.from_pretrained(pretrained, subfolder=subfolder)
        size, mean, std = network.config.image_size, OPENAI_MEAN, OPENAI_STD
        if kind == "dinov2":
            processor = AutoImageProcessor.from_pretrained(pretrained, subfolder=subfolder)
            mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        return cls(network, tokens, network.config.hidden_size, size, mean, std)


def _last_but_one(network: Any, pixels: Tensor) -> Tensor:
    return network(pixels, output_hidden_states=True).hidden_states[-2]


def _last(network: Any, pixels: Tensor) -> Tensor:
    return network(pixels).last_hidden_state


def _feature_tokens(network: FeatureNet, pixels: Tensor) -> Tensor:
    """The last stage and the mean of the last but one beneath it, one token for each 16 x 16 pixels."""
    fine, coarse = network.activations(pixels)[-2:]
    pooled = F.adaptive_avg_pool2d(fine, coarse.shape[2:])
    return torch.cat([coarse, pooled], dim=1).flatten(2).transpose(1, 2)
