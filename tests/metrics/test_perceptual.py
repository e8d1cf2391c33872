"""LPIPS equals the authors' package and DISTS torchmetrics on equal weights; weights are found, named and checked."""

import urllib.error
import warnings
from pathlib import Path
from typing import Any

import lpips
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics.functional.image import dists

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics import DISTS, LPIPS
from r2r.metrics.perceptual import ARCHITECTURES, LPIPS_SIDES
from tests.metrics.networks import feature_file, layers


def package(net: str) -> Any:
    """The `lpips` package's own network over the random layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    plain = layers(ARCHITECTURES[net]).state_dict()
    network.net.load_state_dict({name: plain[name.split(".", 1)[1]] for name in network.net.state_dict()})
    return network.requires_grad_(False)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.rand(2, 3, 48, 56) * 2 - 1
    return (target + 0.3 * torch.randn_like(target)).clamp(-1, 1), target


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_lpips_equals_the_package(net: str, tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
    score, reference = LPIPS(net, feature_file(tmp_path, ARCHITECTURES[net])), package(net)
    assert torch.allclose(score.measure(*pair, None), reference(*pair).flatten(), rtol=1e-5)
    mask = torch.rand(2, 1, 48, 56) > 0.6
    reference.spatial = True
    maps = reference(*pair)
    expected = torch.stack([values[inside].mean() for values, inside in zip(maps, mask, strict=True)])
    assert torch.allclose(score.measure(*pair, mask), expected, rtol=1e-5)
    assert score.name == f"LPIPS ({net}, backbone random-{ARCHITECTURES[net]})"


@pytest.mark.parametrize(("net", "side"), LPIPS_SIDES.items())
def test_smallest_side_is_the_package_s(net: str, side: int) -> None:
    network = package(net)
    assert torch.isfinite(network(*torch.rand(2, 1, 3, side, side))).all()
    with pytest.raises(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network(*torch.rand(2, 1, 3, side - 1, side - 1))


def test_lpips_in_a_mask_ignores_what_is_far_away(tmp_path: Path) -> None:
    score = LPIPS("squeeze", feature_file(tmp_path, "squeezenet1_1"))
    torch.manual_seed(0)
    images, target = torch.rand(2, 1, 3, 32, 448) * 2 - 1
    mask = torch.zeros(1, 1, 32, 448, dtype=torch.bool)
    mask[..., :48] = True
    near, far = images.clone(), images.clone()
    near[..., 80:112] *= -1
    far[..., 300:] *= -1
    inside = score.measure(images, target, mask)
    assert torch.allclose(score.measure(far, target, mask), inside, atol=1e-6)
    assert not torch.allclose(score.measure(near, target, mask), inside, atol=1e-4)


def test_plain_lpips_rests_on_torchvision_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    whole = {f"features.{name}": value for name, value in layers("squeezenet1_1").state_dict().items()}
    torch.save(whole | {"classifier.1.bias": torch.zeros(1000)}, cached)
    plain, other = LPIPS("squeeze"), LPIPS("squeeze", cached)
    assert plain.name == "LPIPS (squeeze)"
    assert other.name == "LPIPS (squeeze, backbone squeezenet1_1-b8a52dc0)"
    assert plain.settings == other.settings
    assert torch.equal(plain.measure(*pair, None), other.measure(*pair, None))
    assert torch.allclose(plain.measure(*pair, None), package("squeeze")(*pair).flatten(), rtol=1e-5)


def test_weights_are_part_of_the_protocol(tmp_path: Path) -> None:
    one = LPIPS("squeeze", feature_file(tmp_path, "squeezenet1_1"))
    state = {name: value + 1e-3 for name, value in layers("squeezenet1_1").state_dict().items()}
    save_file(state, tmp_path / "moved.safetensors")
    assert one.settings["backbone"] != LPIPS("squeeze", tmp_path / "moved.safetensors").settings["backbone"]
    assert one.settings["version"] == "0.1"


@pytest.mark.parametrize(("build", "file"), [(LPIPS, "alexnet-owt-7be5be79.pth"), (DISTS, "vgg16-397923af.pth")])
def test_missing_weights_say_which_file_goes_where(
    build: Any, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    with pytest.raises(MissingWeightsError, match=f"{tmp_path}.*{file}.*TORCH_HOME.*weights=FILE"):
        build()


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="net='resnet': LPIPS knows alex, vgg, squeeze"):
        LPIPS("resnet")
    with pytest.raises(MissingWeightsError, match=r"none\.pth"):
        DISTS(tmp_path / "none.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(MissingWeightsError, match=r"broken\.pth"):
        LPIPS("squeeze", tmp_path / "broken.pth")
    with pytest.raises(MissingWeightsError, match="tensors are missing"):
        LPIPS("alex", feature_file(tmp_path, "squeezenet1_1"))
    wrong = {name: value[:1].clone() for name, value in layers("squeezenet1_1").state_dict().items()}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(MissingWeightsError, match="do not fit"):
        LPIPS("squeeze", tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("size", [(48, 56), (33, 47)])
def test_dists_equals_torchmetrics(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Classifier:
        features = layers("vgg16")

    monkeypatch.setattr(dists, "vgg16", lambda weights: Classifier)
    torch.manual_seed(0)
    target = torch.rand(2, 3, *size)
    images = (target + 0.2 * torch.randn_like(target)).clamp(0, 1)
    with torch.no_grad():
        expected = dists.deep_image_structure_and_texture_similarity(images, target)
    score = DISTS(feature_file(tmp_path, "vgg16"))
    assert torch.allclose(score.measure(images * 2 - 1, target * 2 - 1, None), expected, rtol=1e-4)
    assert (expected > 0.01).all()
    assert score.name == "DISTS (backbone random-vgg16)"
