"""PSNR, SSIM and MS-SSIM: equal to scikit-image or their definition, per image, whole and masked, ranges checked."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from r2r.errors import InputError
from r2r.metrics.fidelity import detail_ssim, ms_ssim, psnr, ssim


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


def test_identity_is_exact_on_flat_bright_pictures() -> None:
    """Where float32 variances drown in rounding."""
    pixels = torch.full((1, 3, 64, 64), 0.78) + 0.01 * torch.randn(
        1, 3, 64, 64, generator=torch.Generator().manual_seed(0)
    )
    assert ssim(pixels, pixels).item() == 1.0


@pytest.mark.parametrize("size", [(32, 40), (11, 64)])
@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_equal_to_scikit_image(size: tuple[int, int], channels: str) -> None:
    torch.manual_seed(0)
    target = torch.rand(1, 1 if channels == "grey" else 3, *size).expand(1, 3, *size)
    images = (target + 0.2 * torch.randn(1, 1, *size)).clamp(0, 1)
    one, other = (image[0].permute(1, 2, 0).double().numpy() for image in (images, target))
    expected, similarity = structural_similarity(
        one,
        other,
        data_range=1,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    interior = torch.zeros(1, 1, *size, dtype=torch.bool)  # scikit-image leaves out 5 pixels of border
    interior[..., 5 : size[0] - 5, 5 : size[1] - 5] = True
    signed = images * 2 - 1, target * 2 - 1
    assert ssim(*signed, interior).item() == pytest.approx(expected, abs=1e-6)
    assert ssim(*signed).item() == pytest.approx(similarity.mean(), abs=0.02)  # another border rule
    assert psnr(*signed).item() == pytest.approx(peak_signal_noise_ratio(other, one, data_range=1), rel=1e-5)


def test_multi_scale_follows_its_definition() -> None:
    torch.manual_seed(0)
    target = torch.rand(1, 3, 180, 176)
    images = (target + 0.2 * torch.randn_like(target)).clamp(0, 1)
    x, y = images[0].double().numpy(), target[0].double().numpy()
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            height, width = (side // 2 for side in x.shape[1:])
            x, y = (
                image[:, : 2 * height, : 2 * width].reshape(3, height, 2, width, 2).mean((2, 4)) for image in (x, y)
            )
        luminance, contrast = similarities(x, y)
        value = (luminance * contrast).mean() if scale == 4 else contrast[:, 5:-5, 5:-5].mean()
        expected *= value**weight
    assert ms_ssim(images * 2 - 1, target * 2 - 1).item() == pytest.approx(expected, rel=1e-4)
    assert ms_ssim(target * 2 - 1, target * 2 - 1).item() == pytest.approx(1, abs=1e-5)


def similarities(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and contrast-structure maps of SSIM, with scipy's Gaussian."""

    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, (0, 1.5, 1.5), mode="mirror", radius=(0, 5, 5))

    mean_x, mean_y = blur(x), blur(y)
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    return luminance, (2 * (blur(x * y) - mean_x * mean_y) + 0.03**2) / (variances + 0.03**2)


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


def test_images_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="SSIM needs images of at least 11 px"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))
    with pytest.raises(InputError, match=r"MS-SSIM needs images of at least 176 px .* 175x200"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))
    assert ms_ssim(torch.zeros(1, 3, 176, 176), torch.zeros(1, 3, 176, 176)).item() == pytest.approx(1)


def test_brightness_around_grey_does_not_break_ssim() -> None:
    target = torch.zeros(1, 3, 16, 16)
    assert ssim(target + 0.02, target - 0.02).item() > 0.99


def test_detail_is_structure_after_a_high_pass(pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    high = [
        side - np.stack([[ndimage.gaussian_filter(c, 3.0, mode="mirror", radius=10) for c in image] for image in side])
        for side in ((each.double().numpy() + 1) / 2 for each in pair)
    ]
    inside = torch.zeros(3, 1, 32, 40, dtype=torch.bool)
    inside[..., 5:-5, 5:-5] = True  # where the window of scikit-image needs no border either
    options = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    for index, found in enumerate(detail_ssim(images, target, inside).tolist()):
        similarity = structural_similarity(*(side[index] for side in high), full=True, **options)[1]
        assert found == pytest.approx(similarity[:, 5:-5, 5:-5].mean(), rel=1e-5)


def test_detail_forgets_brightness_and_keeps_texture() -> None:
    texture = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    other = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1)) - 0.5
    mask = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    mask[..., :24, :] = True
    assert detail_ssim(texture, texture + 0.4, mask).item() == pytest.approx(1.0, abs=1e-5)
    assert ssim(texture, texture + 0.4, mask).item() < 0.95
    assert abs(detail_ssim(texture, other, mask).item()) < 0.1
