"""The autoencoder task: its loss, and that training lowers it."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers.optimization import get_constant_schedule

from r2r.models.tiny import build_tiny
from r2r.tasks.autoencoder import Autoencoder, kl_to_normal, random_crop, reconstruction_loss


@pytest.fixture
def task() -> Autoencoder:
    task = Autoencoder(build_tiny(), partial(torch.optim.AdamW, lr=1e-3), get_constant_schedule, crop=32)
    task._trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=0), global_rank=0)  # type: ignore[assignment]
    task.log = task.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return task


def batch(count: int = 2) -> dict:
    stripes = (torch.arange(64) % 2 * 1.6 - 0.8).expand(count, 3, 64, 64)  # finer than a block: not in the start codec
    return {
        "image": stripes * torch.tensor([1.0, 0.5, -1.0]).view(1, 3, 1, 1),
        "caption": [""] * count,
        "key": ["k"] * count,
    }


def test_training_reduces_the_loss_on_one_batch(task: Autoencoder) -> None:
    optimizer = task.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = task.training_step(batch(), 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_only_the_vae_trains(task: Autoencoder) -> None:
    trained = {id(p) for group in task.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.model.vae.parameters()}
    assert not any(
        p.requires_grad for module in (task.model.unet, *task.model.text_encoders) for p in module.parameters()
    )


def test_scaling_factor_gives_unit_variance(task: Autoencoder) -> None:
    with torch.no_grad():
        task.validation_step(batch(), 0)
    task.on_validation_epoch_end()
    assert task.model.encode(batch()["image"]).std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_losses_against_their_definitions() -> None:
    target, offset = torch.rand(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.25)
    assert reconstruction_loss(target + offset, target, 1.0).item() == pytest.approx(0.25, abs=1e-6)
    mean, logvar = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0)).mean()
    assert torch.allclose(kl_to_normal(mean, logvar), expected, atol=1e-6)


def test_random_crop_is_a_window_of_the_image_or_its_mirror() -> None:
    images = torch.arange(3 * 36.0).reshape(1, 3, 6, 6)
    crop = random_crop(images, 4, torch.Generator().manual_seed(0))
    windows = [images[:, :, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    assert any(torch.equal(crop, seen) for window in windows for seen in (window, window.flip(3)))
