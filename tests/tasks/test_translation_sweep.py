"""A shared sweep: equal to its cells one by one, and exactly as much U-Net work as the formula allows."""

from itertools import product

import pytest
import torch
from PIL import Image
from torch import nn

from r2r.errors import InputError
from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from r2r.tasks.translation_sweep import SweepPlan, sweep_latents
from tests.pipelines import random_pipeline

FIVE = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.25, 0.5, 0.75, 1.0])
NINE_BY_ELEVEN = ([round(0.1 * i, 1) for i in range(1, 10)], [round(0.1 * i, 1) for i in range(11)])


@pytest.fixture
def pipe() -> RenderedToReal:
    return RenderedToReal(StableDiffusion(random_pipeline()), "render")


@pytest.fixture
def precise() -> RenderedToReal:
    """The same in float64: what differs is a mistake, not rounding."""
    pipe = RenderedToReal(StableDiffusion(random_pipeline()), "render")
    for module in pipe.model.modules():
        module.double()
    return pipe


def picture(seed: int, size: tuple[int, int] = (32, 24)) -> Image.Image:
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.byte().numpy())


def count_rows(unet: nn.Module) -> list[int]:
    rows: list[int] = []
    unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    return rows


def formula(strengths: list[float], ratios: list[float], total: int = 50) -> int:
    """Shared inversion, shared source row, tree over ratios: 2 n_max + 2 sum_i steps_i, with nothing left out."""
    evaluations = 2 * max(int(total * s) for s in strengths)
    for strength in strengths:
        ends = {int(total * strength * ratio) for ratio in ratios}
        evaluations += 2 * (max(ends) + sum(int(total * strength) - end for end in ends))
    return evaluations


def identities(strengths: list[float], ratios: list[float], total: int = 50) -> int:
    """What the formula counts although it changes nothing: the step at t = 0, and the first injection."""
    longest, spared = max(int(total * s) for s in strengths), 0
    for strength in strengths:
        steps = int(total * strength)
        ends = {int(total * strength * ratio) for ratio in ratios}
        useful = {max(1, min(end, steps - 1)) for end in ends}
        spared += 2 * (max(ends) + sum(steps - end for end in ends))
        spared -= 2 * (max(useful) + sum(steps - 1 - end for end in useful))
    injecting = {
        int(total * s) - 1 - index
        for s in strengths
        for index in range(1, min(int(total * s * max(ratios)), int(total * s) - 1))
    }
    return spared + 1 + longest - len(injecting)


@pytest.mark.parametrize(
    ("grid", "shared", "done", "released"), [(FIVE, 586, 517, 2250), (NINE_BY_ELEVEN, 3010, 2753, 14850)]
)
def test_evaluations_of_a_grid(
    pipe: RenderedToReal, grid: tuple[list[float], list[float]], shared: int, done: int, released: int
) -> None:
    """586 for 5 x 5 with every step of the formula, 517 at the U-Net once its identities are left out."""
    strengths, ratios = grid
    assert formula(strengths, ratios) == shared
    assert 6 * len(ratios) * sum(int(50 * s) for s in strengths) == released
    rows = count_rows(pipe.unet)
    pipe.sweep(picture(0, (8, 8)), strengths=strengths, tac_ratios=ratios, max_rows=256)
    assert sum(rows) == done == shared - identities(strengths, ratios)
    assert pipe.model.sample_evals == done
    assert len(rows) == 2 * (int(50 * max(strengths)) - 1)  # one call for each timestep, up and down


def test_work_grows_with_the_images_alone(pipe: RenderedToReal) -> None:
    rows = count_rows(pipe.unet)
    pipe.sweep([picture(i) for i in range(3)], strengths=FIVE[0], tac_ratios=FIVE[1])
    assert sum(rows) == 3 * 517
    assert max(rows) <= 64


@pytest.mark.parametrize("max_rows", [1, 7, 64])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inject": "both"},
        {"start": "noise"},
        {"source": "recorded"},
        {"guidance_scale": 1.0},
        {"max_stride": 1, "inject": "both", "start": "noise", "source": "recorded"},
    ],
    ids=str,
)
def test_cells_equal_single_runs(precise: RenderedToReal, settings: dict[str, object], max_rows: int) -> None:
    """Every cell, alone: the same latents, whatever fits into a call."""
    strengths, ratios = [0.0, 0.1, 0.35, 0.5], [0.0, 0.05, 0.5, 0.9, 1.0]
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator, dtype=torch.float64)
    empty, render = precise.model.encode_prompts([""]), precise.model.encode_prompts(["render"])
    options = TranslationSettings(num_inference_steps=20, **settings)
    plan = SweepPlan.of(strengths, ratios, options)
    out = sweep_latents(precise, plan, latents, empty, render, empty, noise=noise, max_rows=max_rows)
    for strength, ratio in product(strengths, ratios):
        cell = TranslationSettings(**{**vars(options), "strength": strength, "tac_ratio": ratio})
        alone = precise.translate_latents(latents, empty, render, noise=noise, settings=cell)
        torch.testing.assert_close(out[plan.paths[strength, ratio]], alone, rtol=1e-9, atol=1e-9)


def test_another_source_prompt_injects_from_the_first_step(precise: RenderedToReal) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    told = [precise.model.encode_prompts([text]) for text in ("photo", "render", "a render")]
    plan = SweepPlan.of([0.3], [0.5, 1.0], TranslationSettings(num_inference_steps=20), source_is_prompt=False)
    out = sweep_latents(precise, plan, latents, *told, noise=latents)
    for ratio in (0.5, 1.0):
        settings = TranslationSettings(num_inference_steps=20, strength=0.3, tac_ratio=ratio)
        alone = precise.translate_latents(latents, *told, settings=settings)
        torch.testing.assert_close(out[plan.paths[0.3, ratio]], alone, rtol=1e-9, atol=1e-9)


def test_pictures_by_cell_equal_calls(pipe: RenderedToReal) -> None:
    """In float32 the same pixels to the last grey level, in the size of each image."""
    images = [picture(0), picture(1, (24, 32)), picture(2, (24, 32))]
    swept = pipe.sweep(images, strengths=[0.2, 0.4], tac_ratios=[0.0, 0.9], seed=3, num_inference_steps=20)
    assert set(swept) == set(product([0.2, 0.4], [0.0, 0.9]))
    for strength, ratio in [(0.2, 0.9), (0.4, 0.0), (0.4, 0.9)]:
        alone = pipe(images, strength=strength, tac_ratio=ratio, seed=3, num_inference_steps=20)
        for one, other in zip(swept[strength, ratio], alone, strict=True):
            pixels = [torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).int() for image in (one, other)]
            assert one.size == other.size and (pixels[0] - pixels[1]).abs().max() <= 1


def test_float32_latents_agree_to_1e_5(pipe: RenderedToReal) -> None:
    """At the defaults of 50 steps, three cells."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    empty, render = pipe.model.encode_prompts([""]), pipe.model.encode_prompts(["render"])
    plan = SweepPlan.of(*FIVE, TranslationSettings())
    out = sweep_latents(pipe, plan, latents, empty, render, empty, noise=latents)
    for strength, ratio in [(0.1, 0.75), (0.3, 0.5), (0.5, 1.0)]:
        alone = pipe.translate_latents(
            latents, empty, render, settings=TranslationSettings(strength=strength, tac_ratio=ratio)
        )
        torch.testing.assert_close(out[plan.paths[strength, ratio]], alone, rtol=1e-5, atol=1e-5)


def test_the_unet_is_left_as_it_was(pipe: RenderedToReal) -> None:
    before = dict(pipe.unet.attn_processors)
    pipe.sweep(picture(0), strengths=[0.2], tac_ratios=[0.5], num_inference_steps=10)
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in before.items())


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        (([], [0.5]), {}, "at least one"),
        (([0.1, 1.2], [0.5]), {}, "strength=1.2"),
        (([0.1], [-0.5]), {}, "tac_ratio=-0.5"),
        (([0.1], [0.5]), {"inversion_order": "released"}, "ascending"),
    ],
)
def test_wrong_grids_are_named(
    axes: tuple[list[float], list[float]], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SweepPlan.of(*axes, TranslationSettings(**settings))
