"""How well a person stands in the pose that was asked for: PCK and OKS of keypoints that were found in the picture.

- Yang & Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts" (TPAMI 2013): the share of keypoints
  that lie within alpha times the longer side of the person's box.
- Object keypoint similarity of the COCO keypoint challenge: the mean of exp(-d^2 / (2 s^2 k^2)), k twice a deviation
  for each kind of keypoint.

Deviations
- The box is that of the known target keypoints. COCO's s^2 is the area of the person's segment; here it is the box's,
  so values are not those of a COCO evaluation. COCO's deviations are from memory.
- Only keypoints that the target knows count; one that was not found is a miss, at no distance.
"""

import numpy as np
from jaxtyping import Float

ALPHA = 0.1
DEVIATIONS = np.array(  # in COCO's order
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ]
)
Keypoints = Float[np.ndarray, "n 17 3"]  # x, y in pixels and v in COCO's order; v = 0: not known


def pck(found: Keypoints, target: Keypoints, alpha: float = ALPHA) -> Float[np.ndarray, " n"]:
    """Share of each target's known keypoints that were found within `alpha` of its box; nan where none is known."""
    distance, known, (width, height) = _distances(found, target)
    near = distance <= alpha * np.maximum(width, height)[:, None]
    return _mean(near, known)


def oks(found: Keypoints, target: Keypoints) -> Float[np.ndarray, " n"]:
    """Object keypoint similarity of each, in [0, 1]; nan where no keypoint of the target is known."""
    distance, known, (width, height) = _distances(found, target)
    area = np.maximum(width * height, 1.0)[:, None]
    return _mean(np.exp(-(distance**2) / (2 * area * (2 * DEVIATIONS) ** 2)), known)


def _distances(
    found: Keypoints, target: Keypoints
) -> tuple[np.ndarray, np.ndarray, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Distances, infinite where a keypoint was not found; which count; and the boxes' sides."""
    known = target[..., 2] > 0
    distance = np.linalg.norm(found[..., :2] - target[..., :2], axis=-1)
    places = np.where(known[..., None], target[..., :2], np.nan)
    empty = ~known.any(1)
    places[empty] = 0.0
    width, height = (np.nanmax(places, axis=1) - np.nanmin(places, axis=1)).T
    return np.where(found[..., 2] > 0, distance, np.inf), known, (width, height)


def _mean(values: np.ndarray, known: np.ndarray) -> Float[np.ndarray, " n"]:
    count = known.sum(1)
    return np.where(count > 0, (values * known).sum(1) / np.maximum(count, 1), np.nan)
