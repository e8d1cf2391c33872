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
from torch import nn
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
        width, height = photo.size
        order = found["scores"].argsort(descending=True).tolist()
        boxes = [found["boxes"][each].tolist() for each in order if int(found["labels"][each]) in self.person]
        cut = [(max(0.0, a), max(0.0, b), min(float(width), c), min(float(height), d)) for a, b, c, d in boxes]
        return [box for box in cut if box[2] - box[0] >= 1 and box[3] - box[1] >= 1]


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
        """Keypoints (x, y, v) of the person in each photo's box, in COCO's order; v = 2, or 0 below the threshold."""
        around = [[[left, top, right - left, bottom - top]] for left, top, right, bottom in boxes]
        given = self.processor(images=list(photos), boxes=around, return_tensors="pt").to(_device(self.network))
        if getattr(self.network.config.backbone_config, "num_experts", 1) > 1:
            given["dataset_index"] = torch.zeros(len(photos), dtype=torch.long, device=_device(self.network))  # COCO
        outputs = self.network(**given)
        found = self.processor.post_process_pose_estimation(outputs, boxes=around)
        return [self._keypoints(each[0], photo) for each, photo in zip(found, photos, strict=True)]

    def _keypoints(self, found: dict[str, Any], photo: Image) -> Float[np.ndarray, "17 3"]:
        if len(found["keypoints"]) != len(COCO_17):
            raise InputError(f"pose: finds {len(found['keypoints'])} keypoints, not COCO's 17; give such a model")
        places, sure = found["keypoints"].double().numpy(), found["scores"].flatten().numpy() >= self.threshold
        points = np.column_stack([places, np.where(sure, 2.0, 0.0)])
        return within(np.where(points[:, 2:] > 0, points, 0.0), *photo.size)


class HumanParser:
    """Labels of the pixels of persons."""

    def __init__(self, processor: Any, network: nn.Module, label_set: str = "ATR_18") -> None:
        """Raises InputError for a network with another number of labels than the set has."""
        self.processor = processor
        self.network: Any = network
        count, names = self.network.config.num_labels, label_names(label_set)
        if count != len(names):
            raise InputError(
                f"parser: has {count} labels, {label_set} {len(names)}; give label_set=, or another parser"
            )
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
        sizes = [crop.size[::-1] for crop in crops]
        outputs = self.network(**given)
        found = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [labels.cpu().numpy().astype(np.uint8) for labels in found]


def _loaded(what: str, name: str, kind: Any, device: str) -> tuple[Any, nn.Module]:
    load: Callable[..., Any] = kind.from_pretrained
    try:
        return AutoImageProcessor.from_pretrained(name), load(name).to(device).eval()
    except (OSError, ValueError) as error:
        raise MissingWeightsError(
            f"{what}={name!r}: no such weights there and none could be fetched ({str(error).splitlines()[0][:200]}). "
            "Download them once while online (HF_HOME says where the cache is; HF_HUB_OFFLINE=1 forbids fetching), "
            f"or give a local folder: {what}=FOLDER"
        ) from error


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
