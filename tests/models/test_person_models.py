"""RT-DETR, ViTPose and SegFormer from disk: coordinates come back in the photo's own pixels, wrong models are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2r.errors import InputError, MissingWeightsError
from r2r.models.person_models import HumanParser, PersonDetector, PoseEstimator
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


def test_keypoints_lie_in_the_photos_own_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heat-map with one peak for every keypoint, at a place that is known in the box."""
    estimator = PoseEstimator.from_pretrained(write_pose(tmp_path), threshold=0.5)
    boxes = [(20.0, 10.0, 50.0, 50.0), (0.0, 0.0, 30.0, 40.0)]  # of the heat-map's proportions, 48 to 64
    real = estimator.network.forward

    def peaked(*args, **kwargs):
        outputs = real(*args, **kwargs)
        maps = torch.zeros_like(outputs.heatmaps)
        height, width = maps.shape[2:]
        maps[:, :9, height // 4, width // 2] = 1.0  # up in the middle; the other keypoints are nowhere
        outputs.heatmaps = maps
        return outputs

    monkeypatch.setattr(estimator.network, "forward", peaked)
    found = estimator(PHOTOS, boxes)
    for points, (left, top, right, bottom) in zip(found, boxes, strict=True):
        assert points.shape == (17, 3) and (points[:9, 2] == 2).all() and (points[9:] == 0).all()
        # ViTPose widens boxes by a quarter.
        wide, high = 1.25 * (right - left), 1.25 * (bottom - top)
        place = (left + right) / 2, (top + bottom) / 2 - high / 4
        np.testing.assert_allclose(points[:9, :2], np.tile(place, (9, 1)), atol=0.06 * max(wide, high))


def test_label_maps_have_the_size_of_their_crops(tmp_path: Path) -> None:
    parser = HumanParser.from_pretrained(write_parser(tmp_path))
    found = parser(PHOTOS)
    assert [labels.shape for labels in found] == [(60, 90), (70, 40)]
    assert all(labels.dtype == np.uint8 and labels.max() < 18 for labels in found)


def test_models_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label 'person' but dog"):
        PersonDetector.from_pretrained(write_detector(tmp_path / "dogs", "dog"))
    with pytest.raises(InputError, match="has 5 labels, ATR_18 18"):
        HumanParser.from_pretrained(write_parser(tmp_path / "few", 5))
    for kind in (PersonDetector, PoseEstimator, HumanParser):
        with pytest.raises(MissingWeightsError, match="'no/such'"):
            kind.from_pretrained("no/such")
