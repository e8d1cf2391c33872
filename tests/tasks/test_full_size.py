"""Stable Diffusion 1.5 at its real size, with random weights: the translator fits it."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from r2r.attention import Sites, attention_sites
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from tests.pipelines import random_pipeline


@pytest.mark.slow
def test_one_step_of_sd15() -> None:
    """One inverted and one sampled step; TAC acts on 10 of 16 self-attentions; sizes as published."""
    pipe = random_pipeline()
    pipe.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).to(torch.bfloat16).eval()
    assert sum(p.numel() for p in pipe.unet.parameters()) == 859_520_964
    selfs = [site for site in attention_sites(pipe.unet) if site.kind == "self"]
    assert (len(selfs), sum(map(Sites("self", 2), selfs))) == (16, 10)
    translator = RenderedToReal(StableDiffusion(pipe))
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 32, 24, generator=generator).bfloat16()
    prompt, negative = (TextConditioning(torch.randn(1, 77, 768, generator=generator).bfloat16()) for _ in range(2))
    settings = TranslationSettings(strength=0.04, tac_ratio=1.0, inject="both")
    out = translator.translate_latents(latents, prompt, negative, settings=settings)
    assert out.shape == latents.shape and torch.isfinite(out).all()
    assert translator.model.sample_evals == 1 + 3
