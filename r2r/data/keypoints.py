"""Files of keypoints, in the forms that data sets write, as OpenPose's 18 in pixels of their picture."""

import json
from typing import Any

import numpy as np
from jaxtyping import Float

from r2r.data.samples import Part
from r2r.data.views import Geometry
from r2r.errors import DataError
from r2r.pose import body25_to_openpose, within

DRESSCODE_FRAME = (384, 512)  # width and height its keypoints are given in; the pictures are twice as large


def read_pose(part: Part, size: tuple[int, int]) -> Float[np.ndarray, "18 3"]:
    """Keypoints (x, y, v) of a picture of `size` (width, height); see `r2r.pose` for what they mean.

    Three forms are read: the studio's (`openpose_18` in a frame of `size`), OpenPose's (`people`, 18 or 25 keypoints
    with a confidence; of several people the one that is found best), and DressCode's (`keypoints` in 384 x 512).
    Confidences above zero count as visible. Raises: DataError naming a broken file or another form.
    """
    try:
        return _scaled(json.loads(part.read()), size)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"broken or unknown keypoint file: {part.name} ({error!r})") from error


def fitted_pose(part: Part, size: tuple[int, int]) -> Float[np.ndarray, "18 3"]:
    """Keypoints of another picture, in one of `size` (width, height): the frame they name is scaled to cover it.

    Files that name no frame are taken for keypoints of a picture of that size. Raises as `read_pose` does.
    """
    try:
        frame = tuple(json.loads(part.read()).get("size", size))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"broken or unknown keypoint file: {part.name} ({error!r})") from error
    return Geometry(size).keypoints(read_pose(part, frame), frame, flip=False)


def _scaled(content: dict[str, Any], size: tuple[int, int]) -> Float[np.ndarray, "18 3"]:
    if "openpose_18" in content:
        points, frame = np.array(content["openpose_18"], np.float64).reshape(18, 3), content["size"]
    elif "people" in content:
        points, frame = _best_person(content["people"]), size
    else:
        found = np.array([row[:2] for row in content["keypoints"]], np.float64).reshape(18, 2)
        points, frame = np.column_stack([found, np.where((found > 0).any(axis=1), 2, 0)]), DRESSCODE_FRAME
    scale = np.array([size[0] / frame[0], size[1] / frame[1], 1.0])
    return within(np.where(points[:, 2:] > 0, points * scale, 0.0), *size)


def _best_person(people: list[dict[str, Any]]) -> Float[np.ndarray, "18 3"]:
    """The person whose confidences add up to most, with v = 2 where found; nothing known when there are no people."""
    found = [np.array(person["pose_keypoints_2d"], np.float64).reshape(-1, 3) for person in people]
    points = max(found, key=lambda person: person[:, 2].sum(), default=np.zeros((18, 3)))
    points = body25_to_openpose(points) if len(points) == 25 else points.reshape(18, 3)
    return np.column_stack([points[:, :2], np.where(points[:, 2] > 0, 2.0, 0.0)])
