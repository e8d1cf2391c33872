"""What is where in a scene: regions, depth and keypoints, by looking at it once with one ray in each pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from r2r.parsing import ATR_18
from r2r.pose import COCO_17, coco_to_openpose
from r2r.studio.stage import Stage, trace

CLEARANCE = {"shoulder": 0.13, "hip": 0.2, "knee": 0.14, "elbow": 0.11, "ankle": 0.1, "wrist": 0.07, "ear": 0.05}
"""How deep below the surface (metres) a joint may lie and still count as seen; 0.04 for the face."""


@dataclass(frozen=True)
class Truth:
    """Of every pixel: the region's number in `ATR_18`, the garment (-1 for none), metres to the camera (0 for none)."""

    parsing: UInt8[np.ndarray, "h w"]
    garment: Float[np.ndarray, "h w"]
    depth: Float[np.ndarray, "h w"]

    @property
    def subject(self) -> Bool[np.ndarray, "h w"]:
        """The garment alone or the person, without the room."""
        return self.parsing > 0

    def garment_mask(self, number: int = 0) -> Bool[np.ndarray, "h w"]:
        """Where that garment is seen."""
        return self.garment == number


def look(stage: Stage, resolution: int) -> Truth:
    """Trace one ray for each pixel."""
    grey = {"type": "diffuse"}
    description = {
        "type": "scene",
        "integrator": {"type": "aov", "aovs": "index:shape_index,depth:depth"},
        "sensor": stage.sensor(),
        **stage.meshes(lambda part: grey),
        **stage.walls(lambda colour: grey, bumps=False),
    }
    film = trace(description, resolution, 1, 0, soft=False)
    index = film[..., 0].round().astype(int)
    labels, garments = np.zeros(len(description), dtype=np.uint8), np.full(len(description), -1.0)
    for number, part in enumerate(stage.parts, start=1):
        labels[number] = ATR_18.index(part.label)
        garments[number] = part.garment if part.material in ("fabric", "trim", "button") else -1
    return Truth(labels[index], garments[index], film[..., 1].astype(np.float64))


def pose_record(stage: Stage, truth: Truth) -> dict[str, Any]:
    """The keypoints of the person on the stage, as `pose.json` of a sample holds them."""
    resolution = len(truth.depth)
    keypoints = np.zeros((17, 3))
    for number, (name, (x, y, distance)) in enumerate(
        zip(COCO_17, stage.project(stage.joints, resolution), strict=True)
    ):
        if 0 <= x < resolution and 0 <= y < resolution:
            reach = CLEARANCE.get(name.split("_")[-1], 0.04)
            seen = truth.depth[int(y), int(x)] > distance - reach
            keypoints[number] = x, y, 2 if seen else 1
    return {
        "size": [resolution, resolution],
        "coco_17": keypoints.round(2).tolist(),
        "openpose_18": coco_to_openpose(keypoints).round(2).tolist(),
    }
