"""Boxes hold exactly the mask's surroundings they should; masks are averaged over; misfits are refused."""

import pytest
import torch

from r2r.errors import InputError
from r2r.metrics.regions import boxes, check_mask, masked_mean


def test_mean_inside_the_mask() -> None:
    values = torch.arange(12.0).view(1, 1, 3, 4).expand(1, 2, 3, 4)
    mask = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    mask[..., 1, 1:3] = True
    assert masked_mean(values, mask).tolist() == [5.5]


def test_box_is_the_masked_content_on_mid_grey() -> None:
    images, target = torch.ones(2, 3, 10, 12), torch.full((2, 3, 10, 12), -0.5)
    mask = torch.zeros(2, 1, 10, 12, dtype=torch.bool)
    mask[0, 0, 2, 3] = mask[0, 0, 4, 8] = True
    mask[1] = True
    (small, reference), (whole, _) = boxes(images, target, mask)
    assert small.shape == (1, 3, 3, 6)
    assert small[0, 0].nonzero().tolist() == [[0, 0], [2, 5]]
    assert reference[0, 0, 0, 0] == -0.5
    assert torch.equal(whole, images[1:])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (9, 11), (5, 6), (0, 11)])
def test_small_boxes_grow_inside_the_image(row: int, column: int) -> None:
    images = torch.zeros(1, 3, 10, 12)
    images[..., row, column] = 1
    mask = images[:, :1] > 0
    ((box, _),) = boxes(images, images, mask, min_side=7)
    assert box.shape == (1, 3, 7, 7)
    assert box.sum() == 3


def test_empty_and_misfit_masks_are_refused() -> None:
    images, mask = torch.zeros(2, 3, 4, 5), torch.ones(2, 1, 4, 5, dtype=torch.bool)
    check_mask(mask, images)
    for wrong in (mask[:1], mask[..., :4]):
        with pytest.raises(InputError, match="one for each image"):
            check_mask(wrong, images)
    mask[1] = False
    with pytest.raises(InputError, match=r"images \[1\]"):
        check_mask(mask, images)
