"""The latents of an image that comes again are those of the first time, and nothing is encoded twice."""

import torch

from r2r.models.latent_cache import LatentCache
from r2r.types import Images, Latents


class Encoder:
    def __init__(self) -> None:
        self.seen = list[int]()

    def __call__(self, images: Images) -> Latents:
        self.seen.append(len(images))
        return images[:, :1, ::4, ::4] * 2


def test_every_image_is_encoded_once_and_in_its_place() -> None:
    encoder, images = Encoder(), torch.rand(4, 3, 8, 8)
    cache = LatentCache(encoder)
    rows = [[0, 1], [1, 2, 0], [3, 3, 2], [0, 1, 2, 3]]
    for chosen in rows:
        assert torch.equal(cache(images[chosen]), Encoder()(images[chosen]))
    assert encoder.seen == [2, 1, 1]


def test_an_altered_image_is_another_image() -> None:
    encoder, image = Encoder(), torch.rand(1, 3, 8, 8)
    cache = LatentCache(encoder)
    assert not torch.equal(cache(image), cache(image.flip(3)))
    assert encoder.seen == [1, 1]
