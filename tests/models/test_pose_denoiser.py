"""SourceNet, TargetNet, parsing-guided fusion and crops: identities, what trains, and how often a source is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from r2r.errors import InputError
from r2r.models.image_encoder import ImageEncoder
from r2r.models.parsing_fusion import ParsingFusion
from r2r.models.pose_denoiser import EXPORTS, PoseDenoiser
from r2r.models.pose_encoder import PoseEncoder, pose_maps
from r2r.models.region_crops import region_crop
from r2r.models.stable_diffusion import StableDiffusion
from r2r.parsing import REGIONS
from r2r.pose import OPENPOSE_18, draw_skeleton
from r2r.tasks import PoseSampler
from tests.pipelines import random_pipeline

PROMPT = {"num_tokens": 4, "width": 32, "depth": 1, "head_width": 16}
SIZE = (32, 24)  # height and width of the images: not square
LATENT = (16, 12)


@pytest.fixture
def model() -> StableDiffusion:
    return StableDiffusion(random_pipeline())


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder.from_pretrained("tiny")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sources(seed: int = 0) -> Tensor:
    return random(2, 3, *SIZE, seed=seed).clamp(-1, 1)


def parsing() -> Tensor:
    """Face above, clothes below, background at the sides; the second person shows no face."""
    found = torch.zeros(2, 1, *SIZE, dtype=torch.uint8)
    found[0, :, 2:8, 8:16] = REGIONS.index("face")
    found[:, :, 10:20, 4:20] = REGIONS.index("upper")
    found[:, :, 20:30, 6:18] = REGIONS.index("lower")
    return found


def poses() -> Tensor:
    found = torch.rand(2, 18, 3, generator=torch.Generator().manual_seed(5)) * torch.tensor([24.0, 32.0, 0.0])
    found[..., 2] = 2
    return found


def noisy(rows: int = 2) -> Tensor:
    return random(2, 4, *LATENT, seed=7).repeat(rows // 2, 1, 1, 1)


def predict(
    denoiser: PoseDenoiser, *, seen_as: Tensor | None = None, visible: Tensor | None = None, **which: Any
) -> Tensor:
    condition = denoiser.model.encode_prompts(["man"] * 2)
    seen = denoiser.look(sources(), parsing() if seen_as is None else seen_as, condition, visible=visible)
    return denoiser.predict(noisy(), torch.tensor(500), condition, seen, denoiser.pose(poses(), SIZE), **which)


def plain(model: StableDiffusion) -> Tensor:
    return model.predict(noisy(), torch.tensor(500), model.encode_prompts(["man"] * 2))


def stirred(denoiser: PoseDenoiser) -> PoseDenoiser:
    """As after training: nothing is at zero any more."""
    for number, parameter in enumerate(denoiser.parameters()):
        parameter.data += 0.02 * random(*parameter.shape, seed=number)
    return denoiser


NO = torch.zeros(2, dtype=torch.bool)


@pytest.mark.parametrize("share", [False, True])
def test_untrained_it_is_plain_fusion_and_without_source_the_plain_unet(
    share: bool, model: StableDiffusion, encoder: ImageEncoder
) -> None:
    before = plain(model)
    denoiser = PoseDenoiser(model, encoder, PROMPT, share_weights=share)
    whole = predict(denoiser)
    assert not torch.allclose(whole, before, atol=1e-3)
    torch.testing.assert_close(predict(denoiser, looking=NO), before, atol=1e-5, rtol=1e-4)
    bare = PoseDenoiser(StableDiffusion(random_pipeline()), use_parsing=False, share_weights=share)
    torch.testing.assert_close(predict(bare), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [False, True])
def test_a_trained_one_without_source_is_the_pose_conditioned_unet(
    share: bool, model: StableDiffusion, encoder: ImageEncoder
) -> None:
    denoiser = stirred(PoseDenoiser(model, encoder, PROMPT, share_weights=share))
    condition = model.encode_prompts(["man"] * 2)
    denoiser.fuse.enabled = False
    alone = plain(model)
    posed = model.predict(noisy(), torch.tensor(500), condition, denoiser.pose(poses(), SIZE))
    denoiser.fuse.enabled = True
    assert not torch.allclose(alone, posed, atol=1e-3)
    torch.testing.assert_close(predict(denoiser, looking=NO), posed, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(predict(denoiser, looking=NO, posed=NO), alone, atol=1e-5, rtol=1e-4)
    nothing = torch.zeros(2, len(REGIONS), dtype=torch.bool)
    torch.testing.assert_close(predict(denoiser, visible=nothing), posed, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predict(denoiser), posed, atol=1e-3)


def test_rows_see_what_they_are_to_see(model: StableDiffusion, encoder: ImageEncoder) -> None:
    """Three groups in one call are three calls; the source is looked at once for all of them."""
    denoiser, condition = stirred(PoseDenoiser(model, encoder, PROMPT)), model.encode_prompts(["man"] * 2)
    seen, residuals = denoiser.look(sources(), parsing(), condition), denoiser.pose(poses(), SIZE)
    branches = [(False, False), (False, True), (True, True)]
    looking, posed = (torch.tensor([b[i] for b in branches]).repeat_interleave(2) for i in (0, 1))
    time = torch.tensor(500)
    together = denoiser.predict(noisy(6), time, condition.select([0, 1] * 3), seen, residuals, looking, posed).split(2)
    for number, (look, pose) in enumerate(branches):
        which = [torch.full((2,), each) for each in (look, pose)]
        alone = denoiser.predict(noisy(), time, condition, seen, residuals, *which)
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-4)
    assert denoiser.source.sample_evals == 2 and model.sample_evals == 6 + 3 * 2


@pytest.mark.parametrize("size", [(32, 24), (24, 40), (40, 24)])
def test_biases_act_on_the_tokens_of_their_region(size: tuple[int, int], model: StableDiffusion) -> None:
    """At every level, also of sizes that a stride does not divide."""
    denoiser = PoseDenoiser(model)
    denoiser.requires_grad_(False)
    shown = torch.zeros(1, 1, *size, dtype=torch.uint8)
    shown[:, :, : size[0] // 2, : size[1] // 2] = REGIONS.index("hair")
    latent = size[0] // 2, size[1] // 2
    denoiser.fusion.look(shown, latent)
    for number, site in enumerate(denoiser.source.sites):
        denoiser.fusion.bias[site.name.replace(".", "-")].data[REGIONS.index("hair")] = 0.5 + number
        rows, columns = site.token_grid(*latent)
        bias = denoiser.fusion(site, rows * columns)[0, 0, 0].unflatten(0, (rows, columns))
        share = torch.nn.functional.adaptive_avg_pool2d((shown > 0).float(), (rows, columns))[0, 0]
        torch.testing.assert_close(bias, (1 - share + share * np.exp(0.5 + number)).log())
        assert bias[0, 0] == pytest.approx(0.5 + number) and bias[-1, -1].abs() < 1e-6
    bank = denoiser.source(random(1, 4, *latent), **model.told(random(1, 4, *latent), model.encode_prompts(["man"])))
    for site in denoiser.source.sites:
        assert bank[site.name].part("key").shape[2] == np.prod(site.token_grid(*latent))


def test_a_hidden_region_is_one_whose_pixels_do_not_matter() -> None:
    """Behind a log-bias of -inf; at the level of single pixels no token shows two regions."""
    model = StableDiffusion(random_pipeline())
    denoiser = PoseDenoiser(model)
    site = denoiser.source.sites[0]
    grid = site.token_grid(*LATENT)
    visible = torch.ones(2, len(REGIONS), dtype=torch.bool)
    visible[:, REGIONS.index("upper")] = False
    denoiser.fusion.look(parsing(), LATENT, visible)
    bias = denoiser.fusion(site, grid[0] * grid[1])[:, 0, 0].unflatten(1, grid)
    hidden = torch.nn.functional.adaptive_avg_pool2d((parsing() == REGIONS.index("upper")).float(), grid)[:, 0] == 1
    assert hidden.any() and (bias[hidden] == -torch.inf).all() and bias[~hidden].isfinite().all()


def test_order_of_source_tokens_does_not_matter(model: StableDiffusion) -> None:
    denoiser = stirred(PoseDenoiser(model))
    condition = model.encode_prompts(["man"] * 2)
    seen, time = denoiser.look(sources(), parsing(), condition), torch.tensor(500)
    residuals = denoiser.pose(poses(), SIZE)
    before = denoiser.predict(noisy(), time, condition, seen, residuals)
    from r2r.attention import AttentionInputs, KeyValue

    bank = denoiser.source.bank
    for site in denoiser.source.sites:
        grid = site.token_grid(*LATENT)
        order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(1))
        key, value = (bank[site.name].part(part)[:, :, order] for part in ("key", "value"))
        bank[site.name] = AttentionInputs(bank[site.name].query, (KeyValue(key, value),))
    denoiser.fusion.shares = {
        grid: shares[:, :, torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(1))]
        for grid, shares in denoiser.fusion.shares.items()
    }
    after = denoiser.predict(noisy(), time, condition, seen, residuals)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_two_sources_are_seen_by_their_regions(model: StableDiffusion, encoder: ImageEncoder) -> None:
    """The same source twice, half of the regions of each, is the source once; one that hides all adds nothing."""
    denoiser, condition = stirred(PoseDenoiser(model, encoder, PROMPT)), model.encode_prompts(["man"] * 2)
    residuals = denoiser.pose(poses(), SIZE)

    def drawn(second: Tensor, visible: Tensor) -> Tensor:
        both = torch.cat([sources(), second])
        seen = denoiser.look(both, parsing().repeat(2, 1, 1, 1), condition, visible=visible)
        return denoiser.predict(noisy(), torch.tensor(500), condition, seen, residuals)

    once = predict(denoiser)
    half = torch.zeros(4, len(REGIONS), dtype=torch.bool)
    half[:2, :4], half[2:, 4:] = True, True  # of persons, faces and tops | trousers
    clothes = half.clone()
    clothes[:2] = True
    clothes[2:] = False
    torch.testing.assert_close(drawn(sources(3), clothes), once, atol=1e-5, rtol=1e-4)
    denoiser.prompts = None  # crops are whole; keys are what is shared out
    once = predict(denoiser)
    torch.testing.assert_close(drawn(sources(), half), once, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(drawn(sources(3), half), once, atol=1e-3)


def test_gradients_reach_what_trains_alone(model: StableDiffusion, encoder: ImageEncoder) -> None:
    denoiser = stirred(PoseDenoiser(model, encoder, PROMPT, align=True)).requires_grad_(True)
    condition = model.encode_prompts(["man"] * 2)
    seen = denoiser.look(sources(), parsing(), condition)
    out = denoiser.predict(noisy(), torch.tensor(500), condition, seen, denoiser.pose(poses(), SIZE))
    (out.square().mean() + seen.misalignment).backward()
    assert [name for name, p in denoiser.named_parameters() if p.grad is None] == []
    assert 0 < seen.misalignment < 2
    frozen = [*model.vae.parameters(), *model.text_encoders[0].parameters(), *encoder.parameters()]
    assert not any(p.requires_grad for p in frozen)
    assert not {id(p) for p in denoiser.parameters()} & {id(p) for p in frozen}
    biases = [p.grad for p in denoiser.fusion.parameters()]
    assert all(grad[REGIONS.index("upper")] != 0 and grad[REGIONS.index("shoes")] == 0 for grad in biases)


def test_a_mask_of_biases_survives_checkpointing(model: StableDiffusion) -> None:
    denoiser, found = stirred(PoseDenoiser(model)).requires_grad_(True).train(), []
    for checkpointing in (False, True):
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
            denoiser.source.unet.enable_gradient_checkpointing()
        denoiser.zero_grad()
        predict(denoiser).square().mean().backward()
        found.append({name: p.grad.clone() for name, p in denoiser.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("share", [False, True])
def test_an_export_brings_everything_back(
    share: bool, model: StableDiffusion, encoder: ImageEncoder, tmp_path: Path
) -> None:
    denoiser = stirred(PoseDenoiser(model, encoder, PROMPT, share_weights=share).requires_grad_(True))
    denoiser.save(tmp_path)
    other = PoseDenoiser(StableDiffusion(random_pipeline()), encoder, PROMPT, share_weights=share)
    other.load(tmp_path)
    torch.testing.assert_close(predict(other), predict(denoiser))
    with pytest.raises(InputError, match="parts="):
        PoseDenoiser(StableDiffusion(random_pipeline())).load(tmp_path)
    with pytest.raises(InputError, match="no export of truepose"):
        other.load(tmp_path / "nothing")


def test_settings_that_do_not_fit_are_refused(model: StableDiffusion, encoder: ImageEncoder) -> None:
    with pytest.raises(InputError, match=r"crops=\['hat'\]"):
        PoseDenoiser(model, encoder, PROMPT, crops=["hat"])
    with pytest.raises(InputError, match="alignment_weight"):
        PoseDenoiser(model, align=True)
    with pytest.raises(InputError, match="no self-attention"):
        PoseDenoiser(model, min_stride=16)
    denoiser = PoseDenoiser(model)
    with pytest.raises(InputError, match="parsing of the source is missing"):
        denoiser.look(sources(), None, model.encode_prompts(["man"] * 2))
    told = PoseDenoiser(StableDiffusion(random_pipeline()), encoder, PROMPT, use_parsing=False)
    assert told.look(sources(), None, model.encode_prompts(["man"] * 2)).tokens["picture"].shape[0] == 2


def test_sdxl_takes_poses_and_sources(encoder: ImageEncoder) -> None:
    denoiser = stirred(PoseDenoiser(StableDiffusion(random_pipeline(xl=True)), encoder, PROMPT))
    assert not torch.allclose(predict(denoiser), predict(denoiser, looking=NO), atol=1e-4)


def test_maps_are_the_drawn_skeleton_and_a_peak_for_each_keypoint() -> None:
    pose = torch.zeros(1, 18, 3)
    places = {"neck": (20, 10), "right_shoulder": (8, 12), "left_shoulder": (32, 12), "nose": (20, 4)}
    for name, place in places.items():
        pose[0, OPENPOSE_18.index(name)] = torch.tensor([*place, 1.0])
    maps = pose_maps(pose, (48, 40))
    assert maps.shape == (1, 21, 48, 40) and maps.min() >= 0 and maps.max() <= 1
    drawn = draw_skeleton(pose[0].numpy(), 40, 48, thickness=2.0)
    core = torch.from_numpy(drawn.any(2))
    assert (maps[0, :3].amax(0)[core] > 0.4).all() and (maps[0, :3].amax(0) > 0.9).sum() > 20
    colours = torch.from_numpy(drawn / 255).float().movedim(2, 0)
    solid = (maps[0, :3].amax(0) > 0.99) & core
    assert (maps[0, :3] - colours).abs().amax(0)[solid].mean() < 0.02
    for number, name in enumerate(OPENPOSE_18):
        heat = maps[0, 3 + number]
        if name not in places:
            assert heat.max() == 0
            continue
        row, column = divmod(int(heat.argmax()), 40)
        assert abs(column + 0.5 - places[name][0]) <= 0.5 and abs(row + 0.5 - places[name][1]) <= 0.5


def test_poses_are_added_at_every_level_of_any_size(model: StableDiffusion) -> None:
    encoder = PoseEncoder(model.unet, model.vae_factor)
    residuals = encoder(poses(), (40, 24))
    assert [tuple(each.shape[1:]) for each in residuals] == [(32, 20, 12), (64, 10, 6), (64, 5, 3)]
    assert all(each.abs().max() == 0 for each in residuals)
    latents, condition = random(2, 4, 20, 12), model.encode_prompts(["man"] * 2)
    before = model.predict(latents, torch.tensor(500), condition)
    for level in range(3):
        told = [each + (number == level) for number, each in enumerate(residuals)]
        assert not torch.allclose(model.predict(latents, torch.tensor(500), condition, told), before, atol=1e-4), level


def test_crops_show_their_regions_alone() -> None:
    pictures, regions = torch.ones(2, 3, *SIZE), parsing()
    pictures[:, :, 10:20, 4:20] = -1.0
    clothes, shown = region_crop(pictures, regions, "clothes", 24)
    assert shown.tolist() == [True, True] and clothes.shape == (2, 3, 24, 24)
    column = clothes[0, 0, :, 12]
    assert column[3] < -0.99 and column[-4] > 0.99 and column[0].abs() < 0.6  # upper, then lower, then grey
    face, shown = region_crop(pictures, regions, "face", 24)
    assert shown.tolist() == [True, False] and face[0, :, 6:18, 8:16].min() > 0.99 and face[1].abs().max() == 0
    whole, shown = region_crop(pictures, None, "picture", 24)
    assert shown.all() and whole is pictures


def test_regions_count_alike_without_biases(model: StableDiffusion) -> None:
    fusion = ParsingFusion(PoseDenoiser(model).source.sites, learned=False)
    fusion.look(parsing(), LATENT)
    assert not fusion.shares and fusion(fusion.sites[0], 192) is None and not list(fusion.parameters())


def test_what_ships_is_small_and_loads() -> None:
    assert sum(path.stat().st_size for path in EXPORTS["tiny"].iterdir()) < 16e6
    denoiser = PoseSampler.from_pretrained("tiny").denoiser
    assert denoiser.parts == ["unet", "pose", "source", "embedding", "fusion", "prompts"]
    assert denoiser.fusion is not None
    assert all(parameter.abs().max() > 0 for parameter in denoiser.fusion.parameters())
