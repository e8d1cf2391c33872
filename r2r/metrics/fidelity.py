"""Distance between an image and its reference, image by image: PSNR and SSIM (torchmetrics, data range 2).

Read them beside a realism score: a copy of the reference is perfect here.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from r2r.metrics.protocol import Protocol, check_pair, protocol
from r2r.types import Images

Target = Float[Tensor, "_ 3 _ _"]  # of the images' shape: checked with a message
DATA_RANGE = (-1.0, 1.0)
SSIM_WINDOW: Protocol = {"window": "gaussian 11x11, sigma 1.5", "k1": 0.01, "k2": 0.03, "border": "reflect"}


def psnr(images: Images, target: Target) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB (peak 2, over all channels); inf for identical images."""
    check_pair(images, target)
    score = peak_signal_noise_ratio(images, target, data_range=DATA_RANGE, reduction="none", dim=(1, 2, 3))
    return torch.as_tensor(score)


def ssim(images: Images, target: Target) -> Float[Tensor, " b"]:
    """Structural similarity of each image (Wang et al. 2004), averaged over channels; 1 for identical images."""
    check_pair(images, target)
    score = structural_similarity_index_measure(images, target, data_range=DATA_RANGE, reduction="none")
    return torch.as_tensor(score)


def psnr_protocol(n: int, size: str) -> Protocol:
    """Protocol of `psnr` over `n` images of `size` "HxW"."""
    return protocol("PSNR", region="whole image", range="[-1, 1]", resize="none", size=size, n=n)


def ssim_protocol(n: int, size: str) -> Protocol:
    """Protocol of `ssim` over `n` images of `size` "HxW"."""
    return protocol("SSIM", region="whole image", range="[-1, 1]", resize="none", size=size, n=n, **SSIM_WINDOW)
