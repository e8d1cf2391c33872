"""PnP and MasaCtrl, expressed with r2r's own controls: the core is general, not made for one paper."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from r2r.attention import (
    AttentionSite,
    ControlledAttnProcessor,
    Inject,
    Rows,
    SiteFilter,
    attention_control,
    attention_sites,
)
from r2r.diffusion import Schedule, classifier_free_guidance, ddim_step
from tests.parity.conftest import Case, load_case

PNP = Rows(("source", "uncond", "cond"), 1)
MASA = Rows(("source-uncond", "target-uncond", "source-cond", "target-cond"), 1)


def pnp_sites(site: AttentionSite) -> bool:
    deep = ("up_blocks.1.attentions.1", "up_blocks.1.attentions.2", "up_blocks.2", "up_blocks.3")
    return site.kind == "self" and site.name.startswith(deep)


def pnp_attention(where: SiteFilter = pnp_sites) -> Inject:
    return Inject(where, PNP.route(uncond="source", cond="source"))


@contextmanager
def pnp_convolution(unet: UNet2DConditionModel) -> Iterator[None]:
    """The residual features after conv2 of up_blocks.1.resnets.1 come from the source row: the same row map."""
    route = PNP.route(uncond="source", cond="source")

    def inject(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        return route.place(out, out)

    hook = unet.up_blocks[1].resnets[1].conv2.register_forward_hook(inject)
    try:
        yield
    finally:
        hook.remove()


def lone_attention(case: Case, unet: UNet2DConditionModel) -> tuple[nn.Module, AttentionSite]:
    """One attention layer with the recorded weights, and the site it stands at."""
    site = next(site for site in attention_sites(unet) if site.name == case.hyper["layer"])
    layer = type(unet.get_submodule(site.name))(
        query_dim=case.inputs("hidden").shape[-1], heads=case.hyper["heads"], dim_head=case.hyper["dim_head"]
    )
    layer.load_state_dict(case.weights("weights.attn."))
    return layer.eval(), site


def test_pnp_attention_layer(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("pnp")
    layer, site = lone_attention(case, parity_unet)
    for name, controls in {"injected": (pnp_attention(),), "outside_schedule": ()}.items():
        layer.set_processor(ControlledAttnProcessor(site, controls))
        case.check(f"attention.{name}", layer(case.inputs("hidden")))


def test_pnp_unet(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("pnp")
    sample = torch.cat([case.inputs("latent_source"), case.inputs("latent"), case.inputs("latent")])
    embeds = torch.cat([case.inputs(f"emb_{name}") for name in ("guidance", "uncond", "cond")])

    def run() -> Tensor:
        return parity_unet(sample, case.hyper["t"], encoder_hidden_states=embeds).sample

    case.check("unet.none", run())
    with attention_control(parity_unet, pnp_attention()):
        case.check("unet.qk", run())
        with pnp_convolution(parity_unet):
            case.check("unet.qk_conv", run())
    with pnp_convolution(parity_unet):
        case.check("unet.conv", run())


def test_pnp_loop(parity_unet: UNet2DConditionModel) -> None:
    """All timesteps, queries and keys for the first half, convolution features for the first four fifths."""
    case = load_case("pnp")
    schedule = Schedule(load_case("fashionr2r_single_call").tensors["expected.alphas_cumprod"])
    times = case.tensors["expected.loop.timesteps"].round().int().tolist()
    embeds = torch.cat([case.inputs(f"emb_{name}") for name in ("guidance", "uncond", "cond")])
    control, latents, trajectory = pnp_attention(), case.inputs("start_latent"), []
    with attention_control(parity_unet, control):
        for index, time in enumerate(times):
            control.enabled = index < int(case.hyper["pnp_attn_t"] * len(times))
            batch = torch.cat([case.inputs("source_latents")[index : index + 1], latents, latents])
            if index < int(case.hyper["pnp_f_t"] * len(times)):
                with pnp_convolution(parity_unet):
                    out = parity_unet(batch, time, encoder_hidden_states=embeds).sample
            else:
                out = parity_unet(batch, time, encoder_hidden_states=embeds).sample
            eps = classifier_free_guidance(out[PNP["uncond"]], out[PNP["cond"]], case.hyper["guidance_scale"])
            latents = ddim_step(latents, eps, schedule.signal(time), schedule.signal(time - 1000 // len(times)))
            trajectory.append(latents)
    case.check("loop.trajectory", torch.cat(trajectory))


def masa_control(case: Case, where: SiteFilter) -> Inject:
    route = MASA.route(**{"target-uncond": "source-uncond", "target-cond": "source-cond"})
    return Inject(where, route, parts=("key", "value"))


def test_masactrl_attention_layer(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("masactrl")
    layer, site = lone_attention(case, parity_unet)
    layer.set_processor(ControlledAttnProcessor(site, (masa_control(case, lambda site: True),)))
    case.check("attention.injected", layer(case.inputs("hidden")))
    layer.set_processor(ControlledAttnProcessor(site, ()))
    case.check("attention.layer_9_not_injected", layer(case.inputs("hidden")))
    case.check("attention.step_3_not_injected", layer(case.inputs("hidden")))


def test_masactrl_unet(parity_unet: UNet2DConditionModel) -> None:
    case = load_case("masactrl")
    selfs = [site for site in attention_sites(parity_unet) if site.kind == "self"]
    control = masa_control(case, lambda site: site in selfs[case.hyper["start_layer"] :])
    sample = torch.cat([case.inputs("latent_source"), case.inputs("latent_target")] * 2)
    uncond, source, target = (case.inputs(f"emb_{name}") for name in ("uncond", "source", "target"))
    embeds = torch.cat([uncond, uncond, source, target])
    with attention_control(parity_unet, control):
        for step in (3, 4, 49):
            control.enabled = step >= case.hyper["start_step"]
            out = parity_unet(sample, case.hyper["t"], encoder_hidden_states=embeds).sample
            case.check(f"unet.step{step}", out)
