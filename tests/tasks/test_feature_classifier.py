"""The feature classifier: it learns, and the domain stays out of it."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers.optimization import get_constant_schedule

from r2r.models.feature_net import FeatureNet
from r2r.tasks.feature_classifier import FeatureClassifier, augment


def batch() -> dict:
    bright = torch.tensor([-0.8, 0.8]).view(2, 1, 1, 1).expand(2, 3, 32, 32).clone()
    return {
        "rendered": bright,
        "photo": 0.9 * bright,
        "garment_mask": torch.ones(2, 1, 32, 32, dtype=torch.bool),
        "caption": ["", ""],
        "category": ["dress", "shirt"],
        "texture": ["dots", "knit"],
        "key": ["a", "b"],
    }


@pytest.fixture
def task() -> FeatureClassifier:
    torch.manual_seed(0)
    network = FeatureNet(channels=(8, 8, 16, 16))
    task = FeatureClassifier(network, partial(torch.optim.AdamW, lr=1e-2), get_constant_schedule)
    task._trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=0), global_rank=0)  # type: ignore[assignment]
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return task


def test_training_reduces_the_loss_on_one_batch(task: FeatureClassifier) -> None:
    optimizer = task.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = task.training_step(batch(), 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_domain_is_neither_input_nor_label(task: FeatureClassifier) -> None:
    seen: list[torch.Tensor] = []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    swapped = batch() | {"rendered": batch()["photo"], "photo": batch()["rendered"]}
    losses = [task.training_step(given, 0).item() for given in (batch(), swapped)]
    assert all(images.shape == (4, 3, 32, 32) for images in seen)  # both domains together, images alone
    category, texture = task._labels(batch(), 2)
    assert category.tolist() == [8, 1, 8, 1] and texture.tolist() == [3, 6, 3, 6]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    assert [len(head.bias) for head in (task.model.category_head, task.model.texture_head)] == [10, 7]


def test_augmentation_keeps_shape_and_range_and_depends_on_the_generator() -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    first, second, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.shape == images.shape and first.abs().max() <= 1
