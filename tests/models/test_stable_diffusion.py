"""The wrapper around diffusers pipelines: equality with diffusers, SD and SDXL alike, and errors to act on."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from r2r.errors import InputError, MissingWeightsError
from r2r.models.exported_parts import base_settings, load_base
from r2r.models.placeholder_tokens import add_placeholder
from r2r.models.stable_diffusion import PRETRAINED, StableDiffusion, TextConditioning


@pytest.fixture(params=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A saved SD 1.x pipeline and a saved SDXL pipeline."""
    return request.getfixturevalue(f"{request.param}_folder")


def test_encode_and_decode_are_diffusers(folder: Path) -> None:
    model = StableDiffusion.from_pretrained(str(folder))
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model.encode(images)
    expected = model.vae.encode(images).latent_dist.mean * model.vae.config.scaling_factor
    assert torch.equal(latents, expected)
    decoded = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    assert torch.equal(model.decode(latents), decoded.clamp(-1, 1))
    assert model.vae_factor == 2 and model.size_multiple == 8 and model.resolution == 32


@torch.no_grad()
def test_predict_is_the_pipelines_own_call(folder: Path) -> None:
    """One step of the whole diffusers pipeline sees the same noise as `predict`."""
    model = StableDiffusion.from_pretrained(str(folder))
    seen = []
    model.unet.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True
    )
    model.pipe.set_progress_bar_config(disable=True)
    model.pipe("a dress", num_inference_steps=1, guidance_scale=1.0, output_type="latent", height=32, width=32)
    (latents, time), _, out = seen[0]
    got = model.predict(latents, time, model.encode_prompts(["a dress"]))
    torch.testing.assert_close(got, out[0], rtol=1e-4, atol=1e-5)
    assert model.sample_evals == 1


def test_conditions_repeat_select_and_join(folder: Path) -> None:
    model = StableDiffusion.from_pretrained(str(folder))
    one, two = model.encode_prompts(["a"]), model.encode_prompts(["b"])
    both = TextConditioning.cat([one.repeat(2), two])
    expected = model.encode_prompts(["a", "a", "b"])
    torch.testing.assert_close(both.prompt_embeds, expected.prompt_embeds)
    swapped = both.select([2, 0])
    torch.testing.assert_close(swapped.prompt_embeds[0], two.prompt_embeds[0])
    assert (both.pooled_prompt_embeds is None) == (folder.name.startswith("sd0"))


def test_save_and_load_round_trip(folder: Path, tmp_path: Path) -> None:
    model = StableDiffusion.from_pretrained(str(folder))
    model.save_pretrained(tmp_path / "copy")
    again = DiffusionPipeline.from_pretrained(tmp_path / "copy")
    for name, value in model.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], value)


def test_negative_embeddings_load_as_diffusers_loads_them(sd_folder: Path, tmp_path: Path) -> None:
    vectors = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    save_file({"<rendered>": vectors}, tmp_path / "rendered.safetensors")
    model = StableDiffusion.from_pretrained(str(sd_folder))
    token = model.load_negative_embedding(tmp_path / "rendered.safetensors")
    pipe = DiffusionPipeline.from_pretrained(sd_folder)
    pipe.load_textual_inversion(str(tmp_path / "rendered.safetensors"))
    expected, _ = pipe.encode_prompt("<rendered>", "cpu", 1, False)
    assert token == "<rendered>"
    torch.testing.assert_close(model.encode_prompts([token]).prompt_embeds, expected)


def test_sdxl_embeddings_need_both_encoders(sdxl_folder: Path, sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rendered.safetensors"
    save_file({"clip_l": torch.randn(2, 24), "clip_g": torch.randn(2, 32)}, file)
    model = StableDiffusion.from_pretrained(str(sdxl_folder))
    token = model.load_negative_embedding(file)
    different = model.encode_prompts([token]).prompt_embeds - model.encode_prompts([""]).prompt_embeds
    assert token == "<rendered>" and different.abs().max() > 0
    with pytest.raises(InputError, match="another kind of model"):
        StableDiffusion.from_pretrained(str(sd_folder)).load_negative_embedding(file)


def test_wrong_embeddings_are_refused(sd_folder: Path, tmp_path: Path) -> None:
    model = StableDiffusion.from_pretrained(str(sd_folder))
    save_file({"<x>": torch.randn(1, 7)}, tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match="width 7, the model 24"):
        model.load_negative_embedding(tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"nothing\.safetensors"):
        model.load_negative_embedding(tmp_path / "nothing.safetensors")


def test_a_wrong_folder_is_told_from_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        StableDiffusion.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"no model_index\.json"):
        StableDiffusion.from_pretrained(str(tmp_path))


@pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks")  # passed by diffusers itself
@pytest.mark.parametrize("name", ["sd15", "somebody/some-model"])
def test_missing_weights_say_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError) as error:
        StableDiffusion.from_pretrained(name)
    for word in (PRETRAINED.get(name, name), "HF_HOME", "HF_HUB_OFFLINE", "model.pretrained="):
        assert word in str(error.value)


@torch.no_grad()
def test_placeholders_start_as_their_initializer(folder: Path) -> None:
    """One vector initialised from a word makes the same conditioning as the word."""
    model = StableDiffusion.from_pretrained(str(folder))
    word = model.encode_prompts(["z"])
    parameters = add_placeholder(model, "<rendered>", 1, "z")
    assert [p.shape[0] for p in parameters] == [1] * len(model.text_parts())
    placed = model.encode_prompts(["<rendered>"])
    torch.testing.assert_close(placed.prompt_embeds, word.prompt_embeds)


def test_only_placeholder_rows_get_gradients(folder: Path) -> None:
    model = StableDiffusion.from_pretrained(str(folder))
    parameters = add_placeholder(model, "<rendered>", 3, "ab")
    condition = model.encode_prompts(["<rendered>"])
    condition.prompt_embeds.sum().backward()
    for parameter in parameters:
        assert parameter.grad is not None and (parameter.grad.abs().sum(1) > 0).all()
    assert all(
        p.grad is None for encoder in model.text_encoders for n, p in encoder.named_parameters() if "vectors" not in n
    )


def test_placeholder_words_are_checked(sd_folder: Path) -> None:
    model = StableDiffusion.from_pretrained(str(sd_folder))
    for token, count, start, message in [
        ("two words", 1, "a", "one word"),
        ("<x>", 0, "a", "num_vectors=0"),
        ("<x>", 1, "", "no token"),
        ("a", 1, "b", "already"),
    ]:
        with pytest.raises(InputError, match=message):
            add_placeholder(model, token, count, start)


def test_a_schedule_can_be_made_to_end_in_pure_noise(sd_folder: Path, tmp_path: Path) -> None:
    """Also after an export; noise itself could not be learned there."""
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    model = StableDiffusion.from_pretrained(str(sd_folder), schedule=changes)
    assert model.schedule.signal(999) == pytest.approx(0, abs=1e-9) and model.schedule.prediction == "v_prediction"
    assert StableDiffusion.from_pretrained(str(sd_folder)).schedule.signal(999) > 1e-3
    model.save_pretrained(tmp_path)
    again = StableDiffusion.from_pretrained(str(tmp_path))
    assert torch.equal(again.schedule.alphas_cumprod, model.schedule.alphas_cumprod)
    assert base_settings(model) == {"base": str(sd_folder), "schedule": changes} and "schedule" not in base_settings(
        again
    )
    reloaded = load_base(base_settings(model), "float32")
    assert torch.equal(reloaded.schedule.alphas_cumprod, model.schedule.alphas_cumprod)
    with pytest.raises(InputError, match="prediction_type=v_prediction"):
        StableDiffusion.from_pretrained(str(sd_folder), schedule={"rescale_betas_zero_snr": True})
