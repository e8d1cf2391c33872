"""Backbones: chunking changes nothing, weights load from a file or torch hub's cache, misuse is named."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torchvision.models import get_model, get_model_weights, squeezenet1_1

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics.backbones import EIGHT_BIT, IMAGENET, Backbone, inception, squeezenet, torchvision_backbone
from r2r.metrics.realism import kid


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch hub's cache, empty, and no way to fetch."""

    def offline(*arguments: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def normalised(images: Tensor, side: int) -> Tensor:
    resized = nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    return ((resized + 1) / 2 - mean) / std


def test_chunks_equal_the_whole() -> None:
    torch.manual_seed(0)
    backbone = Backbone("means", lambda images: images.mean((2, 3)))
    images = torch.rand(5, 3, 8, 8)
    assert torch.equal(backbone(images, batch_size=2), images.mean((2, 3)))


def test_id_tells_name_weights_and_rules_apart() -> None:
    torch.manual_seed(0)
    networks = [
        nn.Flatten(),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
    ]
    backbones = [Backbone("a", network) for network in networks]
    backbones += [Backbone("b", networks[0]), Backbone("a", networks[0], resize="to 8 px")]
    backbones += [Backbone("a", networks[0], quantization=EIGHT_BIT)]
    assert len({backbone.id for backbone in backbones}) == len(backbones)
    assert Backbone("a", networks[1].forward).id == backbones[1].id
    assert Backbone("a", torch.flatten).weights == ""


def test_squeezenet_from_a_file_equals_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = squeezenet1_1(weights=None).features.eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        expected = reference(normalised(images, 224)).mean((2, 3))
    backbone = squeezenet(tmp_path / "weights.safetensors")
    assert backbone.name == "squeezenet-caffe"
    assert torch.allclose(backbone(images), expected, atol=1e-5)


@pytest.mark.skipif("R2R_SQUEEZENET" not in os.environ, reason="R2R_SQUEEZENET names no file of trained weights")
def test_trained_squeezenet_sees_noise() -> None:
    backbone = squeezenet(os.environ["R2R_SQUEEZENET"])
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(16, 3, 8, 8, generator=draws) * 1.6 - 0.8
    smooth = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    noisy = (smooth + 0.2 * torch.randn(smooth.shape, generator=draws)).clamp(-1, 1)
    target = backbone(smooth[:8])
    assert kid(backbone(noisy[8:]), target).low > kid(backbone(smooth[8:]), target).high


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"none\.safetensors"):
        squeezenet(tmp_path / "none.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(MissingWeightsError, match="does not hold"):
        squeezenet(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "broken.pth").write_bytes(b"no tensors")
    for name in ("broken.safetensors", "broken.pth"):
        with pytest.raises(MissingWeightsError, match="no readable weights"):
            squeezenet(tmp_path / name)


def test_images_of_another_range_are_refused() -> None:
    with pytest.raises(InputError, match="images for means"):
        Backbone("means", lambda images: images.mean((2, 3)))(torch.full((1, 3, 8, 8), 200.0))


@pytest.mark.parametrize(
    ("arch", "side", "size"),
    [("resnet18", 224, 512), ("shufflenet_v2_x0_5", 224, 1024), ("mobilenet_v3_small", 224, 1024)],
)
def test_features_enter_the_last_linear_layer(arch: str, side: int, size: int, tmp_path: Path, images: Tensor) -> None:
    torch.manual_seed(0)
    reference = get_model(arch, weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    backbone = torchvision_backbone(arch, tmp_path / "weights.pth")
    head = [module for module in reference.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = reference(normalised(images, side))
        assert torch.allclose(head(backbone(images)), logits, atol=1e-5)
    assert (backbone.name, backbone.size) == (f"{arch}-weights", size)
    assert backbone(images).shape == (2, size)
    assert backbone.resize == f"bilinear, antialiased, to {side} px"


def test_squeezenet_classifier_gives_its_pooled_maps(tmp_path: Path, images: Tensor) -> None:
    torch.manual_seed(0)
    reference = get_model("squeezenet1_1", weights=None).eval()
    save_file(reference.state_dict(), tmp_path / "whole.safetensors")
    save_file(reference.features.state_dict(), tmp_path / "features.safetensors")
    whole, features = (
        torchvision_backbone("squeezenet1_1", tmp_path / "whole.safetensors"),
        squeezenet(tmp_path / "features.safetensors"),
    )
    assert whole.size == 512
    assert torch.equal(whole(images), features(images))


def test_default_weights_come_from_the_cache_of_torch_hub(hub: Path, images: Tensor) -> None:
    published = get_model_weights("shufflenet_v2_x0_5")["DEFAULT"]
    with pytest.raises(MissingWeightsError, match="weights=FILE") as refused:
        torchvision_backbone("shufflenet_v2_x0_5")
    place = hub / published.url.rsplit("/", 1)[1]
    assert str(place) in str(refused.value)
    torch.manual_seed(0)
    torch.save(get_model("shufflenet_v2_x0_5", weights=None).state_dict(), place)
    backbone = torchvision_backbone("shufflenet_v2_x0_5")
    assert backbone.name == "shufflenet_v2_x0_5-IMAGENET1K_V1"
    assert torch.equal(backbone(images), torchvision_backbone("shufflenet_v2_x0_5", place)(images))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(get_model("squeezenet1_0", weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(MissingWeightsError, match="does not hold squeezenet1_1"):
        torchvision_backbone("squeezenet1_1", tmp_path / "other.pth")


def test_unknown_architecture_is_refused_with_a_close_one() -> None:
    with pytest.raises(InputError, match="resnet50"):
        torchvision_backbone("resnet_50")


def test_inception_equals_torch_fidelity(hub: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    place = hub / URL_INCEPTION_V3.rsplit("/", 1)[1]
    with pytest.raises(MissingWeightsError, match="weights=FILE") as refused:
        inception()
    assert str(place) in str(refused.value)
    torch.manual_seed(0)
    with monkeypatch.context() as patch:  # torch-fidelity builds no network without weights
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        reference = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)
    torch.save(reference.state_dict(), place)
    state = torch.get_rng_state()
    backbone = inception()
    assert torch.equal(state, torch.get_rng_state())
    stored = ((images + 1) * 127.5).round().to(torch.uint8)
    features = backbone(images)
    with torch.no_grad():
        assert torch.allclose(features, reference(stored)[0], atol=1e-5)
    assert features.shape == (2, backbone.size)
    assert inception(place).id == backbone.id
    assert "not antialiased" in backbone.resize


def test_inception_runs_no_code_from_a_file(tmp_path: Path) -> None:
    torch.save({"code": os.system}, tmp_path / "evil.pth")
    with pytest.raises(MissingWeightsError, match="no readable weights"):
        inception(tmp_path / "evil.pth")
    torch.save({"fc.bias": torch.zeros(1008)}, tmp_path / "other.pth")
    with pytest.raises(MissingWeightsError, match="does not hold torch-fidelity's Inception"):
        inception(tmp_path / "other.pth")
