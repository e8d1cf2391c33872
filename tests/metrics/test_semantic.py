"""CLIP similarity equals CLIP's own processor and model; DINO structure equals its definition; models are checked."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection, ViTModel

from r2r.data.images import to_pil, to_tensor
from r2r.errors import MissingWeightsError
from r2r.metrics import CLIPSimilarity, DINOStructure
from r2r.metrics.semantic import LONGEST, last_keys
from r2r.metrics.weights import from_hub
from tests.metrics.networks import clip_folder, vit_folder


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Eight-bit images of the models' own size: no resize rule takes part."""
    torch.manual_seed(0)
    images, target = (to_tensor(to_pil(torch.rand(3, 32, 32) * 2 - 1))[None] for _ in range(2))
    return images, target


def test_clip_equals_its_own_pipeline(tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
    folder = clip_folder(tmp_path)
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    with torch.no_grad():
        one, other = (
            model.get_image_features(**processor(to_pil(image[0]), return_tensors="pt")).pooler_output for image in pair
        )
    expected = (one @ other.T / one.norm() / other.norm()).item()
    score = CLIPSimilarity(folder)
    assert score.name == "CLIP similarity (tiny-clip)"
    assert score.measure(*pair, None).item() == pytest.approx(expected, abs=1e-5)
    assert expected < 0.99


def test_clip_sees_a_portrait_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    score = CLIPSimilarity(clip_folder(tmp_path))
    target = torch.zeros(1, 3, 64, 32)
    head = target.clone()
    head[..., :12, :] = torch.rand(3, 12, 32)  # a centre crop would not see it
    assert score.measure(head, target, None) < 0.9999
    padded = torch.nn.functional.pad(head, (16, 16))
    assert score.measure(padded, head.new_zeros(1, 3, 64, 64), None) == pytest.approx(
        score.measure(head, target, None).item(), abs=1e-6
    )


def test_image_tower_alone_will_do(tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
    folder = clip_folder(tmp_path)
    from_hub(CLIPVisionModelWithProjection, folder).save_pretrained(tmp_path / "image_encoder")
    alone, whole = CLIPSimilarity(str(tmp_path / "image_encoder")), CLIPSimilarity(folder)
    assert alone.settings == whole.settings
    assert torch.allclose(alone.measure(*pair, None), whole.measure(*pair, None), atol=1e-6)


def self_similarity(model: ViTModel, image: Tensor) -> Tensor:
    """By the definition, token by token, from the hidden states before the last layer."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((image + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    hidden = model(pixels, output_hidden_states=True).hidden_states[-2]
    layer = model.layers[-1]
    keys = layer.attention.k_proj(layer.layernorm_before(hidden))[0]
    return torch.stack([torch.nn.functional.cosine_similarity(key[None], keys) for key in keys])


def test_dino_structure_equals_its_definition(tmp_path: Path, pair: tuple[Tensor, Tensor]) -> None:
    folder = vit_folder(tmp_path)
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        one, other = (self_similarity(model, image) for image in pair)
    assert one.shape == (17, 17)  # 4 x 4 patches and the class token
    score = DINOStructure(folder)
    assert score.name == "DINO structure (tiny-dino)"
    assert score.measure(*pair, None).item() == pytest.approx((one - other).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize(("size", "tokens"), [((32, 32), 17), ((64, 48), 5 * 4 + 1), ((8, 800), 1 * 8 + 1)])
def test_dino_keeps_the_aspect_ratio_within_limits(size: tuple[int, int], tokens: int, tmp_path: Path) -> None:
    assert int(32 * LONGEST) // 8 == 8
    score = DINOStructure(vit_folder(tmp_path))
    seen: list[int] = []

    def spy(network: ViTModel, pixels: Tensor) -> Tensor:
        keys = last_keys(network, pixels)
        seen.append(keys.shape[1])
        return keys

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("r2r.metrics.semantic.last_keys", spy)
        score.measure(torch.zeros(1, 3, *size), torch.ones(1, 3, *size), None)
    assert seen == [tokens, tokens]


@pytest.mark.parametrize("build", [CLIPSimilarity, DINOStructure])
def test_missing_models_say_where_to_put_them(build: type, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="HF_HOME"):
        build("facebook/no-such-model-here")  # the suite runs with HF_HUB_OFFLINE=1
    with pytest.raises(MissingWeightsError, match="nowhere"):
        build(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingWeightsError, match="empty"):
        build(str(tmp_path / "empty"))


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="is no CLIPVisionModelWithProjection: it lacks"):
        CLIPSimilarity(vit_folder(tmp_path))
    with pytest.raises(MissingWeightsError, match="is no ViTModel: it lacks"):
        DINOStructure(clip_folder(tmp_path))
