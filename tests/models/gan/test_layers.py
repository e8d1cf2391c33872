"""What the layers promise beyond parity: gradients that are right, sizes, and parameters as the papers count them."""

import pytest
import torch
from torch import Tensor

from r2r.models.gan import BridgeDiscriminator, BridgeGenerator, PatchDiscriminator, PathGenerator, ResnetGenerator
from r2r.models.gan.layers import InstanceNorm
from r2r.models.gan.patches import PatchContrast, patches


def plain_norm(x: Tensor) -> Tensor:
    """The definition."""
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize("batch", [1, 2])
def test_instance_norm_is_differentiated_rightly_where_patches_are_sampled(batch: int) -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 8, 16, 16, generator=chance, requires_grad=True)
    weights, positions = torch.randn(batch, 32, 8, generator=chance), torch.randperm(256, generator=chance)[:32]
    gradients = [
        torch.autograd.grad((patches(norm(x), positions) * weights).sum(), x)[0]
        for norm in (InstanceNorm(), plain_norm)
    ]
    assert torch.allclose(*gradients, atol=1e-5)
    assert torch.allclose(InstanceNorm()(x), plain_norm(x), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        (ResnetGenerator(), 11.378179),
        (PatchDiscriminator(), 2.764737),
        (PatchContrast(ResnetGenerator().channels([0, 4, 8, 12, 16])), 0.560384),
        (PathGenerator(), 11.427731),
        (BridgeDiscriminator(), 3.143041),
        (BridgeDiscriminator(channels=12), 3.152257),
        (BridgeGenerator(), 14.684419 - 9 * (256 * 512 + 512) / 1e6),  # without the layers called style
        (BridgeGenerator(released=True), 14.684419 - 7.169536),  # and without all that gets no gradient
    ],
)
def test_parameters_are_those_of_the_released_code(network: torch.nn.Module, millions: float) -> None:
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-9)


def test_only_the_default_bridge_generator_uses_time() -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    code = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    moved: dict[str, float] = {}
    for name, settings in {
        "default": {},
        "literal": {"time_after_norm": False},
        "released": {"released": True},
    }.items():
        torch.manual_seed(0)
        network = BridgeGenerator(4, **settings)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        early, late = (network(x, torch.tensor([time]), code)[0] for time in (0, 4))
        moved[name] = (early - late).detach().abs().max().item()
    assert moved["released"] == 0
    assert moved["literal"] < 1e-3 < 1e-2 < moved["default"]


@pytest.mark.parametrize("generator", [ResnetGenerator(4), PathGenerator(4), BridgeGenerator(4)])
def test_translations_have_the_size_and_range_of_images(generator: ResnetGenerator) -> None:
    images = torch.rand(2, 3, 20, 28) * 2 - 1
    out = generator.translate(images)
    assert out.shape == images.shape and out.abs().max() <= 1
    assert torch.equal(out, generator.translate(images))


def test_a_bridge_costs_what_it_is_told() -> None:
    generator, calls = BridgeGenerator(4), []
    generator.register_forward_hook(lambda *args: calls.append(1))
    for evals in (1, 3, 5):
        calls.clear()
        generator.translate(torch.zeros(1, 3, 16, 16), num_evals=evals)
        assert len(calls) == evals
