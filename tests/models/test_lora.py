"""LoRA: no effect at the start, what trains, and files that give the same model elsewhere."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hydra.errors import InstantiationException
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from r2r.cli import compose
from r2r.errors import InputError
from r2r.models import LoRA, StableDiffusion
from r2r.models.exported_parts import base_settings
from r2r.models.lora import DIFFUSERS, KOHYA
from r2r.tasks import DomainFinetuning
from r2r.train import train
from r2r.translate import translate
from tests.pipelines import random_pipeline

SETTINGS = LoRA(rank=4, alpha=2.0)


def predicted(model: StableDiffusion) -> Tensor:
    latents = torch.randn(2, 4, 12, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(latents, torch.tensor(500), model.encode_prompts(["a", "b"]))


def adapted(folder: Path, settings: LoRA = SETTINGS) -> StableDiffusion:
    """A base saved to a folder, with a LoRA that has learned something, exported beside it."""
    random_pipeline().save_pretrained(folder / "base")
    model = StableDiffusion.from_pretrained(str(folder / "base"))
    layers = settings.add(model.unet)
    for number, parameter in enumerate(layers.parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    settings.save(model.unet, folder / "lora", base_settings(model))
    return model


def test_it_begins_without_effect_and_trains_alone() -> None:
    model = StableDiffusion(random_pipeline())
    before = predicted(model)
    layers = SETTINGS.add(model.unet)
    torch.testing.assert_close(predicted(model), before, atol=0, rtol=0)
    trained = {id(p) for p in layers.parameters()}
    assert trained == {id(p) for p in model.unet.parameters() if p.requires_grad}
    sites = sum(1 for name, _ in model.unet.named_modules() if re.search(r"attn\d\.(to_[qkv]|to_out\.0)$", name))
    assert len(trained) == 2 * sites > 0


def test_an_export_loads_as_a_model_and_in_diffusers(tmp_path: Path) -> None:
    """With an alpha that is not the rank, which a loader could miss."""
    wanted = predicted(adapted(tmp_path))
    fused = StableDiffusion.from_pretrained(str(tmp_path / "lora"))
    torch.testing.assert_close(predicted(fused), wanted, atol=1e-5, rtol=1e-4)
    assert base_settings(fused) == {"base": str(tmp_path / "lora")} and not hasattr(fused.unet, "peft_config")
    assert not torch.allclose(predicted(StableDiffusion.from_pretrained(str(tmp_path / "base"))), wanted, atol=1e-3)
    for file in (DIFFUSERS, KOHYA):
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "base", safety_checker=None)
        pipe.load_lora_weights(tmp_path / "lora", weight_name=file)
        torch.testing.assert_close(predicted(StableDiffusion(pipe)), wanted, atol=1e-5, rtol=1e-4, msg=file)


def test_keys_are_those_that_kohya_writes(tmp_path: Path) -> None:
    adapted(tmp_path)
    state = load_file(tmp_path / "lora" / KOHYA)
    block = r"(down_blocks_\d|up_blocks_\d|mid_block)_attentions_\d_transformer_blocks_\d_attn[12]"
    layer = rf"lora_unet_{block}_to_(q|k|v|out_0)"
    assert all(re.fullmatch(rf"{layer}\.(lora_down\.weight|lora_up\.weight|alpha)", name) for name in state)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in state
    for name, value in state.items():
        if name.endswith("alpha"):
            down, up = (state[name.replace("alpha", f"lora_{end}.weight")] for end in ("down", "up"))
            assert value == 2.0 and down.shape[0] == up.shape[1] == 4


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            LoRA(**wrong)
    with pytest.raises(InputError, match="no layer of the U-Net"):
        LoRA(targets=["to_x"]).add(StableDiffusion(random_pipeline()).unet)
    adapted(tmp_path)
    random_pipeline(xl=True).save_pretrained(tmp_path / "base")
    about = json.loads((tmp_path / "lora" / "lora.json").read_text())
    assert about == {
        "base": str(tmp_path / "base"),
        "rank": 4,
        "alpha": 2.0,
        "dropout": 0.0,
        "targets": ["to_q", "to_k", "to_v", "to_out.0"],
    }
    with pytest.raises(InputError, match="does not fit its base model"):
        StableDiffusion.from_pretrained(str(tmp_path / "lora"))


def run(output: Path, model: Path, *overrides: str) -> DomainFinetuning:
    given = ["experiment=fashion_dki_lora", "debug=smoke", f"model.pretrained={model}", "model.resolution=32"]
    pace = ["data.resolution=32", "trainer.limit_val_batches=0", "callbacks.checkpoint.every_n_train_steps=2"]
    return train(compose("train", [*given, *pace, f"paths.output_dir={output}", *overrides]))


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_training_equals_a_straight_one_and_its_files_are_small(sd_folder: Path, tmp_path: Path) -> None:
    dropout = ["task.lora.dropout=0.1", "task.lora.rank=2", "task.lora.alpha=4.0", "callbacks=ema"]
    straight = run(tmp_path / "a", sd_folder, *dropout, "trainer.max_steps=4")
    names = {name for name, _ in straight.named_parameters()}
    assert names and all(name.startswith("lora_layers.") for name in names)
    assert not straight.model.unet.training
    run(tmp_path / "b", sd_folder, *dropout, "trainer.max_steps=2")
    run(tmp_path / "b", sd_folder, *dropout, "trainer.max_steps=4", "resume=auto")
    exports = [load_file(tmp_path / each / "export" / KOHYA) for each in "ab"]
    for name, value in exports[0].items():
        torch.testing.assert_close(exports[1][name], value, atol=0, rtol=0, msg=name)
    assert any(value.abs().max() > 0 for name, value in exports[0].items() if "lora_up" in name)
    stored = torch.load(tmp_path / "a" / "checkpoints" / "step_0000004.ckpt", weights_only=True)["state_dict"]
    assert set(stored) == names
    with pytest.raises(InstantiationException, match=r"leave task\.train_text_encoder=false"):
        run(tmp_path / "c", sd_folder, "task.train_text_encoder=true")
    with pytest.raises(InstantiationException, match=r"one file as it is \(kohya\.safetensors\)"):
        run(tmp_path / "c", sd_folder, "task.single_file=true")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32), (200, 30, 40)).save(photos / "a.png")
    given = [f"input={photos}", f"output={tmp_path / 'out'}", f"model={tmp_path / 'a' / 'export'}", "device=cpu"]
    translate(compose("translate", [*given, "num_inference_steps=10"]))
    assert (tmp_path / "out" / "a.png").is_file()
