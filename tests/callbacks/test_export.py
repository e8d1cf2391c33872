"""Exports: the model card that goes with them, and the hub, which gets nothing unless asked."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from lightning import LightningModule, Trainer

from r2r.callbacks import Export
from r2r.callbacks.model_card import model_card
from r2r.errors import InputError

CONFIG = {
    "name": "fashion_dki_lora",
    "seed": 3,
    "model": {"pretrained": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
    "data": {"root": "/disk/secret/photos", "resolution": 512, "batch_size": 8},
    "task": {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-4}},
    "trainer": {"precision": "bf16-mixed", "accumulate_grad_batches": 1},
}


def test_a_card_says_what_it_is_of_and_no_place_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    (tmp_path / "samples.png").touch()
    card = ModelCard(model_card(tmp_path, CONFIG, {"val/loss": 0.12345}, {"steps": 1000}))
    assert card.data.base_model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert card.data.library_name == "diffusers" and "lora" in card.data.tags
    for text in ("| val/loss | 0.1235 |", "| steps | 1000 |", "| data | photos |", "| learning rate | 0.0001 |"):
        assert text in card.text
    assert 'pipe.load_lora_weights("fashion_dki_lora-export")' in card.text and "](samples.png)" in card.text
    assert "secret" not in card.content


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model_index.json", 'DiffusionPipeline.from_pretrained("fashion_dki_lora-export")'),
        ("rendered.safetensors", 'pipe.load_textual_inversion("fashion_dki_lora-export/rendered.safetensors")'),
        ("unet.safetensors", "python -m r2r.translate"),
    ],
)
def test_a_card_tells_how_to_load(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    assert text in model_card(tmp_path, {**CONFIG, "model": {"pretrained": "/a/b/base"}}, {}, {})


class Exported(LightningModule):
    """Writes one file."""

    def export(self, folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(b"weights")


class Hub:
    """Notes what it is told."""

    def __init__(self, calls: list[tuple[str, Any]], fails: str = "") -> None:
        self.calls, self.fails = calls, fails

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> None:
            self.calls.append((name, given, named))
            if name == self.fails:
                raise OSError("no network")

        return call


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")


def test_the_hub_gets_the_export_only_when_asked(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(calls))
    for repository, told in ((None, []), ("me/model", ["whoami", "create_repo", "upload_folder"])):
        export = Export(str(tmp_path / "export"), push_to_hub=repository)
        export.on_fit_start(trainer, Exported())
        export.on_fit_end(trainer, Exported())
        assert [name for name, *_ in calls] == told
    assert calls[1][1:] == (("me/model",), {"private": True, "exist_ok": True})
    assert calls[2][2] == {"repo_id": "me/model", "folder_path": tmp_path / "export"}


def test_a_hub_that_lets_nobody_in_is_told_before_training(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], "whoami"))
    with pytest.raises(InputError, match=r"push_to_hub=me/model: .*no network.*HF_TOKEN"):
        Export(str(tmp_path / "export"), push_to_hub="me/model").on_fit_start(trainer, Exported())


def test_a_failed_upload_keeps_the_export(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], "upload_folder"))
    Export(str(tmp_path / "export"), push_to_hub="me/model").on_fit_end(trainer, Exported())
    assert (tmp_path / "export" / "weights.safetensors").read_bytes() == b"weights"
    assert f"hf upload me/model {tmp_path / 'export'}" in caplog.text


def test_nothing_is_written_where_an_export_fails(tmp_path: Path, trainer: Trainer) -> None:
    class Broken(LightningModule):
        def export(self, folder: Path) -> None:
            (folder / "half").touch()
            raise OSError("full")

    (tmp_path / "export").mkdir()
    torch.save({}, tmp_path / "export" / "old.pt")
    with pytest.raises(OSError, match="full"):
        Export(str(tmp_path / "export")).on_fit_end(trainer, Broken())
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["old.pt"]
