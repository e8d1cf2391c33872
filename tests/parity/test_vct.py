"""VCT: the released schedulers, DDIM inversion and null-text optimisation, from r2r's own parts."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from r2r.diffusion import Schedule, ddim_step
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from r2r.tasks.multi_concept_inversion import clean_latents
from r2r.tasks.null_text import NullText, NullTextOptimization
from tests.parity.conftest import Case, load_case
from tests.pipelines import random_pipeline


def schedule(prediction: str = "epsilon") -> Schedule:
    """Stable Diffusion's."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return Schedule.from_config(dict(DDIMScheduler(**betas, prediction_type=prediction).config))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_clean_latents(prediction: str) -> None:
    case = load_case("vct_schedulers")
    for time in case.hyper["ddpm_t"]:
        times = torch.full((2,), time)
        got = clean_latents(schedule(prediction), case.inputs("model_output"), case.inputs("x"), times)
        case.check(f"ddpm.{prediction}.t{time}.original", got)


def test_ddim_steps() -> None:
    case = load_case("vct_schedulers")
    x, eps = case.inputs("x"), case.inputs("model_output")
    for steps, time in case.hyper["ddim"]:
        high, low = schedule().signal(time), schedule().signal(time - 1000 // steps)
        case.check(f"ddim.T{steps}_t{time}.next", ddim_step(x, eps, low, high))
        case.check(f"ddim.T{steps}_t{time}.prev", ddim_step(x, eps, high, low))


@pytest.fixture
def translator(parity_unet: UNet2DConditionModel) -> RenderedToReal:
    """What inverts and predicts; its VAE and text encoder are not used."""
    pipe = random_pipeline()
    pipe.unet = parity_unet
    return RenderedToReal(StableDiffusion(pipe))


def run(translator: RenderedToReal, case: Case, name: str) -> tuple[Tensor, NullText]:
    """The recorded case: latents of the inversion, and what the optimisation finds."""
    settings = TranslationSettings(num_inference_steps=case.hyper["num_ddim_steps"], strength=1.0)
    prompt = TextConditioning(case.inputs("emb_empty" if name == "cond_empty" else "emb_cond"))
    inversion = translator.invert(case.inputs("z0"), prompt, settings).latents
    tolerance = case.hyper["epsilon_early" if name == "early_stop" else "epsilon"]
    optimization = NullTextOptimization(num_inner_steps=case.hyper["num_inner_steps"], tolerance=tolerance)
    empty, scale = TextConditioning(case.inputs("emb_empty")), case.hyper["guidance_scale"]
    steps = translator.steps(settings)
    return torch.cat(inversion), optimization.optimize(translator.predict_noise, inversion, steps, prompt, empty, scale)


@pytest.mark.parametrize("name", ["cond_other", "cond_empty", "early_stop"])
def test_null_text(translator: RenderedToReal, name: str) -> None:
    case = load_case("vct_nulltext")
    inversion, found = run(translator, case, name)
    case.check(f"{name}.inversion", inversion)
    case.check(f"{name}.final_latent", found.latents[-1])
    case.check(f"{name}.uncond_embeddings", torch.cat([condition.prompt_embeds for condition in found.unconditional]))
    # The released code goes on at t = 0, an identity: the same loss again and again, which is not computed here.
    constant = torch.nn.functional.mse_loss(found.latents[-1], case.inputs("z0"))
    assert found.losses[-1] == [] and torch.equal(found.latents[-1], found.latents[-2])
    losses = torch.tensor([loss for step in found.losses for loss in step])
    recorded = case.tensors[f"expected.{name}.losses"]
    assert len(recorded) - len(losses) == case.hyper["num_inner_steps"]
    case.check(f"{name}.losses", torch.cat([losses, constant.expand(case.hyper["num_inner_steps"])]))
    strict = 1e-6 if name != "cond_empty" else 1e-4  # some ten times the recorded rounding of the losses
    torch.testing.assert_close(losses, recorded[: len(losses)], rtol=10 * strict, atol=0)


def test_null_text_evaluations(translator: RenderedToReal) -> None:
    """Nothing at t = 0; else the prompt once, every inner step, and the move: in early_stop 3 and 5 inner steps."""
    case = load_case("vct_nulltext")
    steps = case.hyper["num_ddim_steps"] - 1
    _, found = run(translator, case, "early_stop")
    assert [len(losses) for losses in found.losses] == [3, 5, 0]
    assert translator.model.sample_evals == steps + 2 * steps + 8
