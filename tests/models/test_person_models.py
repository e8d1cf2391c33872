"""RT-DETR, ViTPose and SegFormer from disk: coordinates come back in the photo's own pixels, wrong models are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2r.errors import InputError, MissingWeightsError
from r2r.models.person_models import HumanParser, PersonDetector, PoseEstimator, enlarged_labels
from r2r.parsing import LIP_20
from tests.person_weights import write_detector, write_parser, write_pose

PHOTOS = [Image.new("RGB", (90, 60), (200, 30, 40)), Image.new("RGB", (40, 70), (30, 40, 200))]


def test_boxes_are_cut_to_their_photo(tmp_path: Path) -> None:
    detector = PersonDetector.from_pretrained(write_detector(tmp_path), threshold=0.0)
    found = detector(PHOTOS)
    assert len(found) == 2 and all(found)
    for boxes, photo in zip(found, PHOTOS, strict=True):
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= photo.width and 0 <= top < bottom <= photo.height
    assert PersonDetector.from_pretrained(str(tmp_path), threshold=1.0)(PHOTOS) == [[], []]


def test_one_person_has_one_box(tmp_path: Path) -> None:
    detector = PersonDetector.from_pretrained(write_detector(tmp_path))
    boxes = torch.tensor([[10.0, 10, 50, 50], [11, 10, 50, 52], [40, 10, 80, 50], [-9, 20, 0.5, 40]])
    found = {"boxes": boxes, "scores": torch.tensor([0.8, 0.9, 0.7, 0.95]), "labels": torch.zeros(4, dtype=torch.long)}
    assert detector._persons(found, PHOTOS[0]) == [(11.0, 10.0, 50.0, 52.0), (40.0, 10.0, 80.0, 50.0)]


def bump(size: tuple[int, int], centre: tuple[float, float]) -> Image.Image:
    """A photo that is bright around a place; pixel i spans i to i + 1."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5 - centre[0], np.arange(size[1]) + 0.5 - centre[1])
    grey = 255 * np.exp(-(x**2 + y**2) / (2 * 4.0**2))
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("experts", [1, 3])
def test_keypoints_are_where_the_photo_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experts: int
) -> None:
    """Heat maps that are the processor's own crops: what is bright in the photo is found where it is."""
    estimator = PoseEstimator.from_pretrained(write_pose(tmp_path, experts), threshold=0.5)
    boxes, places = [(20.0, 30.0, 70.0, 90.0), (5.5, 8.0, 50.0, 70.25)], [(41.5, 55.5), (30.0, 33.25)]
    photos = [bump(size, place) for size, place in zip(((96, 128), (60, 90)), places, strict=True)]
    real = estimator.network.forward

    def bright(pixel_values, **inputs):
        assert ("dataset_index" in inputs) == (experts > 1)
        outputs = real(pixel_values, **inputs)
        grey = pixel_values.mean(1, keepdim=True)
        maps = (grey - grey.amin((2, 3), keepdim=True)) / (grey.amax() - grey.amin())
        outputs.heatmaps = torch.cat([maps.expand(-1, 9, -1, -1), 0 * maps.expand(-1, 8, -1, -1)], dim=1)
        return outputs

    monkeypatch.setattr(estimator.network, "forward", bright)
    for points, place in zip(estimator(photos, boxes), places, strict=True):
        assert points.shape == (17, 3) and (points[:9, 2] == 2).all() and (points[9:] == 0).all()
        np.testing.assert_allclose(points[:9, :2], np.tile(place, (9, 1)), atol=0.05)


def test_label_maps_have_the_size_of_their_crops(tmp_path: Path) -> None:
    parser = HumanParser.from_pretrained(write_parser(tmp_path))
    found = parser(PHOTOS)
    assert [labels.shape for labels in found] == [(60, 90), (70, 40)]
    assert all(labels.dtype == np.uint8 and labels.max() < 18 for labels in found)


def test_labels_are_chosen_after_enlarging() -> None:
    logits = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
    enlarged = torch.nn.functional.interpolate(logits[None], (40, 31), mode="bilinear")[0]
    np.testing.assert_array_equal(enlarged_labels(logits, 40, 31), enlarged.argmax(0).numpy())


def test_models_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label 'person' but dog"):
        PersonDetector.from_pretrained(write_detector(tmp_path / "dogs", "dog"))
    with pytest.raises(InputError, match="has 5 labels, ATR_18 18"):
        HumanParser.from_pretrained(write_parser(tmp_path / "few", 5))
    own = tuple(name.title().replace("-", "_") for name in LIP_20)
    HumanParser.from_pretrained(write_parser(tmp_path / "lip", names=own), label_set="LIP_20")
    with pytest.raises(InputError, match=r"not those of CIHP_20 but 'Jumpsuits' for 'torso-skin'; .*id2label"):
        HumanParser.from_pretrained(str(tmp_path / "lip"), label_set="CIHP_20")
    with pytest.raises(InputError, match="of another kind"):
        PersonDetector.from_pretrained(str(tmp_path / "lip"))
    for kind in (PersonDetector, PoseEstimator, HumanParser):
        with pytest.raises(MissingWeightsError, match="'no/such'"):
            kind.from_pretrained("no/such")
