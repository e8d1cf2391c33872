"""Distance between an image and its reference, image by image: PSNR, SSIM and MS-SSIM (by torchmetrics).

Read them beside a realism score: a copy of the reference is perfect here.

Images come in [-1, 1] and are scored in [0, 1]: SSIM compares mean brightness as a ratio, which means nothing around 0.
Inside a mask, SSIM is the full-image map averaged over it: the window of a pixel near its border sees 5 pixels beyond.

Detail SSIM is SSIM of what a Gaussian blur takes away: fine texture alone, whatever happened to colour and shading.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from r2r.metrics.protocol import Protocol, check_pair, check_side
from r2r.metrics.regions import Mask, check_mask, masked_mean
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
SSIM_SIDE = 11  # the window fits
DETAIL_SIGMA = 3.0  # pixels
DETAIL_SETTINGS: Protocol = SSIM_SETTINGS | {"high pass": f"image minus its gaussian blur, sigma {DETAIL_SIGMA:g}"}
DETAIL_SIDE = 11  # the blur reaches 10 pixels
MS_SSIM_SIDE = 176  # torchmetrics: at least 11 px after four halvings
MS_SSIM_SETTINGS: Protocol = SSIM_SETTINGS | {
    "scales": "5, weights 0.0448 0.2856 0.3001 0.2363 0.1333",
    "negative terms": "0",
}


def unit_range(images: Images, target: Target) -> tuple[Images, Target]:
    """Both batches, checked and brought to [0, 1]."""
    check_pair(images, target)
    return (images.clamp(-1, 1) + 1) / 2, (target.clamp(-1, 1) + 1) / 2


def psnr(images: Images, target: Target, mask: Mask | None = None) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB, over all channels; inf for identical images.

    With a `mask` (True = counted), over the pixels inside it.
    """
    images, target = unit_range(images, target)
    return -10 * torch.log10(_mean((images - target).square(), mask))


def ssim(images: Images, target: Target, mask: Mask | None = None) -> Float[Tensor, " b"]:
    """Structural similarity of each image (Wang et al. 2004), averaged over channels; 1 for identical images.

    With a `mask` (True = counted), the map of similarities is averaged over it.
    """
    images, target = unit_range(images, target)
    check_side((images.shape[2], images.shape[3]), SSIM_SIDE, "SSIM")
    return _mean(_similarity(images.double(), target.double()), mask).float()


def detail_ssim(images: Images, target: Target, mask: Mask | None = None) -> Float[Tensor, " b"]:
    """`ssim` of the two high-pass images: 1 for identical detail, about 0 for unrelated; mean colour plays no part.

    With a `mask` (True = counted), the map of similarities is averaged over it.
    """
    images, target = unit_range(images, target)
    check_side((images.shape[2], images.shape[3]), DETAIL_SIDE, "Detail SSIM")
    return _mean(_similarity(_high_pass(images.double()), _high_pass(target.double())), mask).float()


def _high_pass(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return images - _blur(images, DETAIL_SIGMA, radius=10)


def _similarity(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The map of SSIM (equation 13), like torchmetrics' but in the precision of the images.

    Variances are small differences of large numbers: in float32 a flat, bright background is off by 2e-4.
    """
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _blur(x), _blur(y)
    variance = _blur(x * x) - mean_x**2 + _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance + c2)


def _blur(images: Float[Tensor, "b c h w"], sigma: float = 1.5, radius: int = 5) -> Float[Tensor, "b c h w"]:
    """Gaussian window, by default SSIM's 11 x 11, one axis after the other; reflected at the border."""
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), 0).tolist()
    out = pad(images, (radius,) * 4, mode="reflect")
    for axis in (2, 3):
        windows = (weight * out.narrow(axis, k, images.shape[axis]) for k, weight in enumerate(weights))
        out = torch.stack(list(windows)).sum(0)
    return out


def ms_ssim(images: Images, target: Target) -> Float[Tensor, " b"]:
    """Multi-scale structural similarity of each image (Wang, Simoncelli, Bovik 2003); 1 for identical images.

    Raises InputError below 176 px, where five halvings leave no room for the window.
    """
    images, target = unit_range(images, target)
    check_side((images.shape[2], images.shape[3]), MS_SSIM_SIDE, "MS-SSIM")
    return multiscale_structural_similarity_index_measure(images, target, data_range=UNIT, reduction="none")


def _mean(values: Float[Tensor, "b c h w"], mask: Mask | None) -> Float[Tensor, " b"]:
    if mask is None:
        return values.mean((1, 2, 3))
    check_mask(mask, values)
    return masked_mean(values, mask)
