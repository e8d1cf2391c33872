"""Studio shards of small people, drawn: every body part is a box of its label, every keypoint the middle of a box."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from r2r.parsing import ATR_18
from r2r.pose import COCO_17, coco_to_openpose
from tests.data.shard_writing import scene, write_shard

SIDE = 64
BOXES = {  # left, top, right, bottom; the person's right is on the left
    "upper-clothes": (24, 16, 40, 34),
    "left-arm": (40, 16, 44, 34),
    "right-arm": (20, 16, 24, 34),
    "pants": (24, 34, 40, 56),
    "left-shoe": (33, 56, 39, 60),
    "right-shoe": (25, 56, 31, 60),
    "hair": (27, 3, 37, 7),
    "face": (28, 7, 36, 15),
}
COLOURS = {"upper-clothes": (200, 30, 40), "pants": (30, 40, 200), "face": (230, 190, 160), "hair": (60, 40, 20)}
JOINTS = {
    "nose": (32, 11), "eye": (34, 9), "ear": (36, 10), "shoulder": (39, 18), "elbow": (42, 25), "wrist": (42, 32),
    "hip": (37, 35), "knee": (37, 45), "ankle": (36, 57),
}  # fmt: skip


def labels(shift: int = 0) -> np.ndarray:
    """The parsing of a person who stands `shift` pixels to the right of the middle."""
    found = np.zeros((SIDE, SIDE), np.uint8)
    for name, (left, top, right, bottom) in BOXES.items():
        found[top:bottom, left + shift : right + shift] = ATR_18.index(name)
    return found


def keypoints(shift: int = 0) -> np.ndarray:
    """COCO-17 of the same person; the right ear is hidden, the right wrist out of the picture."""
    rows = []
    for name in COCO_17:
        side, _, joint = name.rpartition("_")
        x, y = JOINTS[joint]
        x = 64 - x if side == "right" else x
        rows.append((x + shift + 0.5, y + 0.5, 1.0 if name == "right_ear" else 2.0))
    rows[COCO_17.index("right_wrist")] = (0.0, 0.0, 0.0)
    return np.array(rows)


def picture(shift: int = 0) -> Image.Image:
    """The photo: parts in their colours, pale grey behind."""
    found, image = labels(shift), np.full((SIDE, SIDE, 3), 220, np.uint8)
    for name in BOXES:
        image[found == ATR_18.index(name)] = COLOURS.get(name, (120, 110, 90))
    return Image.fromarray(image)


def flat(colour: tuple[int, int, int]) -> tuple[Image.Image, Image.Image]:
    """A garment in the middle of white, and its mask."""
    image, mask = Image.new("RGB", (SIDE, SIDE), "white"), Image.new("L", (SIDE, SIDE), 0)
    image.paste(colour, (16, 16, 48, 48))
    mask.paste(255, (16, 16, 48, 48))
    return image, mask


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def person_scene(index: int, identity: int, view: int, shift: int = 0) -> dict[str, bytes]:
    """Every member the studio writes for a person in a t-shirt and trousers."""
    shirt = {"category": "t-shirt", "slot": "upper", "caption": f"Red t-shirt {identity}", "texture": "plain"}
    trousers = {"category": "trousers", "slot": "lower", "caption": f"Blue trousers {identity}", "texture": "plain"}
    words = {**shirt, "seed": 0, "identity": identity, "subject": "person", "garments": [shirt, trousers], "view": view}
    points = keypoints(shift)
    pose = {"size": [SIDE, SIDE], "coco_17": points.tolist(), "openpose_18": coco_to_openpose(points).tolist()}
    (upper, upper_mask), (lower, lower_mask) = flat(COLOURS["upper-clothes"]), flat(COLOURS["pants"])
    upper_region = labels(shift) == ATR_18.index("upper-clothes")
    images = {
        "rendered.png": picture(shift),
        "photo.png": picture(shift),
        "garment_mask.png": Image.fromarray(np.where(upper_region, 255, 0).astype(np.uint8)),
        "parsing.png": Image.fromarray(labels(shift)),
        "flat.png": upper,
        "flat_mask.png": upper_mask,
        "flat_2.png": lower,
        "flat_2_mask.png": lower_mask,
    }
    members = {name: encoded(image) for name, image in images.items()}
    return members | {"pose.json": json.dumps(pose).encode(), "json": json.dumps(words).encode()}


def garment_scene(index: int, identity: int) -> dict[str, bytes]:
    """A garment alone, as the studio writes it: its own identity, no pose."""
    words = {
        "caption": "red shirt",
        "category": "shirt",
        "texture": "plain",
        "seed": 0,
        "identity": identity,
        "view": 0,
    }
    words |= {"subject": "garment", "garments": [{"category": "shirt", "slot": "upper", "caption": "red shirt"}]}
    image, mask = flat((200, 0, 0))
    members = {"parsing.png": Image.fromarray(labels()), "flat.png": image, "flat_mask.png": mask}
    return (
        scene(index)
        | {name: encoded(member) for name, member in members.items()}
        | {"json": json.dumps(words).encode()}
    )


def write_people(root: Path, views: tuple[int, ...] = (3, 2), val: tuple[int, ...] = (2,)) -> Path:
    """Shards of people with that many views each, and one garment alone; views stand further to the right."""
    identity = index = 0
    for split, counts in (("train", views), ("val", val)):
        scenes: dict[str, dict[str, bytes]] = {}
        for count in counts:
            for view in range(count):
                scenes[f"0000-{index:06d}"] = person_scene(index, identity, view, shift=2 * view)
                index += 1
            identity += 1
        if split == "train":
            scenes[f"0000-{index:06d}"] = garment_scene(index, identity)
            index, identity = index + 1, identity + 1
        if scenes:
            write_shard(root / f"{split}-0000.tar", scenes)
    return root
