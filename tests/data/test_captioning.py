"""The captioning step: BLIP from a folder, going on where it stopped, and what it says when something is wrong."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from r2r.caption import caption_samples, find_images
from r2r.data.datasets import find_samples
from r2r.errors import DataError, MissingWeightsError
from r2r.models.captioner import blip
from tests.data.shard_writing import write_images, write_studio


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BLIP small enough to save."""
    folder = tmp_path_factory.mktemp("blip")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 5, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 2}
    text = size | tokens | {"vocab_size": 64, "encoder_hidden_size": 16, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=size | {"image_size": 32, "patch_size": 16})
    network = BlipForConditionalGeneration(config)
    with torch.no_grad():
        network.text_decoder.cls.predictions.bias[10] = 100.0  # it has one thing to say
    network.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", "[DEC]", *(f"word{i}" for i in range(58))]
    (folder / "vocab.txt").write_text("\n".join(words))
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(
        images, BertTokenizer(str(folder / "vocab.txt"), additional_special_tokens=["[DEC]"])
    ).save_pretrained(folder)
    return str(folder)


def colours(images) -> list[str]:
    return [f"red {image.getpixel((0, 0))[0]}" for image in images]


def test_blip_captions_become_training_captions(weights: str, tmp_path: Path) -> None:
    root = write_images(tmp_path / "photos", ["a.png", "deep/b.png", "c.png"])
    captioner = blip(weights, "cpu", max_new_tokens=5)
    assert caption_samples(find_images(root), root / "captions.json", captioner, batch_size=2) == []
    written = json.loads((root / "captions.json").read_text())
    assert set(written) == {"a.png", "deep/b.png", "c.png"}
    assert set(written.values()) == {"word4 word4 word4 word4 word4"}
    train, _ = find_samples(root, "folder", val_fraction=0.0)
    assert {sample.key: sample.caption for sample in train} == written


def test_captions_there_already_are_kept(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["a.png", "b.png", "c.png"])
    (root / "captions.json").write_text('{"b.png": "mine"}')
    asked: list[int] = []

    def counting(images) -> list[str]:
        asked.append(len(images))
        return colours(images)

    caption_samples(find_images(root), root / "captions.json", counting)
    assert asked == [2]
    assert json.loads((root / "captions.json").read_text()) == {"a.png": "red 0", "b.png": "mine", "c.png": "red 2"}


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["a.png", "b.png"])

    def failing(images) -> list[str]:
        if images[0].getpixel((0, 0))[0] == 1:
            raise KeyboardInterrupt
        return colours(images)

    with pytest.raises(KeyboardInterrupt):
        caption_samples(find_images(root), root / "captions.json", failing, batch_size=1)
    assert json.loads((root / "captions.json").read_text()) == {"a.png": "red 0"}


def test_broken_images_are_reported_and_the_rest_is_done(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["a.png", "c.png"])
    (root / "b.png").write_bytes(b"noise")
    failed = caption_samples(find_images(root), root / "captions.json", colours)
    assert len(failed) == 1 and "b.png" in failed[0]
    assert set(json.loads((root / "captions.json").read_text())) == {"a.png", "c.png"}


def test_shards_are_captioned_by_key(tmp_path: Path) -> None:
    root = write_studio(tmp_path, train=3, val=1)
    caption_samples(find_images(root), tmp_path / "captions.json", colours, image_member="photo.png")
    train, val = find_samples(root, "shards")
    assert {s.key: s.caption for s in [*train, *val]} == {
        "train0": "red 0",
        "train1": "red 1",
        "train2": "red 2",
        "val0": "red 0",
    }


def test_missing_folder_and_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="input is not a folder"):
        find_images(tmp_path / "gone")
    with pytest.raises(MissingWeightsError, match=r"model='no/such'.*HF_HOME.*HF_HUB_OFFLINE.*model=FOLDER"):
        blip("no/such")
