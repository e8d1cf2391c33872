"""Tensor aliases and batch types shared by every room.

Shape legend: b batch, c channels, h height, w width, z latent channels (zh, zw their size), n tokens, d features.
"""

from typing import NotRequired, TypedDict

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]  # RGB in [-1, 1]
Latents = Float[Tensor, "b z zh zw"]  # scaled latents of the VAE
GarmentMask = Bool[Tensor, "b 1 h w"]  # True = garment
Parsing = UInt8[Tensor, "b 1 h w"]  # indices of r2r.parsing.REGIONS
Pose = Float[Tensor, "b 18 3"]  # OpenPose's keypoints as in r2r.pose: x, y in pixels of the image, v = 2, 1 or 0
Keypoints = Float[Tensor, "b 17 3"]  # the same in COCO's order


class ImageBatch(TypedDict):
    """One domain: images with captions."""

    image: Images
    image_digest: NotRequired[list[str]]  # what a cache knows an image by: `r2r.data.images.digest`
    caption: list[str]
    key: list[str]
    garment_mask: NotRequired[GarmentMask]


class PairedBatch(TypedDict):
    """A rendered scene and its photo twin."""

    rendered: Images
    photo: Images
    garment_mask: GarmentMask
    caption: list[str]
    category: list[str]
    texture: list[str]
    key: list[str]


class RestorationBatch(TypedDict):
    """A person, and a garment they wear as it lies flat before white.

    `garment_mask` is where this garment is on the person; `caption` and `category` are the garment's; `slot` is
    "upper", "lower" or "full".
    """

    person: Images
    flat: Images
    person_digest: NotRequired[list[str]]
    flat_digest: NotRequired[list[str]]
    garment_mask: GarmentMask
    flat_mask: NotRequired[GarmentMask]
    parsing: Parsing
    category: list[str]
    slot: list[str]
    caption: list[str]
    key: list[str]


class PoseBatch(TypedDict):
    """A person in two pictures; the caption is the target's."""

    source: Images
    target: Images
    source_digest: NotRequired[list[str]]
    target_digest: NotRequired[list[str]]
    source_parsing: NotRequired[Parsing]
    target_parsing: NotRequired[Parsing]
    source_pose: Pose
    target_pose: Pose
    source_keypoints: Keypoints
    target_keypoints: Keypoints
    caption: list[str]
    key: list[str]


class UnpairedBatch(TypedDict):
    """Images of two domains that have nothing to do with each other; in validation, None once a domain is through."""

    source: ImageBatch
    target: ImageBatch
    second_source: NotRequired[ImageBatch]  # other images of the source domain, where a method asks for them
