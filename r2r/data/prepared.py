"""What is known of a person in a photo, as the files that training and translation read.

Below a folder lie `parsing/NAME.png` (label map), `pose/NAME.json` (keypoints in the studio's form, boxes, caption),
and shards of the studio's members, which `data=studio_pose` reads; `NAME` is the photo's relative name.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from r2r.data.folders import save_png
from r2r.data.images import load_image
from r2r.errors import DataError
from r2r.parsing import REGIONS, region_map
from r2r.pose import COCO_17, coco_to_openpose
from r2r.provenance import write_json

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
IDENTITIES = ("folder", "file")


@dataclass(frozen=True)
class PreparedPerson:
    """The person of one photo."""

    name: str  # relative, without suffix, "/" between folders
    keypoints: Float[np.ndarray, "17 3"]  # COCO's
    labels: UInt8[np.ndarray, "h w"]
    box: Box
    caption: str | None = None

    @property
    def missing(self) -> list[str]:
        """Keypoints that are not known: cut off, hidden, or not found."""
        return [name for name, point in zip(COCO_17, self.keypoints, strict=True) if point[2] == 0]

    def write(self, output: Path) -> None:
        """Write label map and keypoints; the keypoints, which come last, say that both are whole."""
        save_png(Image.fromarray(self.labels), output / "parsing" / f"{self.name}.png")
        height, width = self.labels.shape
        about = {
            "openpose_18": coco_to_openpose(self.keypoints).tolist(),
            "coco_17": self.keypoints.tolist(),
            "size": [width, height],
            "box": list(self.box),
            "caption": self.caption,
        }
        write_json(output / "pose" / f"{self.name}.json", about)

    @classmethod
    def read(cls, output: Path, name: str) -> "PreparedPerson | None":
        """What an earlier call wrote; None when it did not, or not to the end. Raises DataError for broken files."""
        pose, parsing = output / "pose" / f"{name}.json", output / "parsing" / f"{name}.png"
        if not (pose.is_file() and parsing.is_file()):
            return None
        try:
            about = json.loads(pose.read_text(encoding="utf-8"))
            with Image.open(parsing) as picture:
                labels = np.array(picture, np.uint8)
            keypoints, caption = np.array(about["coco_17"], np.float64).reshape(17, 3), about["caption"]
            return cls(name, keypoints, labels, tuple(about["box"]), caption)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"broken: {pose} or {parsing} ({error!r}); remove it and prepare it again") from error


def region_box(regions: UInt8[np.ndarray, "h w"], names: Sequence[str]) -> list[int] | None:
    """Left, top, right and bottom of what shows some regions; None where nothing does."""
    shown: Bool[np.ndarray, "h w"] = np.isin(regions, [REGIONS.index(name) for name in names])
    if not shown.any():
        return None
    rows, columns = np.nonzero(shown.any(1))[0], np.nonzero(shown.any(0))[0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def identity(name: str, rule: str) -> str:
    """Who is shown: by the rule "folder" all in one folder are one person, where there are folders; else each file."""
    folder = Path(name).parent.as_posix()
    return folder if rule == "folder" and folder != "." else name


def write_shards(
    output: Path, persons: Mapping[Path, PreparedPerson], label_set: str, rule: str, persons_per_shard: int = 1000
) -> list[Path]:
    """Write `train-NNNN.tar` anew, those of one identity beside each other; photos are kept as they are, as PNG."""
    order = sorted(persons.items(), key=lambda item: (identity(item[1].name, rule), item[1].name))
    for old in output.glob("train-*.tar"):
        old.unlink()
    found = []
    for number, start in enumerate(range(0, len(order), persons_per_shard)):
        found.append(output / f"train-{number:04d}.tar")
        shown = order[start : start + persons_per_shard]
        _write_tar(found[-1], (each for item in shown for each in _members(*item, label_set, rule)))
    return found


def _members(photo: Path, person: PreparedPerson, label_set: str, rule: str) -> Iterable[tuple[str, bytes]]:
    key, regions = person.name.replace("/", "_").replace(".", "_"), region_map(person.labels, label_set)
    height, width = person.labels.shape
    about = {
        "caption": person.caption,
        "label_set": label_set,
        "subject": "person",
        "identity": identity(person.name, rule),
        "source": person.name,
        "box": list(person.box),
        "face_box": region_box(regions, ("face", "hair")),
    }
    garments = np.isin(regions, [REGIONS.index(slot) for slot in ("upper", "lower", "full")])
    pose = {"openpose_18": coco_to_openpose(person.keypoints).tolist(), "size": [width, height]}
    yield f"{key}.photo.png", _png(load_image(photo))
    yield f"{key}.parsing.png", _png(Image.fromarray(person.labels))
    yield f"{key}.garment_mask.png", _png(Image.fromarray(garments.astype(np.uint8) * 255))
    yield f"{key}.pose.json", json.dumps(pose).encode()
    yield f"{key}.json", json.dumps({name: value for name, value in about.items() if value is not None}).encode()


def _write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write beside and rename, so that a shard with its final name is whole."""
    unfinished = path.with_suffix(".tar.unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    unfinished.replace(path)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
