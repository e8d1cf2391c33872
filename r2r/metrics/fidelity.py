"""Distance between an image and its reference, image by image: PSNR and SSIM (torchmetrics).

Read them beside a realism score: a copy of the reference is perfect here.

Images come in [-1, 1] and are scored in [0, 1]: SSIM compares mean brightness as a ratio, which means nothing around 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from r2r.metrics.protocol import Protocol, check_pair, protocol
from r2r.types import Images

Target = Float[Tensor, "_ 3 _ _"]  # of the images' shape: checked with a message
UNIT = (0.0, 1.0)
SSIM_SETTINGS: Protocol = {
    "computed on": "[0, 1]",
    "window": "gaussian 11x11, sigma 1.5",
    "k1": 0.01,
    "k2": 0.03,
    "border": "reflect",
}


def unit_range(images: Images, target: Target) -> tuple[Images, Target]:
    """Both batches, checked and brought to [0, 1]."""
    check_pair(images, target)
    return (images.clamp(-1, 1) + 1) / 2, (target.clamp(-1, 1) + 1) / 2


def psnr(images: Images, target: Target) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB, over all channels; inf for identical images."""
    images, target = unit_range(images, target)
    score = peak_signal_noise_ratio(images, target, data_range=UNIT, reduction="none", dim=(1, 2, 3))
    return torch.as_tensor(score)


def ssim(images: Images, target: Target) -> Float[Tensor, " b"]:
    """Structural similarity of each image (Wang et al. 2004), averaged over channels; 1 for identical images."""
    images, target = unit_range(images, target)
    score = structural_similarity_index_measure(images, target, data_range=UNIT, reduction="none")
    return torch.as_tensor(score)


def psnr_protocol(n: int, size: str) -> Protocol:
    """Protocol of `psnr` over `n` images of `size` "HxW"."""
    return protocol("PSNR", region="whole image", range="[-1, 1]", resize="none", size=size, n=n)


def ssim_protocol(n: int, size: str) -> Protocol:
    """Protocol of `ssim` over `n` images of `size` "HxW"."""
    return protocol("SSIM", region="whole image", range="[-1, 1]", resize="none", size=size, n=n, **SSIM_SETTINGS)
