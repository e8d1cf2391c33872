"""Set scores: the backend asked for gives the value, checks come before work, protocols tell everything apart."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from r2r.errors import InputError
from r2r.metrics.backbones import Backbone
from r2r.metrics.distances import CLIPFID, FID, KID, SetScore
from r2r.metrics.frechet import clean_fid_fid, frechet, torch_fidelity_fid, torchmetrics_fid
from r2r.metrics.realism import kid, kid_difference
from r2r.metrics.subsets import clean_fid_kid, torch_fidelity_kid, torchmetrics_kid

MEANS = Backbone("means", lambda images: images.mean((2, 3)), size=3)
LIBRARIES = ["torch-fidelity", "torchmetrics", "clean-fid"]


def gaussians(n: int, shift: float = 0.0, seed: int = 0, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def needed(backend: str) -> str:
    if backend == "clean-fid":
        pytest.importorskip("cleanfid.fid")
    return backend


def test_default_kid_is_the_exact_one_with_its_paired_difference() -> None:
    after, before, target = gaussians(10, 0.2, seed=1), gaussians(10, 1.0, seed=2), gaussians(10, seed=3)
    score = KID(MEANS, seed=5)
    for paired in (False, True):
        assert score.estimate(after, target, paired) == kid(after, target, paired=paired, seed=5)
        expected = kid_difference(after, before, target, paired=paired, seed=5)
        assert score.difference(after, before, target, paired) == expected


@pytest.mark.parametrize(
    ("backend", "direct"), list(zip(LIBRARIES, [torch_fidelity_kid, torchmetrics_kid, clean_fid_kid], strict=True))
)
def test_kid_of_a_library(backend: str, direct: object) -> None:
    assert callable(direct)
    outputs, target = gaussians(20, 0.5, seed=1), gaussians(16, seed=2)
    score = KID(MEANS, needed(backend), subset_size=10, num_subsets=5, seed=2)
    assert score.estimate(outputs, target, False) == direct(outputs, target, 10, 5, 2)
    assert score.difference(outputs, outputs, target, False) is None


@pytest.mark.parametrize(
    ("backend", "direct"),
    list(zip(["r2r", *LIBRARIES], [frechet, torch_fidelity_fid, torchmetrics_fid, clean_fid_fid], strict=True)),
)
def test_fid_of_each_backend_has_no_interval(backend: str, direct: object) -> None:
    assert callable(direct)
    outputs, target = gaussians(20, 0.5, seed=1), gaussians(16, seed=2)
    estimate = FID(MEANS, needed(backend)).estimate(outputs, target, False)
    assert estimate.low == estimate.value == estimate.high == direct(outputs, target)
    assert FID(MEANS).difference(outputs, outputs, target, False) is None


@pytest.mark.parametrize("backend", ["r2r", *LIBRARIES])
def test_equal_sets_are_nearest(backend: str) -> None:
    target = gaussians(30, seed=2)
    for score in (KID(MEANS, needed(backend), subset_size=25, num_subsets=10), FID(MEANS, backend)):
        near = score.estimate(gaussians(30, seed=1), target, False)
        far = score.estimate(gaussians(30, 1.0, seed=1), target, False)
        assert near.value < 0.25 * far.value


def test_subsets_larger_than_a_set_are_an_early_error() -> None:
    score = KID(MEANS, "torch-fidelity")
    with pytest.raises(InputError, match=r"subsets of 1000 from sets of 60 and 2000 .*subset_size=60"):
        score.check(60, 2000)
    score.check(1000, 2000)
    KID(MEANS).check(60, 2000)


@pytest.mark.parametrize(
    "score", [KID(MEANS), KID(MEANS, "torch-fidelity"), FID(MEANS)], ids=["exact", "subsets", "fid"]
)
@pytest.mark.parametrize("sizes", [(1, 50), (50, 1), (0, 2)])
def test_a_single_image_is_an_early_error(score: SetScore, sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"two images in each set, got {sizes[0]} and {sizes[1]}"):
        score.check(*sizes)


def test_two_images_are_enough() -> None:
    for score in (KID(MEANS), KID(MEANS, "torchmetrics", subset_size=2, num_subsets=3), FID(MEANS)):
        score.check(2, 2)
        assert torch.isfinite(torch.tensor(score.estimate(gaussians(2), gaussians(2, seed=1), False).value))


def test_fid_of_few_images_says_so() -> None:
    score = FID(MEANS)
    assert score.caution(4, 4) is None
    assert (score.caution(3, 9) or "").startswith("rank-deficient: n = 3")
    assert score.protocol(3, 9, False)["caution"] == score.caution(3, 9)
    assert "caution" not in score.protocol(50, 50, False)
    assert "high variance" in str(KID(MEANS, "torchmetrics", subset_size=50).caution(60, 60))


@pytest.mark.parametrize("make", [KID, FID])
def test_unknown_backends_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=r"backend='pytorch-fid' is none of clean-fid, r2r, torch-fidelity"):
        make(MEANS, "pytorch-fid")


@pytest.mark.parametrize(("size", "count"), [(1, 10), (10, 0)])
def test_empty_subsets_are_refused(size: int, count: int) -> None:
    with pytest.raises(InputError, match="at least one of two"):
        KID(MEANS, "torchmetrics", subset_size=size, num_subsets=count)


def all_different(protocols: Sequence[dict]) -> bool:
    return all(a != b for index, a in enumerate(protocols) for b in protocols[:index])


def test_protocols_differ_wherever_the_value_may() -> None:
    scores = [
        KID(MEANS),
        KID(MEANS, seed=1),
        KID(MEANS, "torch-fidelity"),
        KID(MEANS, "torchmetrics"),
        KID(MEANS, "torchmetrics", subset_size=50),
        KID(MEANS, "torchmetrics", num_subsets=10),
        KID(MEANS, "torchmetrics", seed=1),
        KID(Backbone("other", MEANS.features)),
        KID(Backbone("means", MEANS.features, resize="to 8 px")),
        KID(Backbone("means", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1)))),
        FID(MEANS),
    ]
    protocols = [score.protocol(2000, 2000, False) for score in scores]
    protocols += [KID(MEANS).protocol(2000, 2000, True), KID(MEANS).protocol(1999, 2000, False)]
    protocols += [KID(MEANS).protocol(2000, 2000, False, "garment")]
    assert all_different(protocols)
    assert KID(MEANS).protocol(9, 9, True)["same-scene pairs"] == "left out"
    stated = {
        "backend",
        "version",
        "backbone",
        "resize",
        "quantization",
        "kernel",
        "subset_size",
        "num_subsets",
        "seed",
    }
    assert stated | {"num_outputs", "num_target", "interval", "weights"} <= protocols[2].keys()


def test_title_names_the_backbone() -> None:
    assert KID(MEANS).title == "KID (means)"


def test_clip_fid_is_fid_of_clip(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=4, **small)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    score = CLIPFID(str(tmp_path))
    outputs, target = (score.backbone(torch.rand(6, 3, 20, 16) * 2 - 1) for _ in range(2))
    assert score.title == f"CLIP-FID ({tmp_path.name})"
    assert score.estimate(outputs, target, False).value == frechet(outputs, target)
    assert score.backbone.size == 4
    assert (score.caution(4, 9) or "").startswith("rank-deficient")


@pytest.mark.gpu
def test_features_on_an_accelerator_give_the_same_values() -> None:
    outputs, target = gaussians(300, 0.5, seed=1), gaussians(250, seed=2)
    for make in (KID, FID, lambda backbone: KID(backbone, "torchmetrics", subset_size=5, num_subsets=4)):
        here, there = (make(Backbone("means", MEANS.features, device=device)) for device in ("cpu", "cuda"))
        expected, found = (score.estimate(outputs, target, False) for score in (here, there))
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
