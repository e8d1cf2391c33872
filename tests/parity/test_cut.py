"""CUT and FastCUT: every network, loss and the whole training step of the released code."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from r2r.models.gan.checkpoints import load_official_state
from r2r.models.gan.layers import Downsample, Upsample
from r2r.models.gan.losses import GAN_LOSSES, gan_loss, patch_nce
from r2r.models.gan.patches import PatchSampler, patches, unit
from r2r.models.gan.resnet import PatchDiscriminator, ResnetGenerator
from r2r.tasks.cut import CUT
from r2r.tasks.optimization import constant_then_linear, linear_decay
from tests.parity.conftest import Case, check_gradient, check_update, load_case


def test_generator() -> None:
    case = load_case("cut_generator")
    generator = ResnetGenerator(case.hyper["ngf"])
    load_official_state(generator, case.weights())
    layers = case.hyper["layers"]
    out, features = generator(case.inputs("x"), layers)
    case.check("out", out)
    encoded, again = generator(case.inputs("x"), layers, encode_only=True)
    assert torch.equal(encoded, again[-1])
    for layer, feature, other in zip(layers, features, again, strict=True):
        case.check(f"feat{layer}", feature)
        assert torch.equal(feature, other)
    assert generator.channels(layers) == [feature.shape[1] for feature in features]


def test_discriminator() -> None:
    case = load_case("cut_discriminator")
    discriminator = PatchDiscriminator(case.hyper["ndf"])
    load_official_state(discriminator, case.weights())
    case.check("out", discriminator(case.inputs("x")))


def test_official_initialisation_shows_the_epsilon() -> None:
    case = load_case("cut_official_init")
    generator, discriminator = ResnetGenerator(case.hyper["ngf"]), PatchDiscriminator(case.hyper["ndf"])
    load_official_state(generator, case.weights("weights.G."))
    load_official_state(discriminator, case.weights("weights.D."))
    case.check("G_out", generator(case.inputs("x"))[0])
    case.check("D_out", discriminator(case.inputs("x")))


@pytest.mark.parametrize("weights", ["random", "official_init"])
def test_patch_sampler(weights: str) -> None:
    case = load_case("cut_patchsample")
    numbers = range(case.hyper["n_feats"])
    features = [case.inputs(f"feat{n}") for n in numbers]
    positions = [case.inputs(f"patch_ids{n}").long() for n in numbers]
    sampler = PatchSampler([feature.shape[1] for feature in features], case.hyper["netF_nc"])
    load_official_state(sampler, case.weights(f"weights.{weights}."))
    for number, vectors in enumerate(sampler(features, positions)):
        case.check(f"{weights}.out{number}", vectors.flatten(0, 1))
        case.check(f"no_mlp.out{number}", unit(patches(features[number], positions[number])).flatten(0, 1))


@pytest.mark.parametrize("grouping", ["per_image", "minibatch"])
def test_patch_nce(grouping: str) -> None:
    case = load_case("cut_patchnce")
    shape = (case.hyper["B"], case.hyper["S"], -1)
    with torch.enable_grad():
        flat = case.inputs("feat_q").clone().requires_grad_()
        loss = patch_nce(
            flat.view(shape),
            case.inputs("feat_k").view(shape),
            case.hyper["nce_T"],
            across_batch=grouping == "minibatch",
        )
        (gradient,) = torch.autograd.grad(loss.mean(), flat)
    case.check(f"loss_{grouping}", loss.flatten().detach())
    case.check(f"grad_feat_q_{grouping}", gradient)


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_gan_losses(kind: str) -> None:
    case = load_case("cut_ganloss")
    for real, name in ((True, "real"), (False, "fake")):
        case.check(f"{kind}_{name}", gan_loss(case.inputs("pred"), real, kind))


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_resampling(parity: str) -> None:
    case = load_case("cut_antialias")
    x: Tensor = case.inputs(f"x_{parity}")
    for size in (3, 4, 5):
        case.check(f"down_filt{size}_{parity}", Downsample(x.shape[1], size)(x))
    case.check(f"up_filt4_{parity}", Upsample()(x))


def cut_task(case: Case, mode: str) -> CUT:
    """The task of a recorded step with its weights; the optimizer is the released one."""
    hyper = case.hyper
    adam = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    settings: dict[str, Any] = {} if mode == "cut" else {"identity": False, "lambda_nce": 10.0}
    task = CUT(
        ResnetGenerator(hyper["ngf"]),
        PatchDiscriminator(hyper["ndf"]),
        adam,
        partial(constant_then_linear, num_training_steps=100),
        nce_layers=hyper["layers"],
        num_features=hyper["netF_nc"],
        num_patches=hyper["num_patches"],
        **settings,
    )
    for prefix, network in {"G": task.model, "D": task.discriminator, "F": task.contrast.sampler}.items():
        load_official_state(network, case.weights(f"weights.{prefix}."))
    return task


@pytest.mark.parametrize("mode", ["cut", "fastcut_flip", "fastcut_noflip"])
def test_training_step(mode: str) -> None:
    case = load_case("cut_step")
    task = cut_task(case, mode)
    networks = {"G": task.model, "D": task.discriminator, "F": task.contrast.sampler}
    initial = {f"{n}.{k}": p.detach().clone() for n, net in networks.items() for k, p in net.named_parameters()}
    ids = [[case.tensors[f"inputs.patch_ids.{kind}.{n}"].long() for n in range(5)] for kind in ("NCE", "NCE_Y")]
    (generator, _), (discriminator, _) = [(each["optimizer"], 0) for each in task.configure_optimizers()]
    with torch.enable_grad():
        source, target = case.inputs("real_A"), case.inputs("real_B")
        made = task.translate_batch(source, target, flip=mode == "fastcut_flip")
        loss = task.discriminator_loss(made, target)
        loss.backward()
        discriminator.step()
        losses = task.generator_losses(made, lambda features: ids.pop(0))
        losses["generator"].backward()
        generator.step()
    case.check(f"{mode}.fake_B", made.fake.detach())
    case.check(f"{mode}.loss_D", loss.detach())
    names = {"loss_G": "generator", "loss_G_GAN": "gan", "loss_NCE": "nce"}
    names |= {"loss_NCE_Y": "nce_identity"} if mode == "cut" else {}
    for theirs, ours in names.items():
        case.check(f"{mode}.{theirs}", losses[ours].detach())
    parameters = {f"{n}.{k}": p for n, net in networks.items() for k, p in net.named_parameters()}
    for key in case.tensors:
        if key.startswith(f"expected.{mode}.grad."):
            name = key.removeprefix(f"expected.{mode}.grad.")
            gradient = parameters[name].grad
            assert gradient is not None
            check_gradient(case, f"{mode}.grad.{name}", gradient)
            updated = case.tensors[f"expected.{mode}.updated.{name}"]
            check_update(parameters[name].detach(), initial[name], updated, gradient)
    order, norms = case.meta["notes"]["grad_norm_order"], case.tensors[f"expected.{mode}.grad_norm"]
    for name, norm in zip(order, norms, strict=True):
        if norm > 1e-4:
            gradient = parameters[name].grad
            assert gradient is not None and abs(gradient.norm() - norm) <= 3e-2 * norm, name


def test_learning_rate() -> None:
    case = load_case("cut_lr")
    for number, (constant, decay, first) in enumerate(case.hyper["schedules"]):
        epochs = range(constant + decay)
        ours = torch.tensor([linear_decay(epoch, constant, decay, first) for epoch in epochs])
        expected = case.tensors[f"expected.factor{number}"][: len(epochs)]
        assert torch.allclose(ours, expected, atol=case.meta["tolerance"])
        assert linear_decay(constant + decay, constant, decay, first) == 0
