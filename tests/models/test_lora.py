"""LoRA: no effect at the start, what trains, and files that give the same model elsewhere."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.optimization import get_constant_schedule_with_warmup
from hydra.errors import InstantiationException
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from r2r.cli import compose
from r2r.errors import InputError
from r2r.models import LoRA, StableDiffusion
from r2r.models.exported_parts import base_settings
from r2r.models.lora import DIFFUSERS, KOHYA, kohya_keys
from r2r.tasks import DomainFinetuning
from r2r.train import train
from r2r.translate import translate
from tests.pipelines import random_pipeline

SETTINGS = LoRA(rank=4, alpha=2.0)


def predicted(model: StableDiffusion) -> Tensor:
    latents = torch.randn(2, 4, 12, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(latents, torch.tensor(500), model.encode_prompts(["a", "b"]))


def adapted(folder: Path, xl: bool = False, text: bool = False) -> StableDiffusion:
    """A base saved to a folder, with a LoRA that has learned something, exported beside it."""
    random_pipeline(xl=xl).save_pretrained(folder / "base")
    model = StableDiffusion.from_pretrained(str(folder / "base"))
    layers = nn.ModuleList(SETTINGS.add(each) for each in [model.unet, *(model.text_encoders if text else [])])
    for number, parameter in enumerate(layers.parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    SETTINGS.save(model.pipe, folder / "lora", base_settings(model))
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


@pytest.mark.parametrize("text", [False, True], ids=["unet", "text_encoders"])
@pytest.mark.parametrize("xl", [False, True], ids=["sd", "sdxl"])
def test_an_export_loads_as_a_model_and_in_diffusers(xl: bool, text: bool, tmp_path: Path) -> None:
    """With an alpha that is not the rank, which a loader could miss."""
    wanted = predicted(adapted(tmp_path, xl, text))
    fused = StableDiffusion.from_pretrained(str(tmp_path / "lora"))
    torch.testing.assert_close(predicted(fused), wanted, atol=1e-5, rtol=1e-4)
    assert base_settings(fused) == {"base": str(tmp_path / "lora")} and not hasattr(fused.unet, "peft_config")
    assert not any(hasattr(each, "peft_config") for each in fused.text_encoders)
    assert not torch.allclose(predicted(StableDiffusion.from_pretrained(str(tmp_path / "base"))), wanted, atol=1e-3)
    for file in (DIFFUSERS, KOHYA):
        pipe = DiffusionPipeline.from_pretrained(tmp_path / "base", **({} if xl else {"safety_checker": None}))
        pipe.load_lora_weights(tmp_path / "lora", weight_name=file)
        torch.testing.assert_close(predicted(StableDiffusion(pipe)), wanted, atol=1e-5, rtol=1e-4, msg=file)


def test_keys_are_those_that_kohya_writes(tmp_path: Path) -> None:
    adapted(tmp_path, text=True)
    state = load_file(tmp_path / "lora" / KOHYA)
    block = r"(down_blocks_\d|up_blocks_\d|mid_block)_attentions_\d_transformer_blocks_\d_attn[12]"
    words = r"lora_te_text_model_encoder_layers_\d_self_attn_(q|k|v|out)_proj"
    layer = rf"(lora_unet_{block}_to_(q|k|v|out_0)|{words})"
    assert all(re.fullmatch(rf"{layer}\.(lora_down\.weight|lora_up\.weight|alpha)", name) for name in state)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in state
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in state
    adapted(tmp_path / "xl", xl=True, text=True)
    encoders = {name[: len("lora_te1")] for name in load_file(tmp_path / "xl" / "lora" / KOHYA)}
    assert encoders == {"lora_une", "lora_te1", "lora_te2"}
    released = r"lora_unet_(input_blocks_\d_1|middle_block_1|output_blocks_\d_1)_transformer_blocks_\d_attn[12]"
    unet = [name for name in load_file(tmp_path / "xl" / "lora" / KOHYA) if "unet" in name]
    assert all(re.match(rf"{released}_to_(q|k|v|out_0)\.", name) for name in unet)
    given = {"unet": {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(1)}}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha" in kohya_keys(given, 1.0, layers=2)
    for name, value in state.items():
        if name.endswith("alpha"):
            down, up = (state[name.replace("alpha", f"lora_{end}.weight")] for end in ("down", "up"))
            assert value == 2.0 and down.shape[0] == up.shape[1] == 4


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            LoRA(**wrong)
    with pytest.raises(InputError, match=r"lora\.targets=\['to_x'\]: no layer of UNet2D"):
        LoRA(targets=["to_x"]).add(StableDiffusion(random_pipeline()).unet)
    with pytest.raises(InputError, match=r"text_targets=\['x'\]: no layer of CLIPTextModel"):
        LoRA(text_targets=["x"]).add(StableDiffusion(random_pipeline()).text_encoders[0])
    adapted(tmp_path)
    random_pipeline(xl=True).save_pretrained(tmp_path / "base")
    about = json.loads((tmp_path / "lora" / "lora.json").read_text())
    assert about == {
        "base": str(tmp_path / "base"),
        "rank": 4,
        "alpha": 2.0,
        "dropout": 0.0,
        "targets": ["to_q", "to_k", "to_v", "to_out.0"],
        "text_targets": ["q_proj", "k_proj", "v_proj", "out_proj"],
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
    with pytest.raises(InstantiationException, match=r"one file as it is \(kohya\.safetensors\)"):
        run(tmp_path / "c", sd_folder, "task.single_file=true")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32), (200, 30, 40)).save(photos / "a.png")
    given = [f"input={photos}", f"output={tmp_path / 'out'}", f"model={tmp_path / 'a' / 'export'}", "device=cpu"]
    translate(compose("translate", [*given, "num_inference_steps=10"]))
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize("lora", [None, SETTINGS], ids=["weights", "lora"])
def test_whatever_trains_of_text_encoders_learns(lora: LoRA | None) -> None:
    """Also of SDXL's, whose first encoder is read before its last layer: DDP refuses parameters without gradients."""
    schedule = partial(get_constant_schedule_with_warmup, num_warmup_steps=0)
    model = StableDiffusion(random_pipeline(xl=True))
    task = DomainFinetuning(model, torch.optim.AdamW, schedule, train_text_encoder=True, lora=lora)
    batch = {"image": torch.rand(2, 3, 32, 32), "caption": ["a", "b"], "key": ["0", "1"]}
    task._loss(batch, torch.Generator().manual_seed(0)).backward()
    trained = {name: each.grad is not None for name, each in task.named_parameters() if each.requires_grad}
    frozen = {name for name, each in task.named_parameters() if not each.requires_grad}
    assert all(trained.values()) and any(name.startswith("text_encoders.1.") for name in trained)
    assert frozen and all(re.match(r"text_encoders\.0\..*(layers.1.|final_layer_norm)", name) for name in frozen)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_text_encoders_are_adapted_and_resumed_too(sdxl_folder: Path, tmp_path: Path) -> None:
    told = ["task.train_text_encoder=true", "task.lora.text_targets=[q_proj,fc1]", "task.lora.dropout=0.1"]
    run(tmp_path / "a", sdxl_folder, *told, "trainer.max_steps=4")
    run(tmp_path / "b", sdxl_folder, *told, "trainer.max_steps=2")
    run(tmp_path / "b", sdxl_folder, *told, "trainer.max_steps=4", "resume=auto")
    one, other = (load_file(tmp_path / each / "export" / KOHYA) for each in "ab")
    learned = {name for name, value in one.items() if name.startswith("lora_te2") and "lora_up" in name and value.any()}
    assert learned and all(torch.equal(other[name], value) for name, value in one.items())
    fused = StableDiffusion.from_pretrained(str(tmp_path / "a" / "export"))
    base = StableDiffusion.from_pretrained(str(sdxl_folder))
    for before, after in zip(base.text_encoders, fused.text_encoders, strict=True):
        assert any(not torch.equal(x, y) for x, y in zip(before.parameters(), after.parameters(), strict=True))
