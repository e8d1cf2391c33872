"""What is known of a person in a photo, as the files that training and translation read.

| below the folder of `r2r.prepare` | |
|---|---|
| `parsing/NAME.png` | label map in the numbers of the label set, of the photo's size |
| `masks/upper/NAME.png`, `lower`, `full` | 255 where that garment is; black where it is not worn |
| `pose/NAME.json` | keypoints in the studio's form, boxes, caption; written last, so that it says "done" |
| `prepare.json` | the settings all of this was made with |
| `train-NNNN.tar`, `shards.json` | see `r2r.data.prepared_shards` |

`NAME` is the photo's relative name without suffix. Every file is written beside its place, then renamed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from r2r.data.folders import save_png
from r2r.data.images import decode_mask
from r2r.data.people import SLOTS
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS, region_map
from r2r.pose import COCO_17, coco_to_openpose
from r2r.provenance import write_json

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # a face may be turned away: not seeing it is no remark
SETTINGS_FILE = "prepare.json"


@dataclass(frozen=True)
class PreparedPerson:
    """The person of one photo, whose files lie below `folder`."""

    folder: Path
    name: str  # relative, without suffix, "/" between folders
    size: tuple[int, int]  # width and height of the photo
    photo_bytes: int  # of its file: a photo that has changed is prepared again
    keypoints: Float[np.ndarray, "17 3"]  # COCO's
    box: Box
    others: tuple[Box, ...] = ()  # persons that were not taken
    caption: str | None = None

    @property
    def labels(self) -> UInt8[np.ndarray, "h w"]:
        """The label map, read from its file. Raises DataError for a broken one."""
        file = _parsing(self.folder, self.name)
        return np.array(decode_mask(file.read_bytes(), str(file)), np.uint8)

    @property
    def pose_file(self) -> Path:
        """Where keypoints, boxes and caption lie."""
        return _pose(self.folder, self.name)

    @property
    def unseen(self) -> list[str]:
        """Joints from the shoulders down that are cut off, hidden or not found: "ankles", or "left ankle"."""
        found: list[str] = []
        for limb in LIMBS:
            sides = [side for side in ("left", "right") if self.keypoints[COCO_17.index(f"{side}_{limb}"), 2] == 0]
            found += [f"{limb}s"] if len(sides) == 2 else [f"{side} {limb}" for side in sides]
        return found

    def write(self, labels: UInt8[np.ndarray, "h w"], label_set: str) -> None:
        """Write label map and masks, then everything else."""
        regions = region_map(labels, label_set)
        save_png(Image.fromarray(labels), _parsing(self.folder, self.name))
        for slot in SLOTS:
            mask = np.where(regions == REGIONS.index(slot), 255, 0).astype(np.uint8)
            save_png(Image.fromarray(mask), _mask(self.folder, self.name, slot))
        self._write_pose()

    def captioned(self, caption: str) -> "PreparedPerson":
        """The same person in these words, which are written too."""
        person = replace(self, caption=caption)
        person._write_pose()
        return person

    def _write_pose(self) -> None:
        about = {
            "openpose_18": coco_to_openpose(self.keypoints).tolist(),
            "coco_17": self.keypoints.tolist(),
            "size": list(self.size),
            "box": list(self.box),
            "others": [list(box) for box in self.others],
            "caption": self.caption,
            "bytes": self.photo_bytes,
        }
        write_json(self.pose_file, about)

    @classmethod
    def read(cls, folder: Path, name: str, photo: Path) -> "PreparedPerson | None":
        """What an earlier call wrote; None when it did not, not to the end, or of other bytes than the photo has now.

        Raises: DataError for broken files.
        """
        pose, masks = _pose(folder, name), [_mask(folder, name, slot) for slot in SLOTS]
        if not all(file.is_file() for file in (pose, _parsing(folder, name), *masks)):
            return None
        try:
            about = json.loads(pose.read_text(encoding="utf-8"))
            keypoints = np.array(about["coco_17"], np.float64).reshape(17, 3)
            size, others = tuple(about["size"]), tuple(tuple(box) for box in about["others"])
            box, caption = tuple(about["box"]), about["caption"]
            person = cls(folder, name, size, about["bytes"], keypoints, box, others, caption)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"broken: {pose} ({error!r}); remove it and prepare it again") from error
        return person if person.photo_bytes == photo.stat().st_size else None


def check_folder(output: Path, settings: Mapping[str, Any]) -> None:
    """Raises InputError for a folder with other files, or with results of other settings: they must not mix."""
    file = output / SETTINGS_FILE
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output} is a file; give a folder")
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = [
            f"{name}={now} (there: {before.get(name)})" for name, now in settings.items() if before.get(name) != now
        ]
        if changed:
            raise InputError(
                f"output={output} holds results of other settings: {', '.join(changed)}; give another folder"
            )
    elif output.exists() and any(output.iterdir()):
        raise InputError(f"output={output} holds files that are not from r2r.prepare; give an empty or a new folder")


def begin_folder(output: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings that decide what is written. Raises InputError where that cannot be done."""
    try:
        if not (output / SETTINGS_FILE).is_file():
            write_json(output / SETTINGS_FILE, settings)
    except OSError as error:
        raise InputError(f"output={output} cannot be written ({error.strerror}); give another folder") from error


def region_box(regions: UInt8[np.ndarray, "h w"], names: Sequence[str]) -> Box | None:
    """Left, top, right and bottom of the largest connected piece of some regions; None where there is none."""
    shown: Bool[np.ndarray, "h w"] = np.isin(regions, [REGIONS.index(name) for name in names])
    if not shown.any():
        return None
    found: Any = ndimage.label(shown)
    rows, columns = ndimage.find_objects(found[0])[int(np.bincount(found[0].ravel())[1:].argmax())]
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def _parsing(folder: Path, name: str) -> Path:
    return folder / "parsing" / f"{name}.png"


def _mask(folder: Path, name: str, slot: str) -> Path:
    return folder / "masks" / slot / f"{name}.png"


def _pose(folder: Path, name: str) -> Path:
    return folder / "pose" / f"{name}.json"
