"""Keypoints of people: names, orders, how one set becomes another, and the picture of a skeleton.

A keypoint is (x, y, v) in pixels, where pixel i spans i to i + 1; v is 2 for visible, 1 for hidden, 0 for outside of
the picture or not known (then x = y = 0). Left and right are the person's. The order of COCO's keypoints, BODY_25's
feet and OpenPose's limbs are from memory.
"""

import colorsys

import numpy as np
from jaxtyping import Float, UInt8

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
OPENPOSE_18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
BODY_25 = (
    *OPENPOSE_18[:8], "mid_hip", *OPENPOSE_18[8:], "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip

LIMBS = (
    ("neck", "right_shoulder"), ("neck", "left_shoulder"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("neck", "left_hip"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("neck", "nose"), ("nose", "right_eye"),
    ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
)  # fmt: skip


def coco_to_openpose(keypoints: Float[np.ndarray, "17 3"]) -> Float[np.ndarray, "18 3"]:
    """The same person in OpenPose's order; the neck is between the shoulders, and missing where one of them is."""
    left, right = (keypoints[COCO_17.index(f"{side}_shoulder")] for side in ("left", "right"))
    seen = min(left[2], right[2])
    neck = np.array([*(left[:2] + right[:2]) / 2, seen]) if seen > 0 else np.zeros(3)
    return np.stack([neck if name == "neck" else keypoints[COCO_17.index(name)] for name in OPENPOSE_18])


def openpose_to_coco(keypoints: Float[np.ndarray, "18 3"]) -> Float[np.ndarray, "17 3"]:
    """The same person in COCO's order, which has no neck."""
    return keypoints[[OPENPOSE_18.index(name) for name in COCO_17]]


def body25_to_openpose(keypoints: Float[np.ndarray, "25 3"]) -> Float[np.ndarray, "18 3"]:
    """The same person without the middle of the hips and without toes and heels."""
    return keypoints[[BODY_25.index(name) for name in OPENPOSE_18]]


def openpose_to_body25(keypoints: Float[np.ndarray, "18 3"]) -> Float[np.ndarray, "25 3"]:
    """The same person among BODY_25: feet are missing, the middle of the hips is where both hips are known."""
    found = np.zeros((len(BODY_25), 3), keypoints.dtype)
    found[[BODY_25.index(name) for name in OPENPOSE_18]] = keypoints
    hips = found[[BODY_25.index("right_hip"), BODY_25.index("left_hip")]]
    if hips[:, 2].min() > 0:
        found[BODY_25.index("mid_hip")] = [*hips[:, :2].mean(axis=0), hips[:, 2].min()]
    return found


def mirrored(keypoints: Float[np.ndarray, "18 3"], width: int) -> Float[np.ndarray, "18 3"]:
    """OpenPose's keypoints in the mirror image of a picture `width` pixels wide: left and right change places."""
    other = {"left": "right", "right": "left"}
    names = ["_".join(other.get(word, word) for word in name.split("_")) for name in OPENPOSE_18]
    swapped = keypoints[[OPENPOSE_18.index(name) for name in names]]
    return np.where(swapped[:, 2:] > 0, swapped * [-1, 1, 1] + [width, 0, 0], 0.0).astype(keypoints.dtype)


def within(keypoints: Float[np.ndarray, "n 3"], width: int, height: int) -> Float[np.ndarray, "n 3"]:
    """The keypoints, without those that lie outside of a picture of that size."""
    x, y, known = keypoints.T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (known > 0)
    return np.where(inside[:, None], keypoints, 0.0).astype(keypoints.dtype)


def draw_skeleton(
    keypoints: Float[np.ndarray, "18 3"], width: int, height: int, thickness: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Limbs in 17 hues on black, later ones on top; `thickness` in pixels, by default a 48th of the short side.

    A limb is drawn where both of its ends are known, hidden or not.
    """
    picture = np.zeros((height, width, 3), np.uint8)
    radius = max(1.0, (thickness or min(width, height) / 48) / 2)
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    for number, limb in enumerate(LIMBS):
        start, end = (keypoints[OPENPOSE_18.index(name)] for name in limb)
        if min(start[2], end[2]) > 0:
            colour = np.multiply(limb_colours()[number], 255).round().astype(np.uint8)
            picture[_distance(grid, start[:2], end[:2]) <= radius] = colour
    return picture


def limb_colours() -> list[tuple[float, float, float]]:
    """The 17 hues of `LIMBS`, as red, green and blue in [0, 1]."""
    return [colorsys.hsv_to_rgb(number / len(LIMBS), 1.0, 1.0) for number in range(len(LIMBS))]


def _distance(
    grid: Float[np.ndarray, "h w 2"], start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "h w"]:
    """From every point of the grid to the line between two points."""
    along = end - start
    share = ((grid - start) @ along / max(float(along @ along), 1e-9)).clip(0, 1)
    return np.linalg.norm(grid - start - share[..., None] * along, axis=-1)
