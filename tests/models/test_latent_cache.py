"""The latents of an image that comes again are those of the first time, and nothing is encoded twice."""

from pathlib import Path

import pytest
import torch

from r2r.cli import compose
from r2r.data.images import digest
from r2r.errors import DataError
from r2r.models import StableDiffusion
from r2r.models.latent_cache import CodeFolder, LatentCache, NonFiniteCodes
from r2r.tasks.denoising import encode_captions, encode_images
from r2r.train import train
from r2r.types import Images, Latents
from tests.pipelines import random_pipeline


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


def test_an_image_with_a_name_is_known_without_its_pixels() -> None:
    encoder, images = Encoder(), torch.rand(3, 3, 8, 8)
    cache = LatentCache(encoder)
    codes = cache(images, names := [digest(image) for image in images])
    assert torch.equal(cache(images.to("meta"), names[::-1]), codes.flip(0))
    assert torch.equal(cache(images), codes) and encoder.seen == [3]  # names are those that pixels give


def test_an_altered_image_is_another_image() -> None:
    encoder, image = Encoder(), torch.rand(1, 3, 8, 8)
    cache = LatentCache(encoder)
    assert not torch.equal(cache(image), cache(image.flip(3)))
    assert encoder.seen == [1, 1]


def test_an_upright_and_a_lying_picture_of_one_colour_are_two() -> None:
    cache = LatentCache(Encoder())
    assert cache(torch.ones(1, 3, 8, 16)).shape == (1, 1, 2, 4)
    assert cache(torch.ones(1, 3, 16, 8)).shape == (1, 1, 4, 2)


def test_a_folder_serves_later_runs_and_other_processes(tmp_path: Path) -> None:
    encoder, images = Encoder(), torch.rand(5, 3, 8, 8)
    first = LatentCache(encoder, CodeFolder(tmp_path, shard=2))
    codes = first(images)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2  # the fifth waits
    beside = LatentCache(encoder, CodeFolder(tmp_path, shard=2))  # as if the first was killed here
    assert torch.equal(beside(images), codes) and encoder.seen == [5, 1]
    first.flush()
    first.flush()
    beside.flush()
    assert len(list(tmp_path.iterdir())) == 3
    later = LatentCache(encoder, CodeFolder(tmp_path))
    assert torch.equal(later(images[[4, 0, 2]]), codes[[4, 0, 2]]) and encoder.seen == [5, 1] and len(later.folder) == 5


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"x\.safetensors .*remove it"):
        CodeFolder(tmp_path)


def test_codes_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 8, 8)
    images[1] = torch.nan
    cache = LatentCache(Encoder(), CodeFolder(tmp_path, shard=1))
    with pytest.raises(NonFiniteCodes) as error:
        cache(images)
    assert error.value.row == 1 and len(cache.folder) == 1
    with pytest.raises(DataError, match=r"b\.png: its code is not finite"):
        encode_images(cache, {"image": images, "key": ["a.png", "b.png", "c.png"]}, "image")


def test_a_folder_belongs_to_one_vae(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    models = [StableDiffusion(random_pipeline(seed=seed)) for seed in (0, 0, 1)]
    caches = [model.cached_encode(str(tmp_path)) for model in models]
    codes = [cache(images) for cache in caches]
    for cache in caches:
        cache.flush()
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])
    assert len(list(tmp_path.iterdir())) == 2
    assert models[0].cached_encode(False) == models[0].encode


def test_a_second_training_encodes_nothing(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["experiment=fashion_dki", "debug=smoke", f"model.pretrained={sd_folder}", "model.resolution=32"]
    given += ["data.resolution=32", f"task.cache_latents={tmp_path / 'codes'}", "trainer.limit_val_batches=0"]
    tasks = [train(compose("train", [*given, f"paths.output_dir={tmp_path / 'a'}"]))]
    monkeypatch.setattr(StableDiffusion, "encode", lambda *args: pytest.fail("an image was encoded again"))
    tasks.append(train(compose("train", [*given, f"paths.output_dir={tmp_path / 'b'}", "~callbacks.grid"])))
    for name, value in tasks[0].state_dict().items():
        torch.testing.assert_close(tasks[1].state_dict()[name], value, atol=0, rtol=0, msg=name)


def test_captions_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, known = StableDiffusion(random_pipeline()), list[list[str]](), {}
    plain = encode_captions(model, ["b", "a", "b"], train=False)
    real = model.encode_prompts
    monkeypatch.setattr(model, "encode_prompts", lambda prompts: (seen.append(prompts), real(prompts))[1])
    for _ in range(2):
        again = encode_captions(model, ["b", "a", "b"], False, known)
        torch.testing.assert_close(again.prompt_embeds, plain.prompt_embeds, atol=1e-6, rtol=1e-5)
    assert seen == [["a", "b"]]
    encode_captions(model, ["a", "c"], False, known)
    assert seen[1:] == [["c"]]
