"""FashionR2R: every number of the released sampler, from r2r's own parts."""

import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from r2r.attention import (
    AttentionInputs,
    AttentionSite,
    Inject,
    Rows,
    Sites,
    TokenThreshold,
    attention_control,
    attention_sites,
)
from r2r.diffusion import Schedule, active_timesteps, ddim_step, injected_steps
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from tests.parity.conftest import Case, load_case
from tests.pipelines import random_pipeline


@pytest.fixture
def translator(parity_unet: UNet2DConditionModel) -> RenderedToReal:
    """The translator around the recorded U-Net; its VAE and text encoder are not used."""
    pipe = random_pipeline()
    pipe.unet = parity_unet
    return RenderedToReal(StableDiffusion(pipe))


def condition(case: Case, name: str) -> TextConditioning:
    return TextConditioning(case.inputs(f"emb_{name}"))


def stride_of(threshold: int) -> int:
    return math.isqrt(threshold // 64)


def run(unet: UNet2DConditionModel, sample: Tensor, time: int, embeds: Tensor) -> Tensor:
    return unet(sample, time, encoder_hidden_states=embeds).sample


def test_unet(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("fashionr2r_unet")
    for time in case.hyper["timesteps"]:
        for name in ("empty", "negative"):
            eps = run(parity_unet, case.inputs("sample"), time, case.inputs(f"emb_{name}"))
            case.check(f"eps_t{time}_{name}", eps)


def test_timesteps() -> None:
    case = load_case("fashionr2r_timesteps")
    for steps, strength in case.hyper["pairs"]:
        name = f"expected.T{steps}_strength{strength}"
        assert active_timesteps(1000, steps, strength)[::-1] == case.tensors[f"{name}.timesteps"].int().tolist()
        windows = [injected_steps(steps, strength, ratio) for ratio in case.hyper["ratios"]]
        assert windows == case.tensors[f"{name}.injected_steps"].int().tolist()


def test_layers(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("fashionr2r_layers")
    sites = [site for site in attention_sites(parity_unet) if site.kind == "self"]
    assert [site.name for site in sites] == case.meta["notes"]["self_attention_names_in_call_order"]
    for height, width in case.hyper["sizes"]:
        tokens = [math.prod(site.token_grid(height // 8, width // 8)) for site in sites]
        assert tokens == case.tensors[f"expected.image{height}x{width}.tokens"].int().tolist()
        for threshold in case.hyper["thresholds"]:
            expected = case.tensors[f"expected.image{height}x{width}.threshold{threshold}.injected"].bool().tolist()
            assert [TokenThreshold(height, width, threshold)(site) for site in sites] == expected
            if height % 64 == 0 and width % 64 == 0:
                assert [Sites("self", stride_of(threshold))(site) for site in sites] == expected


def test_single_call(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("fashionr2r_single_call")
    rows = Rows(("ref-neg", "cur-neg", "ref-empty", "cur-empty"), 1)
    sample = torch.cat([case.inputs("latents_ref"), case.inputs("latents_cur")] * 2)
    embeds = torch.cat([case.inputs("emb_negative")] * 2 + [case.inputs("emb_empty")] * 2)
    args = parity_unet, sample, case.hyper["t"], embeds
    case.check("unet.stock", run(*args))
    with attention_control(parity_unet):
        plain = run(*args)
    case.check("unet.plain", plain)
    for threshold in case.hyper["thresholds"]:
        where = TokenThreshold(case.hyper["H"], case.hyper["W"], threshold)
        route = rows.route(**{"cur-empty": "ref-empty"})
        with attention_control(parity_unet, Inject(where, route)):
            case.check(f"unet.injected_{threshold}", run(*args))


def test_attention_mask_is_a_control(parity_unet: UNet2DConditionModel) -> None:
    """The released optional mask: masked tokens cannot attend to masked tokens, in self-attention, in all rows."""
    case = load_case("fashionr2r_single_call")
    height, width = case.inputs("latents_ref").shape[2:]

    def mask_pairs(inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if site.kind == "cross":
            return inputs
        grid = torch.nn.functional.interpolate(case.inputs("mask")[None].float(), site.token_grid(height, width))
        masked = grid.flatten() < 0.5
        blocked = (masked[:, None] & masked[None])[None, None]
        bias = torch.zeros_like(blocked, dtype=torch.float32).masked_fill(blocked, -1e6)
        return inputs.with_parts({}, bias.expand(len(inputs.query), 1, -1, -1))

    sample = torch.cat([case.inputs("latents_ref"), case.inputs("latents_cur")] * 2)
    embeds = torch.cat([case.inputs("emb_negative")] * 2 + [case.inputs("emb_empty")] * 2)
    with attention_control(parity_unet, mask_pairs):
        case.check("unet.masked_plain", run(parity_unet, sample, case.hyper["t"], embeds))


def test_ddim_steps() -> None:
    case = load_case("fashionr2r_single_call")
    schedule = Schedule(case.tensors["expected.alphas_cumprod"])
    x, eps = case.inputs("ddim_x"), case.inputs("ddim_eps")
    for steps, time in case.hyper["ddim"]:
        high, low = schedule.signal(time), schedule.signal(time - 1000 // steps)
        case.check(f"ddim.T{steps}_t{time}.sample", ddim_step(x, eps, high, low))
        case.check(f"ddim.T{steps}_t{time}.sample_x0", ddim_step(x, eps, high, 1.0))
        case.check(f"ddim.T{steps}_t{time}.invert", ddim_step(x, eps, low, high))
        case.check(f"ddim.T{steps}_t{time}.invert_x0", ddim_step(x, eps, low, 1.0))


def test_schedule_is_the_recorded_one(translator: RenderedToReal) -> None:
    case = load_case("fashionr2r_single_call")
    case.check("alphas_cumprod", translator.model.schedule.alphas_cumprod)
    case.check("final_alpha_cumprod", torch.tensor(translator.model.schedule.signal(-20)))


@pytest.mark.parametrize(("order", "ours"), [("correct", "ascending"), ("released", "released")])
def test_inversion(translator: RenderedToReal, order: str, ours: str) -> None:
    case = load_case("fashionr2r_inversion")
    for strength in case.hyper["strengths"]:
        settings = TranslationSettings(num_inference_steps=case.hyper["T"], strength=strength, inversion_order=ours)
        trajectory = translator.invert(case.inputs("z0"), condition(case, "empty"), settings)
        case.check(f"strength{strength}.{order}", torch.cat(trajectory.latents))


@pytest.mark.parametrize(("order", "ours"), [("correct", "ascending"), ("released", "released")])
def test_sampling(translator: RenderedToReal, order: str, ours: str) -> None:
    case = load_case("fashionr2r_sampling")
    for strength in case.hyper["strengths"]:
        for ratio in case.hyper["ratios"]:
            settings = TranslationSettings(
                num_inference_steps=case.hyper["T"],
                strength=strength,
                tac_ratio=ratio,
                guidance_scale=case.hyper["cfg"],
                max_stride=stride_of(case.hyper["layers"]),
                inversion_order=ours,
            )
            out = translator.translate_latents(
                case.inputs("z0"), condition(case, "empty"), condition(case, "negative"), settings=settings
            )
            case.check(f"strength{strength}.{order}.ratio{ratio}.target", out)


@pytest.mark.parametrize(("order", "ours"), [("correct", "ascending"), ("released", "released")])
def test_without_negative(translator: RenderedToReal, order: str, ours: str) -> None:
    """Guidance does not cancel while TAC is on, since it acts on the conditional half only."""
    case = load_case("fashionr2r_variants")
    for ratio in case.hyper["ratios"]:
        settings = TranslationSettings(
            num_inference_steps=case.hyper["T"],
            strength=case.hyper["strengths"][0],
            tac_ratio=ratio,
            guidance_scale=case.hyper["cfg"],
            inversion_order=ours,
        )
        empty = condition(case, "empty")
        out = translator.translate_latents(case.inputs("z0"), empty, empty, settings=settings)
        case.check(f"no_negative.{order}.ratio{ratio}.target", out)


def test_thresholds_and_noise_start(translator: RenderedToReal) -> None:
    case = load_case("fashionr2r_variants")
    shared = {
        "num_inference_steps": case.hyper["T"],
        "strength": case.hyper["strengths"][0],
        "tac_ratio": 0.9,
        "guidance_scale": case.hyper["cfg"],
    }
    conditions = condition(case, "empty"), condition(case, "negative")
    for threshold in case.hyper["thresholds"]:
        settings = TranslationSettings(**shared, max_stride=stride_of(threshold))
        out = translator.translate_latents(case.inputs("z0"), *conditions, settings=settings)
        case.check(f"threshold.correct.layers{threshold}.ratio0.9.target", out)
    settings = TranslationSettings(**shared, start="noise", max_stride=stride_of(case.hyper["layers"]))
    noise = case.inputs("noise_start")[1:2]
    out = translator.translate_latents(case.inputs("z0"), *conditions, noise=noise, settings=settings)
    case.check("noise_start.correct.ratio0.9.target", out)
