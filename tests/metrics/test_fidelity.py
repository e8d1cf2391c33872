"""PSNR and SSIM: per image, ranges checked, equal to their definitions and to the masked forms with a full mask."""

import pytest
import torch
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from r2r.errors import InputError
from r2r.metrics.fidelity import psnr, ssim


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.rand(3, 3, 32, 40) * 2 - 1
    return (target + 0.2 * torch.randn_like(target)).clamp(-1, 1), target


def test_each_image_equals_its_own_score(pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    for index in range(3):
        one = images[index : index + 1], target[index : index + 1]
        assert psnr(images, target)[index] == pytest.approx(PeakSignalNoiseRatio(data_range=2.0)(*one).item(), rel=1e-5)
        structural = StructuralSimilarityIndexMeasure(data_range=1.0)(*((x + 1) / 2 for x in one))
        assert ssim(images, target)[index] == pytest.approx(structural.item(), rel=1e-5)


def test_psnr_of_a_known_error() -> None:
    target = torch.zeros(1, 3, 16, 16)
    assert psnr(target + 0.2, target).item() == pytest.approx(20.0, abs=1e-4)


def test_identity_is_perfect(pair: tuple[Tensor, Tensor]) -> None:
    _, target = pair
    assert torch.isinf(psnr(target, target)).all()
    assert torch.allclose(ssim(target, target), torch.ones(3))


def test_full_mask_equals_the_whole_image(pair: tuple[Tensor, Tensor]) -> None:
    full = torch.ones(3, 1, 32, 40, dtype=torch.bool)
    assert torch.allclose(ssim(*pair, full), ssim(*pair), atol=1e-6)
    assert torch.allclose(psnr(*pair, full), psnr(*pair), atol=1e-4)


def test_outside_the_mask_does_not_count() -> None:
    target = torch.zeros(2, 3, 32, 32)
    images, mask = target.clone(), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    images[..., 24:] = 1
    mask[..., :16] = True
    assert torch.allclose(ssim(images, target, mask), torch.ones(2))
    assert torch.isinf(psnr(images, target, mask)).all()
    assert (ssim(images, target, ~mask) < 0.6).all()
    assert torch.allclose(psnr(images, target, ~mask), torch.full((2,), 9.0309), atol=1e-3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 3, 16, 16), 255.0), r"scale images to \[-1, 1\]"),
        (torch.full((1, 3, 16, 16), torch.nan), "nan"),
        (torch.zeros(0, 3, 16, 16), "no images"),
        (torch.zeros(1, 3, 16, 18), "shapes differ"),
    ],
)
def test_bad_images_are_refused(images: Tensor, message: str) -> None:
    for score in (psnr, ssim):
        with pytest.raises(InputError, match=message):
            score(images, torch.zeros(1, 3, 16, 16))


def test_empty_and_misfit_masks_are_refused(pair: tuple[Tensor, Tensor]) -> None:
    mask = torch.ones(3, 1, 32, 40, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(InputError, match=r"images \[1\]"):
        ssim(*pair, mask)
    with pytest.raises(InputError, match="resize them"):
        psnr(*pair, mask[..., :20])


def test_brightness_around_grey_does_not_break_ssim() -> None:
    target = torch.zeros(1, 3, 16, 16)
    assert ssim(target + 0.02, target - 0.02).item() > 0.99
