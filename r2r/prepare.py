"""`python -m r2r.prepare input=FOLDER output=FOLDER`: what pose transfer and restoration need, from photos of persons.

Persons are found by RT-DETR, keypoints by ViTPose, label maps by SegFormer, captions by BLIP, all through transformers.
Photos already done are skipped; broken ones, and those without a person or with several, are named at the end and make
the exit code 3 once everything else is done. The next call tries these again, say with `persons=largest`.

Licences stand in conf/prepare/prepare.yaml. That the default parser's page points to the licence of NVlabs/SegFormer
was read there; that this licence is non-commercial, and the licences of the RT-DETR and BLIP weights, were not checked.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import progress_bar, verb
from r2r.errors import DataError, InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from rich.progress import Progress

    from r2r.data.prepared import Box, PreparedPerson

SIMILAR = 0.25  # of the largest person's box: from here on another box is another person, not one far behind
MARGIN = 0.1  # of a person's box on each side, for the parser
# What is written for a photo depends on these; others say which photos are taken, and what shards are made of them.
DECIDING = ("detector", "pose", "parser", "label_set", "keypoint_threshold")


@dataclass(frozen=True)
class Models:
    """What looks at the photos: boxes best first; COCO's keypoints of a box; labels of a crop; captions."""

    detect: "Callable[[Sequence[Image]], list[list[Box]]]"
    estimate: "Callable[[Sequence[Image], Sequence[Box]], list[np.ndarray]]"
    parse: Callable[[Sequence["Image"]], "list[np.ndarray]"]
    caption: Callable[[Sequence["Image"]], list[str]] | None = None


@dataclass
class Found:
    """What became of the photos: persons, why there is none, the boxes that were not taken, and how many are new."""

    persons: "dict[Path, PreparedPerson]" = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    boxes: "dict[Path, list[Box]]" = field(default_factory=dict)
    changed: int = 0

    def add(self, persons: "Mapping[Path, PreparedPerson]") -> None:
        """Take in what was just written."""
        self.persons |= persons
        self.changed += len(persons)


def prepare(
    photos: Mapping[Path, str],
    output: Path,
    load: Callable[[], Models],
    persons: str = "one",
    batch_size: int = 8,
    label_set: str = "ATR_18",
    captions: bool = True,
) -> Found:
    """Prepare photos, given with their names; what earlier calls wrote below `output` is taken up.

    `load` is called when there is something to look at; with `captions`, also photos that have none yet are captioned.
    """
    from r2r.data.prepared import PreparedPerson

    found = Found()
    for photo, name in photos.items():
        if (known := PreparedPerson.read(output, name, photo)) is not None:
            found.persons[photo] = known
    todo = [photo for photo in photos if photo not in found.persons]
    wordless = [photo for photo, person in found.persons.items() if captions and person.caption is None]
    print(f"{len(photos)} photos, {len(found.persons)} done already")
    models = load() if todo or wordless else None
    if models is None:
        return found
    with progress_bar() as progress:
        for batch in _batches(todo, batch_size, progress, "photos"):
            found.add(_look({photo: photos[photo] for photo in batch}, output, models, found, persons, label_set))
        for batch in _batches(wordless, batch_size, progress, "captions"):
            found.add(_caption(batch, models, found))
    found.persons = {photo: found.persons[photo] for photo in photos if photo in found.persons}
    return found


def load_models(cfg: DictConfig) -> Models:
    """The models a config names. Raises MissingWeightsError for weights that are not at hand."""
    import torch

    from r2r.models.captioner import blip
    from r2r.models.person_models import HumanParser, PersonDetector, PoseEstimator

    device = cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Models(
        PersonDetector.from_pretrained(cfg.detector, device, cfg.detector_threshold),
        PoseEstimator.from_pretrained(cfg.pose, device, cfg.keypoint_threshold),
        HumanParser.from_pretrained(cfg.parser, device, cfg.label_set),
        None if cfg.captioner is None else blip(cfg.captioner, device),
    )


def only_person(boxes: "Sequence[Box]", persons: str) -> "Box":
    """The box that is meant. Raises DataError when there is none, or several of about one size and one is asked for."""
    if not boxes:
        raise DataError("no person")
    counted = similar(boxes)
    if len(counted) > 1 and persons == "one":
        raise DataError(f"{len(counted)} persons; crop to one, or give persons=largest")
    return counted[0]


def similar(boxes: "Sequence[Box]") -> "list[Box]":
    """The largest box first, then those that are not much smaller."""

    def area(box: "Box") -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    ordered = sorted(boxes, key=area, reverse=True)
    return [box for box in ordered if area(box) >= SIMILAR * area(ordered[0])]


def _batches(photos: list[Path], size: int, progress: "Progress", task: str) -> Iterator[list[Path]]:
    bar = progress.add_task(task, total=len(photos), visible=bool(photos))
    for start in range(0, len(photos), size):
        yield photos[start : start + size]
        progress.advance(bar, len(photos[start : start + size]))


def _look(
    batch: Mapping[Path, str], output: Path, models: Models, found: Found, persons: str, label_set: str
) -> "dict[Path, PreparedPerson]":
    """Write the persons of a batch of photos; what is wrong with the others is noted in `found`."""
    from r2r.data.prepared import PreparedPerson

    images, boxes = _images(batch, found), dict[Path, "Box"]()
    detected = dict(zip(images, models.detect(list(images.values())), strict=True)) if images else {}
    for photo, each in detected.items():
        try:
            boxes[photo] = only_person(each, persons)
        except DataError as error:
            found.problems[photo], found.boxes[photo] = str(error), each
    if not boxes:
        return {}
    shown = [images[photo] for photo in boxes]
    keypoints = models.estimate(shown, list(boxes.values()))
    labels = _labels(shown, list(boxes.values()), models.parse)
    captions = models.caption(shown) if models.caption is not None else [None] * len(shown)
    done: dict[Path, PreparedPerson] = {}
    for photo, points, label_map, caption in zip(boxes, keypoints, labels, captions, strict=True):
        box, size, count = boxes[photo], images[photo].size, photo.stat().st_size
        others = tuple(each for each in similar(detected[photo]) if each != box)
        done[photo] = PreparedPerson(output, batch[photo], size, count, points, box, others, caption)
        done[photo].write(label_map, label_set)
    return done


def _caption(batch: Sequence[Path], models: Models, found: Found) -> "dict[Path, PreparedPerson]":
    """Write captions of photos that were prepared without."""
    images = _images(batch, found)
    words = models.caption(list(images.values())) if models.caption is not None and images else []
    return {photo: found.persons[photo].captioned(each) for photo, each in zip(images, words, strict=True)}


def _images(batch: Iterable[Path], found: Found) -> "dict[Path, Image]":
    from r2r.data.images import load_image

    images: dict[Path, Image] = {}
    for photo in batch:
        try:
            images[photo] = load_image(photo)
        except DataError as error:
            found.problems[photo] = str(error)
    return images


def _labels(
    images: "Sequence[Image]", boxes: "Sequence[Box]", parse: "Callable[..., list[np.ndarray]]"
) -> "list[np.ndarray]":
    """Label maps of whole photos: what lies outside of a person's box, with a margin, is background."""
    import numpy as np

    wide = [_widened(box, image.size) for image, box in zip(images, boxes, strict=True)]
    found = []
    crops = [image.crop(place) for image, place in zip(images, wide, strict=True)]
    for image, (left, top, right, bottom), labels in zip(images, wide, parse(crops), strict=True):
        whole = np.zeros((image.height, image.width), np.uint8)
        whole[top:bottom, left:right] = labels
        found.append(whole)
    return found


def _widened(box: "Box", size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    far = min(size[0], int(right + x + 0.999)), min(size[1], int(bottom + y + 0.999))
    return max(0, int(left - x)), max(0, int(top - y)), *far


def accuracy(found: Found, folder: Path) -> dict[str, Any]:
    """PCK and OKS of the persons against keypoint files of the same names below `folder`.

    Raises DataError for a person without such a file.
    """
    import numpy as np

    from r2r.data.keypoints import fitted_pose
    from r2r.data.samples import FilePart
    from r2r.metrics import oks, pck
    from r2r.pose import openpose_to_coco

    scores: dict[str, dict[str, float]] = {}
    for person in found.persons.values():
        target = openpose_to_coco(fitted_pose(FilePart(str(folder / f"{person.name}.json")), person.size))[None]
        own = person.keypoints[None]
        scores[person.name] = {"pck": float(pck(own, target)[0]), "oks": float(oks(own, target)[0])}
    means = {name: float(np.nanmean([each[name] for each in scores.values()] or [np.nan])) for name in ("pck", "oks")}
    return {**means, "alpha": 0.1, "persons": len(scores), "not_found": len(found.problems), "photos": scores}


def _photos(cfg: DictConfig) -> dict[Path, str]:
    """The photos below the input, with their relative names without suffix. Raises InputError for a wrong setting."""
    from r2r.data.folders import find_jobs
    from r2r.data.prepared_shards import IDENTITIES, check_keys
    from r2r.parsing import label_names

    label_names(cfg.label_set)
    for name, known in (("persons", ("one", "largest")), ("identity", IDENTITIES)):
        if cfg[name] not in known:
            raise InputError(f"{name}={cfg[name]} is none of {', '.join(known)}")
    for name in ("batch_size", "persons_per_shard", "shard_side"):
        if cfg[name] is not None and cfg[name] < 1:
            raise InputError(f"{name}={cfg[name]} must be at least 1")
    output = Path(cfg.output)
    jobs = find_jobs(Path(cfg.input), output)
    photos = {photo: done.relative_to(output).with_suffix("").as_posix() for photo, done in jobs.items()}
    check_keys(photos.values())
    return photos


def _write_shards(cfg: DictConfig, found: Found) -> list[Path]:
    from r2r.data.prepared_shards import ShardSettings, write_shards

    models = {name: cfg[name] for name in ("detector", "pose", "parser")}
    settings = ShardSettings(cfg.label_set, cfg.identity, cfg.persons_per_shard, cfg.shard_side, models)
    with progress_bar() as progress:
        bar = progress.add_task("shards", total=len(found.persons))
        return write_shards(Path(cfg.output), found.persons, settings, lambda count: progress.advance(bar, count))


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Prepare a folder."""
    from r2r.data.prepared import begin_folder, check_folder
    from r2r.reporting.contact_sheet import write_contact_sheet

    start, output, settings = time.perf_counter(), Path(cfg.output), {name: cfg[name] for name in DECIDING}
    photos = _photos(cfg)
    check_folder(output, settings)

    def load() -> Models:
        models = load_models(cfg)
        begin_folder(output, settings)  # not before: a setting may have to be corrected
        return models

    captions = cfg.captioner is not None
    found = prepare(photos, output, load, cfg.persons, cfg.batch_size, cfg.label_set, captions)
    shards, sheet = _write_shards(cfg, found), output / "contact_sheet.html"
    if not (found.changed or found.problems or shards or cfg.compare is not None) and sheet.is_file():
        print("nothing new")
        return
    write_contact_sheet(sheet, photos, found.persons, found.problems, found.boxes, cfg.label_set)
    broken = [f"{photo}: {why}" for photo, why in found.problems.items()]
    about = {"images": len(found.persons), "new": found.changed, "broken": broken, "shards_written": len(shards)}
    if cfg.compare is not None:
        about["pose_accuracy"] = accuracy(found, Path(cfg.compare))
        print("PCK {pck:.3f}, OKS {oks:.3f} of {persons} persons".format(**about["pose_accuracy"]))
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    write_json(output / "run.json", run_record(config, seconds=time.perf_counter() - start, **about))
    print(f"{len(found.persons)} persons; look at {sheet.absolute()}")
    if broken:
        raise DataError(f"{len(broken)} of {len(photos)} photos could not be prepared:\n  " + "\n  ".join(broken))


if __name__ == "__main__":
    main()
