"""Keypoints of people: names, orders, and how one set becomes another.

A keypoint is (x, y, v) in pixels; v is 2 for visible, 1 for hidden, 0 for outside of the picture (then x = y = 0).
"""

import numpy as np
from jaxtyping import Float

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


def coco_to_openpose(keypoints: Float[np.ndarray, "17 3"]) -> Float[np.ndarray, "18 3"]:
    """The same person in OpenPose's order; the neck is between the shoulders, and missing where one of them is."""
    left, right = (keypoints[COCO_17.index(f"{side}_shoulder")] for side in ("left", "right"))
    seen = min(left[2], right[2])
    neck = np.array([*(left[:2] + right[:2]) / 2, seen]) if seen > 0 else np.zeros(3)
    return np.stack([neck if name == "neck" else keypoints[COCO_17.index(name)] for name in OPENPOSE_18])
