"""The processor that runs controls between *project* and *attend*, and how it gets into a U-Net."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from r2r.attention.inputs import AttentionControl, AttentionInputs, KeyValue, attend
from r2r.attention.sites import AttentionSite, UNet, attention_sites


class ControlledAttnProcessor:
    """Diffusers' `AttnProcessor2_0` for U-Net transformer blocks, with controls between *project* and *attend*."""

    def __init__(self, site: AttentionSite, controls: tuple[AttentionControl, ...]) -> None:
        self.site, self.controls = site, controls

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b m c2"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "b n c"]:
        layer = cast(Any, attn)  # diffusers annotates its projections as optional
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _ = context.shape
        if attention_mask is not None:
            expanded = layer.prepare_attention_mask(attention_mask, tokens, batch)
            attention_mask = expanded.view(batch, layer.heads, -1, tokens)

        def split(x: Tensor) -> Tensor:
            return x.view(batch, -1, layer.heads, x.shape[-1] // layer.heads).transpose(1, 2)

        own = KeyValue(split(layer.to_k(context)), split(layer.to_v(context)), attention_mask)
        inputs = AttentionInputs(split(layer.to_q(hidden_states)), (own,))
        for control in self.controls:
            inputs = control(inputs, self.site)
        out = attend(inputs).transpose(1, 2).flatten(2).to(inputs.query.dtype)
        return layer.to_out[1](layer.to_out[0](out))


def install(unet: UNet, *controls: AttentionControl) -> None:
    """Install controls for good, at every attention layer; training does this once, in `__init__`."""
    sites = attention_sites(unet)
    unet.set_attn_processor({f"{site.name}.processor": ControlledAttnProcessor(site, controls) for site in sites})


@contextmanager
def attention_control(unet: UNet, *controls: AttentionControl) -> Generator[None]:
    """Install controls for the length of a `with` block and leave the model as it was found.

    Raises:
        RuntimeError: while gradients are enabled; checkpointed layers run again after this block has ended.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("attention_control is for sampling: wrap it in torch.no_grad(), or use install() to train")
    before = dict(unet.attn_processors)
    install(unet, *controls)
    try:
        yield
    finally:
        unet.set_attn_processor(before)
