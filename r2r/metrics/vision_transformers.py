"""Backbones from the hub of transformers: CLIP's image embeddings and the class token of DINO.

Kynkäänniemi et al., "The Role of ImageNet Classes in Fréchet Inception Distance" (arXiv 2203.06026): CLIP features for
FID. Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (arXiv 2104.14294) and DINOv2 (arXiv
2304.07193). Images pass through the 8-bit preprocessing that each model publishes, its crop included.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics.backbones import EIGHT_BIT, Backbone, eight_bit
from r2r.metrics.weights import accelerator, from_hub
from r2r.types import Images


class Preprocessed(nn.Module):
    """A network behind its own image processor; `pick` takes the features out of what it says."""

    def __init__(self, network: nn.Module, processor: Any, pick: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network, self.processor, self.pick = network, processor, pick

    def forward(self, images: Images) -> Float[Tensor, "b d"]:
        """Features of images in [-1, 1]."""
        pixels = self.processor(images=eight_bit(images), return_tensors="pt")["pixel_values"]
        return self.pick(self.network(pixels.to(images.device)))


def clip_image(model: str = "openai/clip-vit-base-patch32") -> Backbone:
    """CLIP's projected image embeddings, not normalised, by hub id or folder.

    Raises MissingWeightsError when the model is not there or holds something else.
    """
    from transformers import CLIPVisionModelWithProjection

    network = from_hub(CLIPVisionModelWithProjection, model)
    return _backbone(model, network, lambda output: output.image_embeds, network.config.projection_dim)


def dino(model: str = "facebook/dinov2-base") -> Backbone:
    """Class token of the last layer of a DINO or other vision transformer, by hub id or folder.

    Raises:
        MissingWeightsError: the model is not there or holds something else.
        InputError: the model is no vision transformer.
    """
    from transformers import AutoConfig, AutoModel

    config = _published(AutoConfig, model)
    if not hasattr(config, "patch_size"):
        raise InputError(f"model={model!r} is a {config.model_type}, which has no class token; give a ViT or DINO")
    pooler = {"add_pooling_layer": False} if config.model_type == "vit" else {}  # DINO's ViTs come without one
    network = from_hub(AutoModel, model, **pooler)
    return _backbone(model, network, lambda output: output.last_hidden_state[:, 0], config.hidden_size)


def resize_rule(processor: Any) -> str:
    """How an image processor resizes and crops, in words, from its config."""
    config: Mapping[str, Any] = processor.to_dict()
    steps = []
    if config.get("do_resize"):
        steps.append(f"{_sides(config['size'])}, {_filter(config.get('resample'))}, antialiased")
    if config.get("do_center_crop"):
        steps.append(f"centre crop {_sides(config['crop_size'])}")
    return "; ".join(steps) or "none"


def _backbone(model: str, network: nn.Module, pick: Callable[[Any], Tensor], size: int) -> Backbone:
    from transformers import AutoImageProcessor

    processor = _published(AutoImageProcessor, model)
    features = Preprocessed(network, processor, pick).eval()
    return Backbone(Path(model).resolve().name, features, resize_rule(processor), EIGHT_BIT, size).to(accelerator())


def _published(kind: Any, model: str) -> Any:
    """A config or an image processor by hub id or folder."""
    try:
        return kind.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise MissingWeightsError(
            f"model={model!r}: no config or image processor there and none could be fetched "
            f"({str(error).splitlines()[0][:200]}). Download it once while online, or give a local folder: model=FOLDER"
        ) from error


def _sides(size: Mapping[str, int]) -> str:
    if "shortest_edge" in size:
        return f"shortest side {size['shortest_edge']} px"
    return f"{size['height']}x{size['width']} px"


def _filter(resample: int | None) -> str:
    return {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}.get(int(resample or 0), str(resample))
