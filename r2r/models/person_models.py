"""What photos of persons show, by models of transformers: where a person is, their keypoints, and their parsing.

- RT-DETR (arXiv:2304.08069) and its relatives find persons: `AutoModelForObjectDetection`.
- ViTPose (arXiv:2204.12484) finds COCO's 17 keypoints of a box.
- SegFormer (arXiv:2105.15203), trained on human parsing, labels the pixels of a crop.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    VitPoseForPoseEstimation,
)

from r2r.data.prepared import Box
from r2r.errors import InputError, MissingWeightsError
from r2r.parsing import label_names
from r2r.pose import COCO_17, within

SAME_PERSON = 0.7  # two boxes that have more of their union in common are of one person


class PersonDetector:
    """Persons in photos."""

    def __init__(self, processor: Any, network: nn.Module, threshold: float = 0.5) -> None:
        """Raises InputError for a network that knows no persons."""
        self.processor, self.threshold = processor, threshold
        self.network: Any = network
        labels: dict[int, str] = self.network.config.id2label
        self.person = [number for number, name in labels.items() if str(name).lower() == "person"]
        if not self.person:
            known = ", ".join(map(str, list(labels.values())[:10]))
            raise InputError(f"detector: has no label 'person' but {known}; give a model trained on COCO or Objects365")

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu", threshold: float = 0.5) -> "PersonDetector":
        """By hub id or local folder. Raises MissingWeightsError when the weights are not at hand."""
        return cls(*_loaded("detector", name, AutoModelForObjectDetection, device), threshold)

    @torch.inference_mode()
    def __call__(self, photos: Sequence[Image]) -> list[list[Box]]:
        """The boxes of each photo, best first, cut to the photo."""
        given = self.processor(images=list(photos), return_tensors="pt").to(_device(self.network))
        sizes = torch.tensor([photo.size[::-1] for photo in photos])
        outputs = self.network(**given)
        found = self.processor.post_process_object_detection(outputs, threshold=self.threshold, target_sizes=sizes)
        return [self._persons(each, photo) for each, photo in zip(found, photos, strict=True)]

    def _persons(self, found: dict[str, Any], photo: Image) -> list[Box]:
        known = torch.isin(found["labels"].cpu(), torch.tensor(self.person))
        boxes, scores = found["boxes"].float().cpu()[known], found["scores"].float().cpu()[known]
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([*photo.size, *photo.size]))
        cut = [boxes[number].tolist() for number in nms(boxes, scores, SAME_PERSON)]
        return [(a, b, c, d) for a, b, c, d in cut if c - a >= 1 and d - b >= 1]


class PoseEstimator:
    """Keypoints of persons."""

    def __init__(self, processor: Any, network: nn.Module, threshold: float = 0.3) -> None:
        self.processor, self.threshold = processor, threshold
        self.network: Any = network

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu", threshold: float = 0.3) -> "PoseEstimator":
        """By hub id or local folder. Raises MissingWeightsError when the weights are not at hand."""
        return cls(*_loaded("pose", name, VitPoseForPoseEstimation, device), threshold)

    @torch.inference_mode()
    def __call__(self, photos: Sequence[Image], boxes: Sequence[Box]) -> list[Float[np.ndarray, "17 3"]]:
        """Keypoints (x, y, v) of the person in each photo's box, in COCO's order; v = 2, or 0 below the threshold.

        The processor counts from the middle of the first pixel, r2r from its corner: half a pixel apart.
        """
        around = [[[left - 0.5, top - 0.5, right - left, bottom - top]] for left, top, right, bottom in boxes]
        given = self.processor(images=list(photos), boxes=around, return_tensors="pt").to(_device(self.network))
        if getattr(self.network.config.backbone_config, "num_experts", 1) > 1:
            given["dataset_index"] = torch.zeros(len(photos), dtype=torch.long, device=_device(self.network))  # COCO
        outputs = self.network(**given)
        found = self.processor.post_process_pose_estimation(outputs, boxes=around)
        return [self._keypoints(each[0], photo) for each, photo in zip(found, photos, strict=True)]

    def _keypoints(self, found: dict[str, Any], photo: Image) -> Float[np.ndarray, "17 3"]:
        if len(found["keypoints"]) != len(COCO_17):
            raise InputError(f"pose: finds {len(found['keypoints'])} keypoints, not COCO's 17; give such a model")
        places, sure = found["keypoints"].double().numpy() + 0.5, found["scores"].flatten().numpy() >= self.threshold
        points = np.column_stack([places, np.where(sure, 2.0, 0.0)])
        return within(np.where(points[:, 2:] > 0, points, 0.0), *photo.size)


class HumanParser:
    """Labels of the pixels of persons."""

    def __init__(self, processor: Any, network: Any, label_set: str = "ATR_18") -> None:
        """Raises InputError for a network with other labels than the set has."""
        _check_labels(network.config.id2label, label_set)
        self.processor = processor
        self.network: Any = network

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu", label_set: str = "ATR_18") -> "HumanParser":
        """By hub id or local folder. Raises MissingWeightsError when the weights are not at hand."""
        return cls(*_loaded("parser", name, AutoModelForSemanticSegmentation, device), label_set)

    @torch.inference_mode()
    def __call__(self, crops: Sequence[Image]) -> list[UInt8[np.ndarray, "h w"]]:
        """The label map of each crop, in its size: logits are enlarged, then the best label is taken."""
        given = self.processor(images=list(crops), return_tensors="pt").to(_device(self.network))
        logits = self.network(**given).logits
        return [enlarged_labels(each, crop.height, crop.width) for each, crop in zip(logits, crops, strict=True)]


def enlarged_labels(logits: Float[Tensor, "labels _ _"], height: int, width: int) -> UInt8[np.ndarray, "_ _"]:
    """The best label of every pixel, bilinearly between logits.

    One label after the other: all of them for a photo of twelve megapixels would take a gigabyte.
    """
    best = torch.full((height, width), -torch.inf, device=logits.device)
    labels = torch.zeros((height, width), dtype=torch.uint8, device=logits.device)
    for number, each in enumerate(logits):
        enlarged = F.interpolate(each[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
        labels[enlarged > best] = number
        best = torch.maximum(best, enlarged)
    return labels.cpu().numpy()


def _check_labels(id2label: dict[int, str], label_set: str) -> None:
    """Sets of one size are told apart by names, where the network has any: a belt must not be taken for a shoe."""
    names, theirs = label_names(label_set), [str(id2label[number]) for number in sorted(id2label)]
    if len(theirs) != len(names):
        raise InputError(
            f"parser: has {len(theirs)} labels, {label_set} {len(names)}; give label_set=, or another parser"
        )
    pairs = [] if theirs[0].upper().startswith("LABEL_") else list(zip(theirs, names, strict=True))
    if other := [f"{own!r} for {name!r}" for own, name in pairs if _letters(own) != _letters(name)]:
        raise InputError(
            f"parser: its labels are not those of {label_set} but {', '.join(other[:3])}; give label_set=, another "
            "parser, or, if only the spelling differs, a local copy with id2label corrected in config.json"
        )


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalpha())


def _loaded(what: str, name: str, kind: Any, device: str) -> tuple[Any, nn.Module]:
    load: Callable[..., Any] = kind.from_pretrained
    try:
        return AutoImageProcessor.from_pretrained(name), load(name, dtype=torch.float32).to(device).eval()
    except ValueError as error:
        raise InputError(f"{what}={name!r}: a model of another kind ({str(error).splitlines()[0][:200]})") from error
    except OSError as error:
        raise MissingWeightsError(
            f"{what}={name!r}: no such weights there and none could be fetched ({str(error).splitlines()[0][:200]}). "
            "Download them once while online (HF_HOME says where the cache is; HF_HUB_OFFLINE=1 forbids fetching), "
            f"or give a local folder: {what}=FOLDER"
        ) from error


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
