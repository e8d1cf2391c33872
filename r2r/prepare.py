"""`python -m r2r.prepare input=FOLDER output=FOLDER`: what pose transfer and restoration need, from photos of persons.

Persons are found by RT-DETR, keypoints by ViTPose, label maps by SegFormer, captions by BLIP, all through transformers.
Photos already done are skipped; broken ones, and those without a person or with several, are named at the end and make
the exit code 3 once everything else is done.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    from r2r.data.prepared import Box, PreparedPerson

SIMILAR = 0.25  # of the largest person's box: from here on another box is another person, not one far behind
MARGIN = 0.1  # of a person's box on each side, for the parser


@dataclass(frozen=True)
class Models:
    """What looks at the photos: boxes best first; COCO's keypoints of a box; labels of a crop; captions."""

    detect: "Callable[[Sequence[Image]], list[list[Box]]]"
    estimate: "Callable[[Sequence[Image], Sequence[Box]], list[np.ndarray]]"
    parse: Callable[[Sequence["Image"]], "list[np.ndarray]"]
    caption: Callable[[Sequence["Image"]], list[str]] | None = None


@dataclass
class Found:
    """What became of the photos: persons, and why there is none."""

    persons: "dict[Path, PreparedPerson]" = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)


def prepare(
    photos: Mapping[Path, str], output: Path, models: Models, persons: str = "one", batch_size: int = 8
) -> Found:
    """Prepare photos, given with their names; what earlier calls wrote below `output` is taken up."""
    from r2r.data.prepared import PreparedPerson

    found = Found()
    for photo, name in photos.items():
        if (known := PreparedPerson.read(output, name)) is not None:
            found.persons[photo] = known
    todo = [photo for photo in photos if photo not in found.persons]
    print(f"{len(photos)} photos, {len(found.persons)} done already")
    with progress_bar() as progress:
        bar = progress.add_task("photos", total=len(todo))
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            for photo, person in _look(batch, photos, models, persons, found.problems):
                person.write(output)
                found.persons[photo] = person
            progress.advance(bar, len(batch))
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
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    count = sum(area >= SIMILAR * max(areas) for area in areas)
    if count > 1 and persons == "one":
        raise DataError(f"{count} persons; crop to one, or give persons=largest")
    return boxes[areas.index(max(areas))]


def _look(
    batch: Sequence[Path], names: Mapping[Path, str], models: Models, persons: str, problems: dict[Path, str]
) -> "Iterator[tuple[Path, PreparedPerson]]":
    """The persons of a batch of photos; what is wrong with the others is noted."""
    from r2r.data.images import load_image
    from r2r.data.prepared import Box, PreparedPerson

    images: dict[Path, Image] = {}
    for photo in batch:
        try:
            images[photo] = load_image(photo)
        except DataError as error:
            problems[photo] = str(error)
    boxes: dict[Path, Box] = {}
    detected = models.detect(list(images.values())) if images else []
    for photo, each in zip(images, detected, strict=True):
        try:
            boxes[photo] = only_person(each, persons)
        except DataError as error:
            problems[photo] = str(error)
    shown = [images[photo] for photo in boxes]
    if not shown:
        return
    keypoints = models.estimate(shown, list(boxes.values()))
    labels = _labels(shown, list(boxes.values()), models.parse)
    captions = models.caption(shown) if models.caption is not None else [None] * len(shown)
    for (photo, box), points, label_map, caption in zip(boxes.items(), keypoints, labels, captions, strict=True):
        yield photo, PreparedPerson(names[photo], points, label_map, box, caption)


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
        height, width = person.labels.shape
        target = openpose_to_coco(fitted_pose(FilePart(str(folder / f"{person.name}.json")), (width, height)))[None]
        own = person.keypoints[None]
        scores[person.name] = {"pck": float(pck(own, target)[0]), "oks": float(oks(own, target)[0])}
    means = {name: float(np.nanmean([each[name] for each in scores.values()] or [np.nan])) for name in ("pck", "oks")}
    return {**means, "alpha": 0.1, "persons": len(scores), "not_found": len(found.problems), "photos": scores}


def _photos(cfg: DictConfig) -> dict[Path, str]:
    """The photos below the input, with their relative names without suffix."""
    from r2r.data.folders import find_jobs

    output = Path(cfg.output)
    jobs = find_jobs(Path(cfg.input), output)
    return {photo: done.relative_to(output).with_suffix("").as_posix() for photo, done in jobs.items()}


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Prepare a folder."""
    from r2r.data.prepared import IDENTITIES, write_shards
    from r2r.parsing import label_names
    from r2r.reporting.contact_sheet import write_contact_sheet

    start, output = time.perf_counter(), Path(cfg.output)
    label_names(cfg.label_set)
    for name, known in (("persons", ("one", "largest")), ("identity", IDENTITIES)):
        if cfg[name] not in known:
            raise InputError(f"{name}={cfg[name]} is none of {', '.join(known)}")
    for name in ("batch_size", "persons_per_shard"):
        if cfg[name] < 1:
            raise InputError(f"{name}={cfg[name]} must be at least 1")
    photos = _photos(cfg)
    found = prepare(photos, output, load_models(cfg), cfg.persons, cfg.batch_size)
    shards = write_shards(output, found.persons, cfg.label_set, cfg.identity, cfg.persons_per_shard)
    write_contact_sheet(output / "contact_sheet.html", found.persons, found.problems, cfg.label_set)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    seconds, broken = time.perf_counter() - start, [f"{photo}: {why}" for photo, why in found.problems.items()]
    about = {"images": len(found.persons), "broken": broken, "shards": len(shards)}
    if cfg.compare is not None:
        about["pose_accuracy"] = accuracy(found, Path(cfg.compare))
        print("PCK {pck:.3f}, OKS {oks:.3f} of {persons} persons".format(**about["pose_accuracy"]))
    write_json(output / "run.json", run_record(config, seconds=seconds, **about))
    print(f"{len(found.persons)} persons in {len(shards)} shards; look at {(output / 'contact_sheet.html').absolute()}")
    if broken:
        raise DataError(f"{len(broken)} of {len(photos)} photos could not be prepared:\n  " + "\n  ".join(broken))


if __name__ == "__main__":
    main()
