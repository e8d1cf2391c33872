"""The embedded model and the architecture behind it."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.models.attention_processor import Attention
from transformers import CLIPTokenizer

from r2r.attention import Sites, attention_sites
from r2r.models.stable_diffusion import PRETRAINED, StableDiffusion
from r2r.models.tiny import LEXICON, MAX_TOKENS, build_tiny, build_tokenizer, learn_merges

ASSETS = Path(PRETRAINED["tiny"])
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def scratch() -> StableDiffusion:
    return build_tiny()


@pytest.fixture(scope="module")
def shipped() -> StableDiffusion:
    return StableDiffusion.from_pretrained("tiny")


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_lexicon_words_are_single_tokens() -> None:
    tokenizer = build_tokenizer()
    words = [word for word in LEXICON.split() if word.isalpha()]
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words)


@pytest.mark.parametrize("text", ["a photo of a navy t-shirt", "xylophone quartz", "Grüße aus München", "日本 100 %"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert "".join(tokenizer.decode(ids).split()) == "".join(text.lower().split())
    assert tokenizer.eos_token_id not in ids  # which would stand for "unknown"


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    texts = ["a 3d render of a red and light blue striped long-sleeved t-shirt", "unheard-of wörds <x_1>", ""]
    options = {"padding": "max_length", "truncation": True}
    assert loaded(texts, **options).input_ids == tokenizer(texts, **options).input_ids
    assert all(len(ids) == MAX_TOKENS for ids in loaded(texts, **options).input_ids)


def test_merges_follow_byte_pair_encoding() -> None:
    assert learn_merges(["ab", "ab", "abc"]) == [("a", "b</w>"), ("a", "b"), ("ab", "c</w>")]
    assert learn_merges(["aaa"]) == [("a", "a"), ("aa", "a</w>")]


def test_placeholder_token_is_one_token_with_its_own_embedding(scratch: StableDiffusion) -> None:
    pipe = StableDiffusionPipeline(**build_tiny().pipe.components, requires_safety_checker=False)
    vectors = torch.randn(2, pipe.text_encoder.config.hidden_size)
    pipe.load_textual_inversion({"<neg_fashion>": vectors}, token="<neg_fashion>")
    prompt = pipe.maybe_convert_prompt("<neg_fashion>", pipe.tokenizer)
    ids = pipe.tokenizer(prompt, add_special_tokens=False).input_ids
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], vectors)
    assert pipe.tokenizer("a red dress").input_ids == scratch.pipe.tokenizer("a red dress").input_ids


def test_build_is_deterministic(scratch: StableDiffusion) -> None:
    again, other = build_tiny(), build_tiny(seed=1)
    for module, same, different in zip(scratch.modules(), again.modules(), other.modules(), strict=True):
        weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (module, same, different)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


def test_three_levels_with_attention_make_shallow_sites_a_true_subset(scratch: StableDiffusion) -> None:
    sites = [site for site in attention_sites(scratch.unet) if site.kind == "self"]
    shallow = [site for site in sites if Sites(max_stride=2)(site)]
    assert {site.stride for site in sites} == {1, 2, 4}
    assert len(sites) == sum(isinstance(module, Attention) for module in scratch.unet.modules()) // 2
    assert 0 < len(shallow) < len(sites)


def test_shapes(scratch: StableDiffusion) -> None:
    latents = scratch.encode(torch.zeros(2, 3, 128, 128))
    assert latents.shape == (2, 8, 32, 32)
    assert scratch.decode(latents).shape == (2, 3, 128, 128)
    noise = scratch.predict(latents, torch.tensor(100), scratch.encode_prompts(["a photo", ""]))
    assert noise.shape == latents.shape


def test_schedule_ends_in_noise_even_for_the_mean_of_all_latents(scratch: StableDiffusion) -> None:
    """At the first timestep of 12, the mean over 32 x 32 latents of spread 1 has less signal than noise."""
    signal = scratch.schedule.signal(11 * (1000 // 12))
    assert signal < (1 - signal) / (32 * 32)


def test_vae_is_taken_from_a_folder(tmp_path: Path) -> None:
    source = build_tiny(seed=3)
    source.save_pretrained(tmp_path)
    built = build_tiny(vae=str(tmp_path))
    assert torch.equal(built.vae.decoder.conv_out.weight, source.vae.decoder.conv_out.weight)
    assert not torch.equal(built.unet.conv_out.weight, source.unet.conv_out.weight)


def test_shipped_model_loads_in_diffusers_alone() -> None:
    pipe = DiffusionPipeline.from_pretrained(ASSETS)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a photo of a red dress", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 128, 128)
    assert torch.isfinite(image).all()


def test_shipped_files_are_small_and_half_precision() -> None:
    assert folder_size(ASSETS) + folder_size(ASSETS.parent / "features") <= 16 * MEGABYTE
    assert {path.suffix for path in ASSETS.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    for weights in ASSETS.rglob("*.safetensors"):
        header = weights.read_bytes()[8 : 8 + int.from_bytes(weights.read_bytes()[:8], "little")]
        assert {entry["dtype"] for name, entry in json.loads(header).items() if name != "__metadata__"} <= {
            "F16",
            "I64",
        }


def test_shipped_architecture_is_the_one_built_here(shipped: StableDiffusion, scratch: StableDiffusion) -> None:
    for ours, theirs in zip(scratch.modules(), shipped.modules(), strict=True):
        assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert shipped.pipe.tokenizer.get_vocab() == scratch.pipe.tokenizer.get_vocab()
    for name in ("beta_end", "prediction_type"):
        assert shipped.pipe.scheduler.config[name] == scratch.pipe.scheduler.config[name]
