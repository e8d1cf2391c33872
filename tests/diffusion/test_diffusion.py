"""Schedules, steps, guidance and losses against diffusers and by hand."""

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr

from r2r.diffusion import (
    NoiseLevels,
    Schedule,
    active_timesteps,
    classifier_free_guidance,
    ddim_step,
    injected_steps,
    min_snr_weights,
    offset_noise,
    to_noise,
    training_target,
    weighted_mse,
)
from r2r.errors import InputError

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
CONFIG |= {"set_alpha_to_one": False, "steps_offset": 1, "num_train_timesteps": 1000}


def draw(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("time", [20, 280, 980])
def test_step_equals_diffusers(prediction: str, time: int) -> None:
    config = {**CONFIG, "prediction_type": prediction}
    schedule, reference = Schedule.from_config(config), DDIMScheduler(**config)
    reference.set_timesteps(50)
    latents, output = draw(0), draw(1)
    signal = schedule.signal(time)
    got = ddim_step(latents, to_noise(output, latents, signal, schedule.prediction), signal, schedule.signal(time - 20))
    torch.testing.assert_close(got, reference.step(output, time, latents).prev_sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inversion_equals_diffusers(prediction: str) -> None:
    """Diffusers names the step by where it starts, r2r by where it ends (and where the network is asked)."""
    config = {**CONFIG, "prediction_type": prediction}
    schedule, reference = Schedule.from_config(config), DDIMInverseScheduler(**config)
    reference.set_timesteps(50)
    latents, output = draw(0), draw(1)
    before, after = schedule.signal(260), schedule.signal(280)
    got = ddim_step(latents, to_noise(output, latents, before, schedule.prediction), before, after)
    torch.testing.assert_close(got, reference.step(output, 280, latents).prev_sample, rtol=1e-4, atol=1e-5)


def test_steps_undo_each_other() -> None:
    latents, noise = draw(0).double(), draw(1).double()
    there = ddim_step(latents, noise, 0.9, 0.3)
    torch.testing.assert_close(ddim_step(there, noise, 0.3, 0.9), latents)
    assert torch.allclose(ddim_step(latents, noise, 0.5, 0.5), latents)


def test_timesteps_by_hand() -> None:
    assert active_timesteps(1000, 50, 0.3) == list(range(0, 300, 20))
    assert active_timesteps(1000, 7, 0.5) == [0, 142, 284]
    assert len(active_timesteps(1000, 100, 0.29)) == 28  # a float product: 100 * 0.29 < 29
    assert active_timesteps(1000, 50, 0.0) == []
    assert injected_steps(50, 0.3, 0.9) == 13
    assert injected_steps(50, 0.29, 0.9) == 13  # int(14 * 0.9) would be 12


@pytest.mark.parametrize(("steps", "strength"), [(0, 0.3), (1001, 0.3), (50, 1.01), (50, -0.01)])
def test_timesteps_refuse_what_makes_no_sense(steps: int, strength: float) -> None:
    with pytest.raises(InputError):
        active_timesteps(1000, steps, strength)


def test_guidance_by_hand() -> None:
    negative, prompt = draw(0), draw(1)
    torch.testing.assert_close(classifier_free_guidance(negative, prompt, 1.0), prompt, rtol=1e-4, atol=1e-5)
    assert torch.equal(classifier_free_guidance(negative, prompt, 0.0), negative)
    torch.testing.assert_close(classifier_free_guidance(negative, prompt, 3.0), 3 * prompt - 2 * negative)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noising_and_targets_equal_diffusers(prediction: str) -> None:
    config = {**CONFIG, "prediction_type": prediction}
    schedule, reference = Schedule.from_config(config), DDPMScheduler.from_config(config)
    latents, noise, times = draw(0), draw(1), torch.tensor([3, 700])
    torch.testing.assert_close(schedule.add_noise(latents, noise, times), reference.add_noise(latents, noise, times))
    expected = noise if prediction == "epsilon" else reference.get_velocity(latents, noise, times)
    torch.testing.assert_close(training_target(schedule, latents, noise, times), expected)
    torch.testing.assert_close(schedule.snr(times), compute_snr(reference, times))


def test_a_perfect_network_has_no_loss_in_either_parametrisation() -> None:
    for prediction in ("epsilon", "v_prediction"):
        schedule = Schedule.from_config({**CONFIG, "prediction_type": prediction})
        latents, noise, times = draw(0), draw(1), torch.tensor([300, 300])
        target = training_target(schedule, latents, noise, times)
        noisy = schedule.add_noise(latents, noise, times)
        back = to_noise(target, noisy, schedule.signal(300), schedule.prediction)
        torch.testing.assert_close(back, noise, rtol=1e-4, atol=1e-5)
        assert weighted_mse(target, target) == 0


def test_min_snr_weights_by_hand() -> None:
    schedule = Schedule.from_config(CONFIG)
    times = torch.tensor([0, 999])
    snr = schedule.snr(times)
    assert snr[0] > 5 > snr[1]
    torch.testing.assert_close(min_snr_weights(schedule, times, 5.0), torch.stack([5 / snr[0], torch.tensor(1.0)]))


def test_weights_act_on_each_sample() -> None:
    output, target = torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 3.0])[:, None, None, None]
    assert weighted_mse(output, target) == 5.0
    assert weighted_mse(output, target, torch.tensor([1.0, 0.0])) == 0.5


def test_noise_levels_lean_where_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = NoiseLevels().sample(20_000, 1000, generator)
    leaning = NoiseLevels(lean=0.8, below=0.5).sample(20_000, 1000, generator)
    assert uniform.min() == 0 and uniform.max() == 999
    assert abs((uniform < 500).float().mean() - 0.5) < 0.02
    assert abs((leaning < 500).float().mean() - 0.9) < 0.02
    with pytest.raises(InputError, match="lean"):
        NoiseLevels(lean=1.5)


def test_unknown_predictions_are_refused() -> None:
    with pytest.raises(InputError, match="sample"):
        Schedule.from_config({**CONFIG, "prediction_type": "sample"})


def test_offset_noise_adds_one_number_for_each_channel() -> None:
    noise = torch.zeros(2, 3, 4, 5)
    shifted = offset_noise(noise, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(shifted, shifted[:, :, :1, :1].expand_as(shifted)) and shifted[:, :, 0, 0].unique().numel() == 6
    many = offset_noise(torch.randn(400, 3, 2, 2), 0.5, torch.Generator().manual_seed(0))
    assert many.var().item() == pytest.approx(1 + 0.5**2, abs=0.08)


def test_places_count_by_their_weight() -> None:
    output, target = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    output[0, :, 0, 0], output[1, :, 1, 1] = 2.0, 3.0
    even = torch.ones(2, 1, 2, 2)
    assert weighted_mse(output, target, None, even) == weighted_mse(output, target) == (4 / 4 + 9 / 4) / 2
    corner = torch.zeros(2, 1, 2, 2)
    corner[:, :, 0, 0] = 0.3
    assert weighted_mse(output, target, None, corner) == pytest.approx(4 / 2)
    assert weighted_mse(output, target, torch.tensor([0.5, 7.0]), corner) == pytest.approx(4 / 4)
