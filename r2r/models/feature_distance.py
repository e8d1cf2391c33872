"""A perceptual distance that needs no download: differences of activations in the embedded feature network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), equation 1.

Deviations
- The network is r2r's own small one (`feature_net`), not a classifier of ImageNet, and no linear weights were learned:
  each stage counts alike (the paper's unweighted variant). The score says so in its name; it is not LPIPS.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from r2r.metrics import ImageScore, Mask
from r2r.metrics.regions import masked_mean
from r2r.metrics.scores import Scores, checked
from r2r.metrics.weights import accelerator, weights_id
from r2r.models.feature_net import FeatureNet
from r2r.types import Images

STAGES = 3  # the ones that KID's features rest on
SIDE = 16  # below, the third stage is a pixel


def FeatureDistance(pretrained: str | Path = "tiny") -> ImageScore:
    """Mean squared difference of the unit-normalised activations of three stages, summed; 0 for identical images.

    Raises MissingWeightsError as `FeatureNet.from_pretrained` does.
    """
    network = FeatureNet.from_pretrained(pretrained).to(accelerator())

    def measure(images: Images, target: Images, mask: Mask | None) -> Scores:
        maps = difference_maps(network, images, target)
        if mask is None:
            return torch.stack([each.mean((1, 2, 3)) for each in maps]).sum(0)
        size = (images.shape[-2], images.shape[-1])
        whole = [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in maps]
        return masked_mean(torch.stack(whole).sum(0), mask)

    name = "Distance (r2r-features)"
    settings = {"backbone": f"r2r-features {weights_id(network.state_dict())}", "stages": STAGES, "resize": "none"}
    regions = "sum of the stages' maps, upsampled (bilinear) to the image, averaged over the mask"
    return ImageScore(name, "lower", checked(measure, name, SIDE, accelerator()), settings, regions, min_side=SIDE)


def difference_maps(network: FeatureNet, images: Images, target: Images) -> list[Float[Tensor, "b 1 _ _"]]:
    """Squared differences of activations that have unit length at every place, stage by stage."""
    maps: list[Tensor] = []
    for stage in network.stages[:STAGES]:
        images, target = stage(images), stage(target)
        difference = F.normalize(images, dim=1) - F.normalize(target, dim=1)
        maps.append(difference.square().sum(1, keepdim=True))
    return maps
