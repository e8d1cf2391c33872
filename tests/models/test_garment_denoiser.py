"""Reference net, image prompt and their fusion: identities, what trains, and how often the person is looked at."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from r2r.attention import AttentionBank, AttentionSite, Record, Sites, attention_control
from r2r.errors import InputError, MissingWeightsError
from r2r.models.garment_denoiser import EXPORTS, GarmentDenoiser
from r2r.models.image_encoder import OPENAI_MEAN, ImageEncoder
from r2r.models.reference_net import ReferenceNet
from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks import GarmentRestorer
from tests.pipelines import random_pipeline

PROMPT = {"num_tokens": 4, "width": 32, "depth": 1, "head_width": 16}
SIZE = (32, 24)  # height and width of the images: not square


@pytest.fixture
def model() -> StableDiffusion:
    return StableDiffusion(random_pipeline())


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder.from_pretrained("tiny")


def persons(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy(rows: int = 2) -> Tensor:
    return torch.randn(rows, 4, SIZE[0] // 2, SIZE[1] // 2, generator=torch.Generator().manual_seed(7))


def predict(denoiser: GarmentDenoiser, rows: int = 2, mask: Tensor | None = None, **which: Any) -> Tensor:
    condition = denoiser.model.encode_prompts(["dress"] * 2)
    appearance = denoiser.look(persons(), condition, mask)
    groups = rows // 2
    return denoiser.predict(noisy(rows), torch.tensor(500), condition.select([0, 1] * groups), appearance, **which)


def plain(model: StableDiffusion) -> Tensor:
    embeds = model.encode_prompts(["dress"] * 2).prompt_embeds
    return model.unet(noisy(), torch.tensor(500), encoder_hidden_states=embeds, return_dict=False)[0]


@pytest.mark.parametrize("min_stride", [1, 2, 4])
def test_the_cut_reference_net_sees_what_the_whole_unet_sees(model: StableDiffusion, min_stride: int) -> None:
    where, bank, told = Sites("self", min_stride=min_stride), AttentionBank(), model.encode_prompts(["dress"] * 2)
    reference, latents = ReferenceNet(model.unet, where), noisy()
    with torch.no_grad(), attention_control(model.unet, Record(bank, where)):
        model.unet(latents, 0, encoder_hidden_states=told.prompt_embeds)
    seen = reference(latents, **model.told(latents, told))
    assert set(seen) == set(bank)
    for name, inputs in bank.items():
        for part in ("key", "value"):
            torch.testing.assert_close(seen[name].part(part), inputs.part(part), atol=1e-5, rtol=1e-5)
        assert seen[name].query.numel() == 0
    kept, whole = (sum(p.numel() for p in net.parameters()) for net in (reference, model.unet))
    assert kept < whole and reference.sample_evals == 2


def test_every_parameter_of_the_reference_net_can_matter(model: StableDiffusion) -> None:
    for min_stride in (1, 2, 4):
        reference = ReferenceNet(model.unet, Sites("self", min_stride=min_stride)).requires_grad_(True)
        seen = reference(noisy(), **model.told(noisy(), model.encode_prompts(["dress"] * 2)))
        sum(each.part("key").square().mean() + each.part("value").square().mean() for each in seen.values()).backward()
        assert [name for name, p in reference.named_parameters() if p.grad is None] == []
    assert not any(p.requires_grad for p in model.unet.parameters())


def test_a_reference_that_nothing_could_fuse_is_refused(unet: UNet2DConditionModel, model: StableDiffusion) -> None:
    with pytest.raises(InputError, match="no self-attention of the middle"):
        GarmentDenoiser(model, min_stride=16)


def test_without_reference_and_tokens_it_is_the_plain_unet(model: StableDiffusion, encoder: ImageEncoder) -> None:
    """Rows that are to see neither, a mask that leaves no key, and an untrained image prompt."""
    before = plain(model)
    denoiser = GarmentDenoiser(model, encoder, PROMPT)
    no = torch.zeros(2, dtype=torch.bool)
    seen = predict(denoiser)
    assert not torch.allclose(seen, before, atol=1e-3)
    torch.testing.assert_close(predict(denoiser, looking=no, told=no), before, atol=1e-5, rtol=1e-4)
    nothing = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    torch.testing.assert_close(predict(denoiser, mask=nothing, told=no), before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(predict(denoiser, told=no), seen)  # values begin at zero
    torch.nn.init.normal_(next(iter(denoiser.image_prompt.values.values())).weight)
    assert not torch.allclose(predict(denoiser), seen, atol=1e-4)
    torch.testing.assert_close(predict(denoiser, looking=no, told=no), before, atol=1e-5, rtol=1e-4)
    denoiser.image_prompt.scale = 0.0
    torch.testing.assert_close(predict(denoiser), seen)


def test_a_reference_of_the_own_latents_is_plain_self_attention(model: StableDiffusion) -> None:
    """Own keys twice in one softmax are own keys once."""
    condition, latents, time = model.encode_prompts(["dress"] * 2), model.encode(persons()), torch.tensor(0)
    alone = model.predict(latents, time, condition)
    denoiser = GarmentDenoiser(model)
    fused = denoiser.predict(latents, time, condition, denoiser.look(persons(), condition))
    torch.testing.assert_close(fused, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(denoiser.predict(latents, time, condition, denoiser.look(persons(1), condition)), alone)


def test_groups_of_rows_are_what_separate_calls_are(model: StableDiffusion, encoder: ImageEncoder) -> None:
    denoiser = GarmentDenoiser(model, encoder, PROMPT)
    torch.nn.init.normal_(next(iter(denoiser.image_prompt.values.values())).weight)
    mask = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(3)) > 0.8
    branches = [(False, False), (True, False), (True, True)]
    looking, told = (torch.tensor([b[i] for b in branches]).repeat_interleave(2) for i in (0, 1))
    condition = model.encode_prompts(["dress"] * 2)
    appearance = denoiser.look(persons(), condition, mask)
    rows, time = noisy().repeat(3, 1, 1, 1), torch.tensor(500)
    together = denoiser.predict(rows, time, condition.select([0, 1] * 3), appearance, looking, told).split(2)
    for number, (see, tell) in enumerate(branches):
        which = [torch.full((2,), each) for each in (see, tell)]
        alone = denoiser.predict(noisy(), time, condition, appearance, *which)
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-4)
    assert denoiser.reference.sample_evals == 2 and model.sample_evals == 6 + 3 * 2


def test_sdxl_is_looked_at_and_told_likewise(encoder: ImageEncoder) -> None:
    model = StableDiffusion(random_pipeline(xl=True))
    denoiser = GarmentDenoiser(model, encoder, PROMPT)
    no = torch.zeros(2, dtype=torch.bool)
    assert not torch.allclose(predict(denoiser), predict(denoiser, looking=no), atol=1e-4)


def test_keys_of_the_garment_alone_are_kept(model: StableDiffusion) -> None:
    """One latent pixel of one person, a third of the other: the bank is as wide as the wider, and nothing is lost."""
    mask = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    mask[0, :, 0:2, 0:2] = True
    mask[1, :, :, 8:16] = True
    denoiser, latents = GarmentDenoiser(model), model.encode(persons())
    condition = model.encode_prompts(["dress"] * 2)
    whole = dict(ReferenceNet(model.unet)(latents, **model.told(latents, condition)))
    denoiser.look(persons(), condition, mask)
    for site in denoiser.reference.sites:
        rows, columns = site.token_grid(*latents.shape[2:])
        bank, seen = denoiser.reference.bank[site.name], denoiser.keys.seen[site.name]
        covered = torch.nn.functional.interpolate(mask.float(), (rows, columns), mode="area").flatten(1) > 0
        assert bank.part("key").shape[2] == covered.sum(1).max() < rows * columns
        for part, row in ((part, row) for part in ("key", "value") for row in (0, 1)):
            kept = bank.part(part)[row, :, seen[row, 0, 0]]
            torch.testing.assert_close(kept, whole[site.name].part(part)[row, :, covered[row]])


def test_a_cut_bank_changes_nothing(model: StableDiffusion) -> None:
    """What a mask over all keys would give."""
    mask = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(3)) > 0.9
    denoiser = GarmentDenoiser(model)
    cut = predict(denoiser, mask=mask)

    def masked(site: AttentionSite, tokens: int) -> Tensor:
        grid = site.token_grid(SIZE[0] // 2, SIZE[1] // 2)
        return torch.nn.functional.adaptive_max_pool2d(mask.float(), grid).flatten(1)[:, None, None] > 0

    denoiser.fuse.mask = masked
    torch.testing.assert_close(predict(denoiser), cut, atol=1e-5, rtol=1e-4)


def test_gradients_reach_what_trains_alone(model: StableDiffusion, encoder: ImageEncoder) -> None:
    denoiser = GarmentDenoiser(model, encoder, PROMPT).requires_grad_(True)
    for values in denoiser.image_prompt.values.values():
        torch.nn.init.normal_(values.weight)
    predict(denoiser).square().mean().backward()
    assert [name for name, p in denoiser.named_parameters() if p.grad is None] == []
    frozen = [*model.vae.parameters(), *model.text_encoders[0].parameters(), *encoder.parameters()]
    assert not any(p.requires_grad for p in frozen)
    assert not {id(p) for p in denoiser.parameters()} & {id(p) for p in frozen}


def test_checkpointing_changes_memory_and_not_gradients(model: StableDiffusion) -> None:
    denoiser = GarmentDenoiser(model).requires_grad_(True).train()
    mask, found = torch.zeros(2, 1, *SIZE, dtype=torch.bool), []
    mask[:, :, 4:20, 8:16] = True
    for checkpointing in (False, True):
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
            denoiser.reference.unet.enable_gradient_checkpointing()
        denoiser.zero_grad()
        predict(denoiser, mask=mask).square().mean().backward()
        found.append({name: p.grad.clone() for name, p in denoiser.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-7, rtol=1e-4, msg=name)


def test_an_export_brings_everything_back(model: StableDiffusion, encoder: ImageEncoder, tmp_path: Path) -> None:
    denoiser = GarmentDenoiser(model, encoder, PROMPT).requires_grad_(True)
    for parameter in denoiser.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    denoiser.save(tmp_path)
    other = GarmentDenoiser(StableDiffusion(random_pipeline()), encoder, PROMPT)
    other.load(tmp_path)
    torch.testing.assert_close(predict(other), predict(denoiser))
    with pytest.raises(InputError, match="parts="):
        GarmentDenoiser(StableDiffusion(random_pipeline())).load(tmp_path)
    with pytest.raises(InputError, match="no export of igr"):
        other.load(tmp_path / "nothing")


def test_a_reference_that_stayed_as_it_was_is_not_written(model: StableDiffusion, tmp_path: Path) -> None:
    denoiser = GarmentDenoiser(model)
    denoiser.unet.requires_grad_(True)
    denoiser.save(tmp_path / "frozen")
    assert {path.name for path in (tmp_path / "frozen").iterdir()} == {"garment.json", "unet.safetensors"}
    denoiser.reference.requires_grad_(True)
    denoiser.save(tmp_path / "trained")
    again = GarmentDenoiser(StableDiffusion(random_pipeline()))
    again.load(tmp_path / "trained")
    again.save(tmp_path / "frozen in a second stage")
    assert (tmp_path / "frozen in a second stage" / "reference.safetensors").is_file()


def test_what_ships_is_small_and_loads() -> None:
    assert sum(path.stat().st_size for path in EXPORTS["tiny"].iterdir()) < 16e6
    pipe = GarmentRestorer.from_pretrained("tiny")
    assert pipe.denoiser.parts == ["unet", "reference", "image_prompt"] and pipe.denoiser.reference_is_base
    values = [layer.weight for layer in pipe.denoiser.image_prompt.values.values()]
    assert all(weight.abs().max() > 0 for weight in values)


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_encoders_of_transformers_are_read(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    if kind == "clip":
        network = CLIPVisionModel(CLIPVisionConfig(**sizes, intermediate_size=32))
    else:
        network = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2))
        processor = {"image_processor_type": "BitImageProcessor", "image_mean": [0.4] * 3, "image_std": [0.2] * 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    network.save_pretrained(tmp_path)
    encoder = ImageEncoder.from_pretrained(str(tmp_path))
    tokens = encoder(persons())
    assert tokens.shape == (2, 5, 24) and encoder.width == 24 and not tokens.requires_grad
    assert encoder.mean.flatten().tolist() == pytest.approx([0.4] * 3 if kind == "dinov2" else OPENAI_MEAN)


def test_what_is_no_encoder_is_refused(sd_folder: Path) -> None:
    with pytest.raises(MissingWeightsError, match="nowhere"):
        ImageEncoder.from_pretrained("nobody/nowhere")
    with pytest.raises(InputError, match="clip_text_model"):
        ImageEncoder.from_pretrained(str(sd_folder), "text_encoder")
