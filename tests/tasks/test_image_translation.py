"""The translator: how much U-Net work it does, what it leaves unchanged, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import r2r
from r2r.attention import Rows, attention_sites
from r2r.diffusion import Schedule
from r2r.errors import InputError
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from r2r.types import Latents
from tests.pipelines import random_pipeline


class RowCounter:
    """Counts rows of every call at the U-Net itself."""

    def __init__(self, unet: nn.Module) -> None:
        self.rows: list[int] = []
        unet.register_forward_pre_hook(lambda module, args: self.rows.append(len(args[0])))


@pytest.fixture
def pipe() -> RenderedToReal:
    """A translator around a random SD 1.x pipeline."""
    return RenderedToReal(StableDiffusion(random_pipeline()), "render")


def latents_of(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def conditions(pipe: RenderedToReal) -> tuple[TextConditioning, TextConditioning]:
    return pipe.model.encode_prompts([""]), pipe.model.encode_prompts(["render"])


def picture(seed: int = 0, size: tuple[int, int] = (32, 24)) -> Image.Image:
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.byte().numpy())


@pytest.mark.parametrize("count", [1, 3])
def test_evaluations_at_the_defaults(pipe: RenderedToReal, count: int) -> None:
    """15 nominal steps, of which the one at t = 0 is an identity: 14 inversions, 14 pairs, 12 source rows."""
    counter = RowCounter(pipe.unet)
    pipe([picture(index) for index in range(count)])
    assert sum(counter.rows) == 54 * count <= 60 * count
    assert sum(counter.rows) == pipe.model.sample_evals
    assert len(counter.rows) == 14 + 14  # calls, however many images


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({"source": "recorded"}, 14 + 14 * 2),
        ({"tac_ratio": 0.0}, 14 + 14 * 2),
        ({"tac_ratio": 1.0}, 14 + 14 * 2 + 13),
        ({"guidance_scale": 1.0}, 14 + 14 + 12),
        ({"inject": "both"}, 14 + 14 * 2 + 13),
        ({"start": "noise"}, 14 + 14 * 2 + 13),
        ({"start": "noise", "tac_ratio": 0.0}, 14 * 2),
        ({"strength": 0.0}, 0),
        ({"inversion_iterations": 3}, 14 * 3 + 14 * 2 + 12),
        ({"num_inference_steps": 20, "strength": 0.5}, 9 + 9 * 2 + 8),
    ],
)
def test_evaluations_follow_the_formula(pipe: RenderedToReal, settings: dict[str, object], evaluations: int) -> None:
    counter = RowCounter(pipe.unet)
    pipe(picture(), **settings)
    assert sum(counter.rows) == evaluations


def test_strength_zero_returns_the_latents(pipe: RenderedToReal) -> None:
    latents = latents_of()
    out = pipe.translate_latents(latents, *conditions(pipe), settings=TranslationSettings(strength=0.0))
    assert torch.equal(out, latents)


def test_there_and_back_again(pipe: RenderedToReal) -> None:
    """Without guidance and injection, sampling undoes the inversion up to its discretisation error."""
    latents = latents_of()
    condition = pipe.model.encode_prompts([""])

    def error(steps: int) -> float:
        settings = TranslationSettings(num_inference_steps=steps, strength=0.3, guidance_scale=1.0, tac_ratio=0.0)
        out = pipe.translate_latents(latents, condition, condition, settings=settings)
        return float((out - latents).norm() / latents.norm())

    assert error(100) < 0.02
    assert error(100) < error(20)  # it shrinks with the step size


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_iterated_inversion_is_undone_exactly(prediction: str) -> None:
    """Each inverted step becomes the mirror of the sampled one: five coarse steps lead back to the latents."""
    pipe = RenderedToReal(StableDiffusion(random_pipeline(prediction_type=prediction)))
    condition = pipe.model.encode_prompts([""])

    def error(iterations: int) -> float:
        given: dict[str, Any] = {"guidance_scale": 1.0, "tac_ratio": 0.0, "inversion_iterations": iterations}
        settings = TranslationSettings(num_inference_steps=10, strength=0.5, **given)
        out = pipe.translate_latents(latents_of(), condition, condition, settings=settings)
        return float((out - latents_of()).norm() / latents_of().norm())

    assert error(12) < 1e-4 < error(1)
    assert error(3) < 0.3 * error(1)


def test_batched_rows_equal_separate_calls(pipe: RenderedToReal) -> None:
    """Images in one batch, and alone: the same numbers."""
    latents, settings = latents_of(3), TranslationSettings(num_inference_steps=20)
    together = pipe.translate_latents(latents, *conditions(pipe), settings=settings)
    alone = [pipe.translate_latents(x[None], *conditions(pipe), settings=settings) for x in latents]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_tac_changes_the_result_and_recording_comes_close(pipe: RenderedToReal) -> None:
    """Recorded queries and keys are approximate: nearer to the exact injection than no injection is."""
    results = {
        name: pipe.translate_latents(latents_of(), *conditions(pipe), settings=TranslationSettings(**settings))
        for name, settings in {
            "exact": {},
            "recorded": {"source": "recorded"},
            "none": {"tac_ratio": 0.0},
            "both": {"inject": "both"},
        }.items()
    }
    distance = {name: float((x - results["exact"]).norm()) for name, x in results.items()}
    assert 0 < distance["recorded"] < distance["none"]
    assert distance["both"] > 0


def test_the_unet_is_left_as_it_was(pipe: RenderedToReal) -> None:
    before = dict(pipe.unet.attn_processors)
    pipe(picture())
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in before.items())


def test_sizes_come_back(pipe: RenderedToReal) -> None:
    """Sides that the U-Net cannot divide are resized to what it can, and back."""
    images = [picture(0, (37, 51)), picture(1, (32, 24)), picture(2, (32, 24))]
    results = pipe(images, num_inference_steps=10)
    assert [image.size for image in results] == [image.size for image in images]


def test_same_seed_same_pixels(pipe: RenderedToReal) -> None:
    one, again, other = (
        pipe(picture(), start="noise", num_inference_steps=10, seed=seed)[0].tobytes() for seed in (1, 1, 2)
    )
    assert one == again != other


def test_v_prediction_inverts_and_samples() -> None:
    pipe = RenderedToReal(StableDiffusion(random_pipeline(prediction_type="v_prediction")))
    assert pipe.model.schedule.prediction == "v_prediction"
    condition = pipe.model.encode_prompts([""])
    settings = TranslationSettings(num_inference_steps=100, guidance_scale=1.0, tac_ratio=0.0)
    out = pipe.translate_latents(latents_of(), condition, condition, settings=settings)
    torch.testing.assert_close(out, latents_of(), rtol=0.05, atol=0.05)


def test_what_a_model_predicts_does_not_change_its_inversion() -> None:
    """One denoiser, told as noise and told as v: the same way up and down in 12 coarse steps."""
    paths: list[list[torch.Tensor]] = []
    for prediction in ("epsilon", "v_prediction"):
        pipe = RenderedToReal(StableDiffusion(random_pipeline(prediction_type=prediction)))
        schedule = pipe.model.schedule

        def predict(x: torch.Tensor, time: torch.Tensor, condition: object, schedule: Schedule = schedule) -> Latents:
            signal = schedule.signal(int(time))
            noise = (1 - signal) ** 0.5 * x / (0.5 * signal + 1 - signal)  # exact for latents of variance 0.5
            return noise if schedule.prediction == "epsilon" else (noise - (1 - signal) ** 0.5 * x) / signal**0.5

        pipe.model.predict = predict
        settings = TranslationSettings(num_inference_steps=12, strength=1.0, guidance_scale=1.0, tac_ratio=0.0)
        condition = pipe.model.encode_prompts([""])
        inverted = pipe.invert(latents_of(), condition, settings).latents
        paths.append([*inverted, pipe.translate_latents(latents_of(), condition, condition, settings=settings)])
    for eps, v in zip(*paths, strict=True):
        torch.testing.assert_close(v, eps, rtol=1e-4, atol=1e-4)


def test_from_pretrained_with_sdxl(sdxl_folder: Path) -> None:
    pipe = r2r.RenderedToReal.from_pretrained(str(sdxl_folder), device="cpu")
    counter = RowCounter(pipe.unet)
    (result,) = pipe([picture()], negative_prompt="render")
    assert result.size == (32, 24) and sum(counter.rows) == 54
    shallow = {site.stride for site in attention_sites(pipe.unet) if site.stride <= 2}
    assert shallow == {1, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.5}, "strength=1.5"),
        ({"strength": -0.1}, "strength=-0.1"),
        ({"tac_ratio": 2.0}, "tac_ratio=2"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"inversion_iterations": 0}, "inversion_iterations=0"),
        ({"num_inference_steps": 5000}, "num_inference_steps=5000"),
        ({"inject": "none"}, "inject='none'"),
        ({"source": "file"}, "source='file'"),
    ],
)
def test_wrong_settings_are_named(pipe: RenderedToReal, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipe(picture(), **settings)


def test_row_layout_by_hand() -> None:
    rows = Rows(("negative", "prompt", "source"), 4)
    assert rows["source"] == slice(8, 12)


@pytest.mark.e2e
def test_compiled_translation_sees_two_graphs() -> None:
    """Inject on and off, whatever the step; recording adds its first call and the calls after it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.count_graphs"], capture_output=True, text=True, env=environment, check=True
    )
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["row"][0] <= 2
    assert counts["recorded"][0] <= 4
    assert all(first == second for first, second in counts.values())  # nothing is compiled again
