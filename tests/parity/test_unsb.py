"""UNSB: bridge, networks, losses and a training step of the released code, and the block with its defect repaired."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from r2r.diffusion.bridge import Bridge
from r2r.models.gan.bridge import BridgeDiscriminator, BridgeGenerator, time_embedding
from r2r.models.gan.checkpoints import load_official_state
from r2r.tasks.optimization import constant_then_linear
from r2r.tasks.unsb import UNSB, Guessed
from tests.parity.conftest import Case, check_gradient, load_case


def unsb(case: Case, **contrast: int) -> UNSB:
    """The task with the recorded networks, its generator the released one."""
    hyper = case.hyper
    model = BridgeGenerator(hyper["ngf"], released=True, num_timesteps=hyper["T"], tau=hyper["tau"])
    energy = BridgeDiscriminator(hyper["ndf"], channels=12)
    adam = partial(torch.optim.Adam, lr=2e-4)
    schedule = partial(constant_then_linear, num_training_steps=100)
    settings: dict[str, Any] = {"lambda_sb": hyper.get("lambda_SB", 1.0), **contrast}
    task = UNSB(model, BridgeDiscriminator(hyper["ndf"]), energy, adam, schedule, **settings)
    networks = {"G": model, "D": task.discriminator, "E": energy, "F": task.contrast.sampler}
    for prefix, network in networks.items():
        if state := case.weights(f"weights.{prefix}."):
            load_official_state(network, state)
    return task


def test_times_and_steps() -> None:
    case = load_case("unsb_times")
    for steps in case.hyper["T"]:
        bridge = Bridge(steps, case.hyper["tau"])
        case.check(f"times_T{steps}", bridge.times)
        coefficients = torch.tensor([(0.0, 0.0), *(bridge.coefficients(k) for k in range(1, steps))])
        case.check(f"s_T{steps}", coefficients[:, 0])
        case.check(f"noise_std_T{steps}", coefficients[:, 1])


def test_generators() -> None:
    case = load_case("unsb_generator")
    x, layers = case.inputs("x"), case.hyper["layers"]
    for name, settings in {"released": {"released": True}, "repaired": {"time_after_norm": False}}.items():
        generator = BridgeGenerator(case.hyper["ngf"], case.hyper["n_mlp"] + 1, **settings)
        load_official_state(generator, case.weights())
        for time in (0, 3):
            out, features = generator(x, torch.full((2,), time), case.inputs("z"), layers)
            case.check(f"{name}.t{time}_z", out)
        case.check(f"{name}.t0_z2", generator(x, torch.zeros(2, dtype=torch.long), case.inputs("z2"))[0])
        if name == "released":
            for layer, feature in zip(layers, features, strict=True):
                case.check(f"released.feat{layer}_first_image", feature[:1])
        else:
            assert generator.time_embed is not None
            moment = generator.time_embed(time_embedding(torch.arange(5), case.hyper["ngf"]))
            case.check("time_embedding", moment)
        case.check("z_embedding", generator.z_transform(case.inputs("z")))


def test_discriminator_and_energy() -> None:
    case = load_case("unsb_disc_energy")
    discriminator = BridgeDiscriminator(case.hyper["ndf"])
    energy = BridgeDiscriminator(case.hyper["ndf"], channels=12)
    load_official_state(discriminator, case.weights("weights.D."))
    load_official_state(energy, case.weights("weights.E."))
    named = {key.removeprefix("inputs."): value for key, value in case.tensors.items() if key.startswith("inputs.")}
    u, v = named["u"], named["v"]
    for t in case.hyper["t"]:
        time = torch.full((len(u),), t)
        case.check(f"D_t{t}", discriminator(named["x"], time[: len(named["x"])]))
        case.check(f"E_uu_t{t}", energy(torch.cat([u, u], 1), time))
        case.check(f"E_uv_t{t}", energy(torch.cat([u, v], 1), time))


def recorded_walk(task: UNSB, case: Case, start: Tensor, chain: str, index: int) -> Tensor:
    """From the start to place `index`, by recorded codes and noises."""
    x = start
    for place in range(index):
        end = task.model(x, torch.full((len(x),), place), case.inputs(f"z{chain}_{place}"))[0]
        x = task.model.bridge.step(x, end, place + 1, case.inputs(f"noise{chain}_{place + 1}"))
    return x


def test_trajectory() -> None:
    case = load_case("unsb_trajectory")
    task = unsb(case)
    steps = case.hyper["T"]
    x = case.inputs("real_A")
    for place in range(steps):
        case.check(f"x{place}", x)
        end = task.model(x, torch.full((len(x),), place), case.inputs(f"z{place}"))[0]
        case.check(f"fake_{place + 1}", end)
        if place + 1 < steps:
            x = task.model.bridge.step(x, end, place + 1, case.inputs(f"noise{place + 1}"))
    case.check("times", task.model.bridge.times)


def test_losses() -> None:
    case = load_case("unsb_losses")
    task = unsb(case)
    target = case.inputs("real_B")
    for index in case.hyper["time_indices"]:
        with torch.enable_grad():
            ends = [case.inputs(name).clone().requires_grad_() for name in ("x1", "x12")]
            made = Guessed(index, case.inputs("xt"), ends[0], case.inputs("xt2"), ends[1], same=target)
            losses = task.bridge_losses(made)
            total = losses["gan"] + case.hyper["lambda_SB"] * losses["sb"]
            gradients = torch.autograd.grad(total, ends)
            energy, discriminator = task.energy_loss(made), task.discriminator_loss(made, target)
        found = {"loss_E": energy, "loss_SB": losses["sb"], "loss_D": discriminator, "loss_G_GAN": losses["gan"]}
        for name, loss in (found | {"loss_G_without_NCE": total}).items():
            case.check(f"t{index}.{name}", loss.detach())
        for name, gradient in zip(("grad_x1", "grad_x1_second"), gradients, strict=True):
            check_gradient(case, f"t{index}.{name}", gradient)


def test_training_step() -> None:
    case = load_case("unsb_train")
    task = unsb(case, num_features=case.hyper["nc"], num_patches=case.hyper["S"])
    index, source, target = case.hyper["time_idx"], case.inputs("real_A"), case.inputs("real_B")
    starts = {"_A": source, "_A2": case.inputs("real_A2"), "_B": target}
    places = torch.cat([recorded_walk(task, case, start, chain, index) for chain, start in starts.items()])
    for name, place in zip(("real_A_noisy", "real_A_noisy2", "XtB"), places, strict=True):
        case.check(name, place[None])
    codes = torch.cat([case.inputs("z_in")[:1], case.inputs("z_in2"), case.inputs("z_in")[1:]])
    ids = [[case.tensors[f"inputs.patch_ids.{kind}.{n}"].long() for n in range(5)] for kind in ("NCE", "NCE_Y")]
    with torch.enable_grad():
        made = task.guess_batch(places, index, codes)
        discriminator, energy = task.discriminator_loss(made, target), task.energy_loss(made)
        contrast_codes = torch.cat([case.inputs("z_NCE"), case.inputs("z_NCE_Y")])
        losses = task.generator_losses(made, source, target, contrast_codes, lambda features: ids.pop(0))
        losses["generator"].backward()
    for name, image in {"fake_B": made.fake, "fake_B2": made.second_fake, "idt_B": made.same}.items():
        case.check(name, image.detach())
    names = {
        "loss_G": "generator",
        "loss_G_GAN": "gan",
        "loss_SB": "sb",
        "loss_NCE": "nce",
        "loss_NCE_Y": "nce_identity",
    }
    for theirs, ours in names.items():
        case.check(theirs, losses[ours].detach())
    case.check("loss_D", discriminator.detach())
    case.check("loss_E", energy.detach())
    assert task.model.bridge.times[index].item() == case.tensors["expected.timestep"].item()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, (
            name
        )  # what the released code never uses is not here
        if f"expected.grad.G.{name}" in case.tensors:
            check_gradient(case, f"grad.G.{name}", parameter.grad)
