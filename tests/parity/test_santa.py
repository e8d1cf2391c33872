"""SANTA: generator, path loss and all losses of the released code, at its batch size of one and above."""

from functools import partial

import torch

from r2r.models.gan.adain import AdaIN, PathGenerator
from r2r.models.gan.checkpoints import load_official_state
from r2r.models.gan.resnet import PatchDiscriminator
from r2r.tasks.optimization import constant_then_linear
from r2r.tasks.santa import SANTA
from tests.parity.conftest import Case, check_gradient, load_case


def santa(case: Case) -> SANTA:
    """The task with the recorded generator, and discriminator if there is one."""
    hyper = case.hyper
    task = SANTA(
        PathGenerator(hyper["ngf"], hyper["style_dim"]),
        PatchDiscriminator(hyper.get("ndf", 8)),
        partial(torch.optim.Adam, lr=2e-4),
        partial(constant_then_linear, num_training_steps=100),
        path_layers=hyper.get("path_layers", (0, 3, 6, 10, 14)),
    )
    load_official_state(task.model, case.weights("weights.G."))
    if discriminator := case.weights("weights.D."):
        load_official_state(task.discriminator, discriminator)
    return task


def test_generator() -> None:
    case = load_case("santa_generator")
    generator = PathGenerator(case.hyper["ngf"], case.hyper["style_dim"])
    load_official_state(generator, case.weights())
    latents = generator.encode(case.inputs("x"))
    case.check("latent", latents)
    for place in (0, 0.5, 1):
        case.check(f"decode_d{place}", generator.decode(latents, torch.full((len(latents),), float(place)))[0])
    case.check("decode_d_mixed", generator.decode(latents, case.inputs("d_mixed"))[0])
    case.check("decode_d1", generator.translate(case.inputs("x")))


def test_adaptive_norm() -> None:
    case = load_case("santa_adain")
    norm = AdaIN(case.hyper["num_features"], case.hyper["style_dim"])
    load_official_state(norm, case.weights())
    case.check("out", norm(case.inputs("x"), case.inputs("style")))


def test_path_loss() -> None:
    case = load_case("santa_path")
    task, latents = santa(case), case.inputs("latent_A")
    with torch.enable_grad():
        energies = [
            task.path_energies(latents, c[None], i[None])
            for c, i in zip(case.inputs("c"), case.inputs("i"), strict=True)
        ]
        energies[1].mean().backward()
    rows = torch.stack(energies).detach()
    case.check("energies", rows)
    case.check("loss_path", rows.mean(1))
    for name, parameter in task.model.named_parameters():
        if f"expected.grad.{name}" in case.tensors:
            assert parameter.grad is not None
            check_gradient(case, f"grad.{name}", parameter.grad)


def test_path_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    case = load_case("santa_path")
    task = santa(case)
    latents = torch.cat([case.inputs("latent_A"), case.inputs("latent_A").flip(3)])
    centre, half = case.inputs("c")[:2], case.inputs("i")[:2]
    alone = [task.path_energies(latents[n : n + 1], centre[n : n + 1], half[n : n + 1]) for n in range(2)]
    together = task.path_energies(latents, centre, half)
    assert torch.allclose(together, torch.stack(alone).mean(0), rtol=1e-4)


def test_losses() -> None:
    case = load_case("santa_losses")
    task, source, target = santa(case), case.inputs("real_A"), case.inputs("real_B")
    with torch.enable_grad():
        made = task.decode_batch(source, target, noise=case.inputs("noise"))
        discriminator = task.discriminator_loss(made, target)
        losses = task.generator_losses(made, source, target, case.inputs("c"), case.inputs("i"))
        losses["generator"].backward()
    for name, image in {
        "fake_B": made.fake,
        "rec_A": made.reconstruction,
        "idt_B": made.same,
        "mu": made.means,
    }.items():
        case.check(name, image.detach())
    case.check("loss_D", discriminator.detach())
    names = {"loss_G": "generator", "loss_G_GAN": "gan", "loss_G_rec": "reconstruction", "loss_G_idt": "identity"}
    for theirs, ours in (names | {"loss_G_kl": "kl", "loss_G_path": "path"}).items():
        case.check(theirs, losses[ours].detach())
    for name, parameter in task.model.named_parameters():
        if f"expected.grad.G.{name}" in case.tensors:
            assert parameter.grad is not None
            check_gradient(case, f"grad.G.{name}", parameter.grad)
