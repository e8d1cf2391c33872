"""What an image shows and how it is laid out, beside its reference: CLIP similarity and DINO structure distance.

- Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020): cosine of
  the projected image embeddings.
- Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer" (arXiv 2201.00424), section 3: mean squared
  difference of the self-similarities (cosines) of the keys in the last layer of DINO-ViT.

Deviations
- CLIP sees the whole image, padded with mid-grey to a square; CLIP's own rule cuts the ends of a portrait away.
- DINO structure follows the authors' code where the paper is silent: heads concatenated, class token kept, short side
  resized to the model's own size (224) and the long one to 480 / 224 of it at most.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from r2r.metrics.protocol import Protocol
from r2r.metrics.regions import boxed
from r2r.metrics.scores import ImageScore, Scores, checked, in_boxes
from r2r.metrics.weights import accelerator, from_hub, weights_id
from r2r.types import Images

LONGEST = 480 / 224  # of the short side, in the authors' resize


def CLIPSimilarity(model: str = "openai/clip-vit-base-patch32") -> ImageScore:
    """Cosine of the CLIP embeddings of image and reference, by hub id or folder; 1 when identical.

    Raises: MissingWeightsError when the weights are neither a folder, nor cached, nor reachable.
    """
    from transformers import CLIPVisionModelWithProjection
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    network = from_hub(CLIPVisionModelWithProjection, model).to(accelerator())
    side = network.config.image_size

    def embed(images: Images) -> Float[Tensor, "b d"]:
        resized = resize(_square(images), (side, side), "bicubic")
        return network(_normalise(resized, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)).image_embeds

    def measure(images: Images, target: Images) -> Scores:
        return F.cosine_similarity(embed(images), embed(target))

    name = f"CLIP similarity ({Path(model).resolve().name})"
    settings = _settings(network, f"padded with mid-grey to a square, bicubic, antialiased, to {side} px")
    return ImageScore(name, "higher", checked(in_boxes(measure), name, 1, accelerator()), settings, boxed())


def DINOStructure(model: str = "facebook/dino-vitb8") -> ImageScore:
    """Distance of the layouts of image and reference (arXiv 2201.00424, section 3), by hub id or folder of a ViT.

    0 when identical.

    Raises: MissingWeightsError when the weights are neither a folder, nor cached, nor reachable.
    """
    from transformers import ViTModel
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    network = from_hub(ViTModel, model, add_pooling_layer=False).to(accelerator())
    side, patch = network.config.image_size, network.config.patch_size

    def layout(images: Images) -> Float[Tensor, "b n n"]:
        resized = resize(images, _fitted(images, side, patch), "bilinear")
        return self_similarity(last_keys(network, _normalise(resized, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)))

    def measure(images: Images, target: Images) -> Scores:
        return (layout(images) - layout(target)).square().mean((1, 2))

    name = f"DINO structure ({Path(model).resolve().name})"
    settings = _settings(
        network, f"bilinear, antialiased, short side to {side} px, long side at most {LONGEST:.3g} of it"
    )
    return ImageScore(name, "lower", checked(in_boxes(measure), name, 1, accelerator()), settings, boxed(), digits=4)


def last_keys(network: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
    """Keys of the last self-attention layer of a ViT, heads concatenated, class token first; any image size."""
    found: list[Tensor] = []
    # `key` before transformers 5.20 or so, `k_proj` since
    *_, projection = (part for name, part in network.named_modules() if name.endswith((".key", ".k_proj")))
    handle = projection.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        network(pixels, interpolate_pos_encoding=True)
    finally:
        handle.remove()
    return found[0]


def self_similarity(keys: Float[Tensor, "b n d"]) -> Float[Tensor, "b n n"]:
    """Cosine of every pair of tokens (arXiv 2201.00424, equation 1)."""
    unit = F.normalize(keys, dim=-1)
    return unit @ unit.transpose(1, 2)


def resize(images: Images, size: tuple[int, int], mode: str) -> Float[Tensor, "b 3 _ _"]:
    """Antialiased resize that stays in [-1, 1]."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode=mode, antialias=True, align_corners=False).clamp(-1, 1)


def _square(images: Images) -> Float[Tensor, "b 3 side side"]:
    height, width = images.shape[-2:]
    rows, columns = max(0, width - height), max(0, height - width)
    return F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _fitted(images: Images, side: int, patch: int) -> tuple[int, int]:
    """Height and width with the short side at `side`, unless the long one would pass its limit; one patch at least."""
    height, width = images.shape[-2:]
    scale = min(side / min(height, width), side * LONGEST / max(height, width))
    return max(patch, round(height * scale)), max(patch, round(width * scale))


def _normalise(images: Images, mean: list[float], std: list[float]) -> Images:
    shape = (1, 3, 1, 1)
    centre, spread = images.new_tensor(mean).view(shape), images.new_tensor(std).view(shape)
    return ((images + 1) / 2 - centre) / spread


def _settings(network: Any, rule: str) -> Protocol:
    return {
        "backend": f"transformers {version('transformers')}",
        "weights": weights_id(network.state_dict()),
        "resize": rule,
    }
