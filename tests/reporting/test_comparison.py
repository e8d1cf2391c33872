"""A comparison of methods on paired scenes: identities, costs, floor, per-image rows."""

import pytest
import torch

from r2r.errors import InputError
from r2r.metrics import Backbone, Estimate, kid, masked_ssim
from r2r.reporting import Comparison, Outputs
from r2r.reporting.comparison import PSNR_TWIN, SSIM_TWIN, TEXTURE
from r2r.types import PairedBatch


@pytest.fixture
def scenes() -> PairedBatch:
    torch.manual_seed(0)
    rendered = torch.rand(6, 3, 24, 24) * 1.2 - 0.6
    mask = torch.zeros(6, 1, 24, 24, dtype=torch.bool)
    mask[..., 6:18, 6:18] = True
    words = [f"scene {index}" for index in range(6)]
    return {
        "rendered": rendered,
        "photo": (rendered + 0.3).clamp(-1, 1),
        "garment_mask": mask,
        "caption": words,
        "category": words,
        "texture": words,
        "key": [f"{index:04d}" for index in range(6)],
    }


@pytest.fixture
def comparison(scenes: PairedBatch) -> Comparison:
    backbone = Backbone("moments", lambda images: torch.cat([images.mean((2, 3)), images.std((2, 3))], 1))
    halfway = Outputs("halfway", (scenes["rendered"] + 0.15).clamp(-1, 1), evals=54.0, seconds=0.5)
    methods = [Outputs("input", scenes["rendered"]), halfway, Outputs("twin", scenes["photo"])]
    return Comparison(scenes, methods, [backbone])


def test_identity_and_twin_rows(comparison: Comparison) -> None:
    assert comparison.methods["input"].per_image[TEXTURE] == pytest.approx([1.0] * 6)
    assert comparison.methods["twin"].per_image[SSIM_TWIN] == pytest.approx([1.0] * 6)
    assert comparison.kid("twin").value == pytest.approx(0.0, abs=1e-6)


def test_halfway_lies_between(comparison: Comparison) -> None:
    assert comparison.kid("input").value > comparison.kid("halfway").value > comparison.kid("twin").value
    assert comparison.kid_change("halfway", "input").sign == -1
    assert comparison.change(PSNR_TWIN, "halfway", "input").sign == 1
    assert comparison.change(TEXTURE, "halfway", "input").sign == -1


def test_scores_are_those_of_the_metrics(comparison: Comparison, scenes: PairedBatch) -> None:
    halfway = comparison.methods["halfway"].outputs.images
    expected = masked_ssim(halfway, scenes["rendered"], scenes["garment_mask"])
    assert comparison.methods["halfway"].per_image[TEXTURE] == pytest.approx(expected.tolist())
    features = [comparison.backbones[0](images) for images in (halfway, scenes["photo"])]
    assert comparison.kid("halfway") == kid(*features, paired=True)


def test_table_has_costs_and_floor(comparison: Comparison, scenes: PairedBatch) -> None:
    table = comparison.table("title", floor=("other photos", scenes["photo"].flip(0)[:3]))
    assert [row[0] for row in table.rows] == ["input", "halfway", "twin", "other photos"]
    assert table.rows[1][-2:] == [54.0, 0.5]
    assert table.rows[0][-2:] == [None, None]
    assert isinstance(table.rows[3][1], Estimate)
    assert table.rows[3][2:] == [None] * 5
    assert {column.title for column in table.columns[1:5]} == set(comparison.protocols())


def test_per_image_rows(comparison: Comparison) -> None:
    rows = comparison.per_image_rows()
    assert len(rows) == 6 * 3
    assert rows[1]["key"] == "0000"
    assert rows[1]["method"] == "halfway"
    assert rows[1][TEXTURE] == comparison.methods["halfway"].per_image[TEXTURE][0]


def test_missing_images_are_refused(scenes: PairedBatch) -> None:
    with pytest.raises(InputError, match="halfway: 5 images for 6 scenes"):
        Comparison(scenes, [Outputs("halfway", scenes["rendered"][:5])], [])
