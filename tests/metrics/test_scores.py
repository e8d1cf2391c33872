"""Every image score: best on identical images, symmetric, one for each image, in a mask, checked, with a protocol."""

import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from r2r.data.images import decode_image, decode_mask, to_tensor
from r2r.errors import InputError
from r2r.metrics import DISTS, LPIPS, MSSSIM, PSNR, SSIM, WHOLE, CLIPSimilarity, DINOStructure, ImageScore
from tests.metrics.networks import clip_folder, feature_file, vit_folder

SHARD = Path(__file__).parents[2] / "r2r" / "assets" / "studio" / "val-0000.tar"
BUILD: dict[str, Callable[[Path], ImageScore]] = {
    "ssim": lambda folder: SSIM(),
    "psnr": lambda folder: PSNR(),
    "ms_ssim": lambda folder: MSSSIM(),
    "lpips": lambda folder: LPIPS("squeeze", feature_file(folder, "squeezenet1_1")),
    "dists": lambda folder: DISTS(feature_file(folder, "vgg16")),
    "clip": lambda folder: CLIPSimilarity(clip_folder(folder)),
    "dino": lambda folder: DINOStructure(vit_folder(folder)),
}


@pytest.fixture(scope="module", params=BUILD)
def score(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageScore:
    return BUILD[request.param](tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pair(score: ImageScore) -> tuple[Tensor, Tensor]:
    """Two smooth images and what noise, growing from the first to the second, makes of them."""
    torch.manual_seed(0)
    side = max(64, score.min_side)
    target = (
        torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=(side, side + 4), mode="bicubic").clamp(0, 1) * 2
        - 1
    )
    noise = torch.randn_like(target) * torch.tensor([0.1, 0.4]).view(2, 1, 1, 1)
    return (target + noise).clamp(-1, 1), target


@pytest.fixture(scope="module")
def studio() -> dict[str, Tensor]:
    """Two rendered scenes of the embedded data, their photo twins and garment masks."""
    with tarfile.open(SHARD) as shard:
        names = [name for name in shard.getnames() if name.endswith(".rendered.png")][:2]

        def read(name: str, member: str) -> bytes:
            return shard.extractfile(name.replace("rendered", member)).read()

        pictures = {
            member: torch.stack([to_tensor(decode_image(read(name, member), name)) for name in names])
            for member in ("rendered", "photo")
        }
        masks = [decode_mask(read(name, "garment_mask"), name) for name in names]
    return pictures | {"mask": torch.stack([to_tensor(mask)[:1] > 0 for mask in masks])}


def left(images: Tensor) -> Tensor:
    """A mask of the left third of the images, a little away from their border."""
    mask = torch.zeros_like(images[:, :1], dtype=torch.bool)
    mask[..., 6:-6, 4 : images.shape[-1] // 3] = True
    return mask


def test_identity_is_best_and_less_noise_is_better(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    best = {"PSNR [dB]": math.inf}.get(score.name, 1.0 if score.better == "higher" else 0.0)
    assert score.measure(target, target, None).tolist() == pytest.approx([best] * 2, abs=1e-5)
    little, much = score.measure(images, target, None).tolist()
    assert (little > much) if score.better == "higher" else (little < much)


def test_symmetric(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    assert torch.allclose(score.measure(images, target, None), score.measure(target, images, None), atol=1e-5)


def test_each_image_has_its_own_score(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    mask = left(images)
    for region in (None, mask):
        alone = [score.measure(images[[i]], target[[i]], None if region is None else mask[[i]]) for i in range(2)]
        assert torch.allclose(score.measure(images, target, region), torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_full_mask_is_the_whole_image(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    """Image by image: a batch rounds convolutions otherwise, and masked images may be measured one at a time."""
    full = torch.ones_like(pair[0][:, :1], dtype=torch.bool)
    # LPIPS averages maps that were upsampled first, which weighs their borders a little differently.
    tolerance = 2e-2 if score.name.startswith("LPIPS") else 1e-5
    for i in range(2):
        images, target = (side[[i]] for side in pair)
        assert torch.allclose(
            score.measure(images, target, full[[i]]), score.measure(images, target, None), rtol=tolerance
        )


def test_mask_counts_its_own_pixels(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    mask = left(images)
    inside = score.measure(images, target, mask)
    assert not torch.allclose(inside, score.measure(images, target, None), rtol=1e-3)
    elsewhere = images.clone()
    elsewhere[..., images.shape[-1] // 2 :] *= -1
    if score.name.startswith("LPIPS"):  # deep layers see far: its own test knows how far
        return
    assert torch.allclose(score.measure(elsewhere, target, mask), inside, atol=1e-6)


def test_real_pictures(score: ImageScore, studio: dict[str, Tensor]) -> None:
    rendered, photo = studio["rendered"], studio["photo"]
    if score.min_side > 128:
        with pytest.raises(InputError, match=r"MS-SSIM needs .* 176 px .* 128x128"):
            score.measure(rendered, photo, None)
        return
    for mask in (None, studio["mask"], ~studio["mask"]):
        between, same = score.measure(rendered, photo, mask), score.measure(rendered, rendered, mask)
        assert torch.isfinite(between).all()
        assert (same > between).all() if score.better == "higher" else (same < between).all()


def test_misuse_is_refused_before_work(score: ImageScore, pair: tuple[Tensor, Tensor]) -> None:
    images, target = pair
    for wrong, message in (
        (((images + 1) * 127.5).to(torch.uint8), "uint8"),
        ((images + 1) * 127.5, r"scale images to \[-1, 1\]"),
        (images[..., 1:], "shapes differ"),
        (images[:1], "shapes differ"),
        (images * torch.nan, "nan"),
    ):
        with pytest.raises(InputError, match=message):
            score.measure(wrong, target, None)
    empty = left(images)
    empty[1] = False
    with pytest.raises(InputError, match=r"empty mask for images \[1\]"):
        score.measure(images, target, empty)
    with pytest.raises(InputError, match="resize them"):
        score.measure(images, target, empty[..., 1:])


def test_smallest_size(score: ImageScore) -> None:
    side = score.min_side
    score.check((side, side))
    torch.manual_seed(0)
    images, target = torch.rand(2, 1, 3, side, side + 3) * 2 - 1
    assert torch.isfinite(score.measure(images, target, None)).all()
    if side > 1:
        with pytest.raises(InputError, match=rf"{side} px.*{side - 1}x{side}.*~metrics"):
            score.check((side - 1, side))
        with pytest.raises(InputError, match=f"{side} px"):
            score.measure(images[..., 1:, :], target[..., 1:, :], None)


def test_protocol_tells_apart_what_may_not_share_a_column(score: ImageScore) -> None:
    whole = score.protocol("source", WHOLE, "64x68", 2)
    assert whole["metric"] == score.name
    assert whole | {"reference": "target"} == score.protocol("target", WHOLE, "64x68", 2)
    assert "inside the region" not in whole
    assert score.protocol("source", "garment", "64x68", 2)["inside the region"] == score.regions
    assert all(isinstance(value, str | int | float) for value in whole.values())
    assert not [value for value in whole.values() if str(value).startswith(SHARD.anchor)], "a path of this machine"


def test_names_are_hydra_targets() -> None:
    score = instantiate({"_target_": "r2r.metrics.SSIM"})
    assert (score.name, score.better) == ("SSIM", "higher")


def test_random_numbers_of_training_are_untouched(tmp_path: Path) -> None:
    files = {name: feature_file(tmp_path, name) for name in ("vgg16", "squeezenet1_1")}
    folders = clip_folder(tmp_path), vit_folder(tmp_path)
    state = torch.get_rng_state()
    (
        LPIPS("squeeze", files["squeezenet1_1"]),
        DISTS(files["vgg16"]),
        CLIPSimilarity(folders[0]),
        DINOStructure(folders[1]),
    )
    assert torch.equal(state, torch.get_rng_state())
