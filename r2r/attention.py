"""Attention control: one processor between *project* and *attend*, three controls, row maps for batched branches.

    out = sum_s scale_s * softmax(Q K_s^T / sqrt(d)) V_s

Every method in r2r is an edit of (Q, {K_s, V_s}) at some attention sites of a U-Net: a source concatenated inside
a softmax shares it, an appended source decouples it. Laws: *place* belongs to the site, *time* to the sampling loop,
*role* to the control. There are no step counters, no layer counters and no weights here.

Sources: texture-preserving attention control (FashionR2R, arXiv:2410.14429, section 4.3) is `Inject` of queries and
keys; mutual self-attention (MasaCtrl, arXiv:2304.08465) is `Inject` of keys and values; reference nets are `Fuse`.

Shape legend: b batch, h heads, n query tokens, m key tokens, d head dim, c channels.
"""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Bool, Float
from torch import Tensor

Kind = Literal["self", "cross"]
Place = Literal["down", "mid", "up"]
Part = Literal["query", "key", "value"]


@runtime_checkable
class UNet(Protocol):
    """What the core needs of a diffusers U-Net."""

    config: Any

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Processors by the dotted name of their layer."""
        ...

    def set_attn_processor(self, processor: Any) -> None:
        """Set one processor for each layer; empties the dict it is given."""


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """Where an attention layer lives in a U-Net. Static: no timestep, no counter."""

    name: str  # "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    kind: Kind
    place: Place
    stride: int  # latent pixels per token side: 1, 2, 4, 8

    def token_grid(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """Rows and columns of tokens for a latent of this size (the down-samplers round up)."""
        return -(-latent_height // self.stride), -(-latent_width // self.stride)


SiteFilter = Callable[[AttentionSite], bool]


@dataclass(frozen=True, slots=True)
class Sites:
    """Which attention layers a control acts on: one kind, in a range of strides (shallow = small stride)."""

    kind: Kind = "self"
    max_stride: int = 8
    min_stride: int = 1

    def __call__(self, site: AttentionSite) -> bool:
        return site.kind == self.kind and self.min_stride <= site.stride <= self.max_stride


@dataclass(frozen=True, slots=True)
class TokenThreshold:
    """The rule of FashionR2R's released code: self-attentions with `tokens >= image_height * image_width / threshold`.

    Equals `Sites(max_stride=sqrt(threshold / 64))` when every level divides both sides; else it may select less.
    """

    image_height: int
    image_width: int
    threshold: int
    vae_factor: int = 8

    def __call__(self, site: AttentionSite) -> bool:
        rows, columns = site.token_grid(self.image_height // self.vae_factor, self.image_width // self.vae_factor)
        return site.kind == "self" and rows * columns * self.threshold >= self.image_height * self.image_width


@dataclass(frozen=True, slots=True)
class RowMap:
    """Which rows of a batch receive from which donor rows: pairs of (receiver, donor) slices of equal length."""

    pairs: tuple[tuple[slice, slice], ...]

    def place(self, own: Float[Tensor, "b ..."], donor: Float[Tensor, "b2 ..."]) -> Float[Tensor, "b ..."]:
        """A copy of `own` whose receiver rows hold the donor rows."""
        out = own.clone()
        for receiver, giver in self.pairs:
            out[receiver] = donor[giver]
        return out


@dataclass(frozen=True, slots=True)
class Rows:
    """The layout of a batched U-Net call: named groups of `count` rows each, in order."""

    names: tuple[str, ...]
    count: int

    def __getitem__(self, name: str) -> slice:
        start = self.names.index(name) * self.count
        return slice(start, start + self.count)

    def route(self, **donor_of: str) -> RowMap:
        """`rows.route(prompt="source")`: the rows named `prompt` receive from those named `source`."""
        return RowMap(tuple((self[receiver], self[donor]) for receiver, donor in donor_of.items()))


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One softmax's worth of keys and values."""

    key: Float[Tensor, "b h m d"]
    value: Float[Tensor, "b h m d"]
    mask: Bool[Tensor, "b #h #n m"] | Float[Tensor, "b #h #n m"] | None = None  # as in SDPA: True = attend, or added
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What attention is computed from; each source is a softmax of its own, the first is the layer's own."""

    query: Float[Tensor, "b h n d"]
    sources: tuple[KeyValue, ...]

    def part(self, name: Part) -> Float[Tensor, "b h _ d"]:
        """Query, or own key or value."""
        return self.query if name == "query" else getattr(self.sources[0], name)

    def with_parts(self, parts: Mapping[Part, Tensor], mask: Tensor | None = None) -> "AttentionInputs":
        """The same inputs with some of query, own key and own value replaced, and the own mask if given."""
        own = self.sources[0]
        key, value, mask = parts.get("key", own.key), parts.get("value", own.value), own.mask if mask is None else mask
        main = KeyValue(key, value, mask, own.scale)
        return AttentionInputs(parts.get("query", self.query), (main, *self.sources[1:]))


AttentionControl = Callable[[AttentionInputs, AttentionSite], AttentionInputs]
AttentionBank = dict[str, AttentionInputs]  # site name -> what passed there; lives for one step or one trajectory


@dataclass(slots=True)
class Record:
    """Keeps what passes at the sites in `bank`; changes nothing.

    With gradients enabled the inputs themselves are kept (a reference net trains through them). Without, a known site
    is overwritten in place: compiled code sees fixed buffers, no growing store. `query=False`: keys and values alone.
    """

    bank: AttentionBank
    where: SiteFilter
    enabled: bool = True
    query: bool = True

    def __call__(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if not (self.enabled and self.where(site)):
            return inputs
        kept = inputs if self.query else AttentionInputs(inputs.query[:, :, :0], inputs.sources)
        if torch.is_grad_enabled() or site.name not in self.bank:
            self.bank[site.name] = kept
        else:
            _overwrite(self.bank[site.name], kept)
        return inputs


def snapshot(bank: AttentionBank) -> AttentionBank:
    """A copy of what the bank holds now, to be kept while the bank is recorded into again."""
    kept: AttentionBank = {}
    for name, inputs in bank.items():
        own = inputs.sources[0]
        main = KeyValue(own.key.clone(), own.value.clone(), own.mask, own.scale)
        kept[name] = AttentionInputs(inputs.query.clone(), (main,))
    return kept


def restore(bank: AttentionBank, kept: AttentionBank) -> None:
    """Put a snapshot back into the bank, in place once the bank has its buffers."""
    if not bank:
        bank.update(snapshot(kept))
    for name, inputs in kept.items():
        _overwrite(bank[name], inputs)


def _overwrite(kept: AttentionInputs, inputs: AttentionInputs) -> None:
    kept.query.copy_(inputs.query)
    kept.sources[0].key.copy_(inputs.sources[0].key)
    kept.sources[0].value.copy_(inputs.sources[0].value)


@dataclass(slots=True)
class Inject:
    """Receiver rows take parts of the attention inputs from donor rows; queries and keys by default (TAC).

    Donors ride in the batch, or come from a `bank` (`rows=None`: all its rows in order). The sampling loop switches
    `enabled`: a Python bool, so compiled code sees two graphs.
    """

    where: SiteFilter
    rows: RowMap | None = None
    bank: AttentionBank | None = None
    parts: tuple[Part, ...] = ("query", "key")
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.rows is None and self.bank is None:
            raise ValueError("Inject needs rows or a bank: every row would receive itself")

    def __call__(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if not self.enabled or not self.where(site):
            return inputs
        donor = inputs if self.bank is None else self.bank[site.name]
        if self.rows is None:
            return inputs.with_parts({part: donor.part(part) for part in self.parts})
        return inputs.with_parts({part: self.rows.place(inputs.part(part), donor.part(part)) for part in self.parts})


@dataclass(slots=True)
class Fuse:
    """Own and reference keys and values share one softmax (reference nets: IGR, TruePose).

    `mask(site, m)` says which of the m reference keys each row may attend to, (b, 1, 1, m), True = attend, None = all;
    a row with none attends to its own alone. `rows` maps rows of the bank to receivers; other rows see no reference.
    """

    bank: AttentionBank
    where: SiteFilter
    mask: Callable[[AttentionSite, int], Bool[Tensor, "b 1 1 m"] | None] | None = None
    rows: RowMap | None = None

    def __call__(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if not self.where(site):
            return inputs
        own, reference = inputs.sources[0], self.bank[site.name].sources[0]
        key, value, mask = self._reference(inputs, reference, site)
        key, value = torch.cat([own.key, key], dim=2), torch.cat([own.value, value], dim=2)
        if mask is not None:
            mask = torch.cat([mask.new_ones(*mask.shape[:3], own.key.shape[2]), mask], dim=3)
        return inputs.with_parts({"key": key, "value": value}, mask)

    def _reference(
        self, inputs: AttentionInputs, reference: KeyValue, site: AttentionSite
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Reference keys, values and their mask, one row for each row of the batch."""
        tokens = reference.key.shape[2]
        mask = None if self.mask is None else self.mask(site, tokens)
        if self.rows is None:
            return reference.key, reference.value, mask
        batch = inputs.query.shape[0]
        empty = reference.key.new_zeros(batch, *reference.key.shape[1:])
        seen = torch.zeros(batch, 1, 1, tokens, dtype=torch.bool, device=empty.device)
        for receiver, _ in self.rows.pairs:
            seen[receiver] = True
        place = self.rows.place
        return place(empty, reference.key), place(empty, reference.value), seen if mask is None else seen & mask


def attend(inputs: AttentionInputs) -> Float[Tensor, "b h n d"]:
    """Scaled dot-product attention of the query with every source, summed with their scales."""
    out = _softmax(inputs.query, inputs.sources[0])
    return sum((_softmax(inputs.query, source) for source in inputs.sources[1:]), out)


def _softmax(query: Tensor, source: KeyValue) -> Tensor:
    out = F.scaled_dot_product_attention(query, source.key, source.value, attn_mask=source.mask)
    return out if source.scale == 1.0 else source.scale * out


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


def attention_sites(unet: UNet) -> list[AttentionSite]:
    """The attention layers of a diffusers U-Net in the order in which they are called."""
    levels = len(unet.config.block_out_channels)
    sites = [_site(path.removesuffix(".processor"), levels) for path in unet.attn_processors]
    order: list[Place] = ["down", "mid", "up"]
    return sorted(sites, key=lambda site: order.index(site.place))  # stable; diffusers lists mid last


def _site(name: str, levels: int) -> AttentionSite:
    if (match := re.match(r"(down|mid|up)_block(?:s\.(\d+))?", name)) is None:
        raise ValueError(f"attention layer {name!r} is not in a down, mid or up block; r2r controls U-Nets")
    level = {"down": int(match[2] or 0), "mid": levels - 1, "up": levels - 1 - int(match[2] or 0)}[match[1]]
    kind: Kind = "self" if name.endswith("attn1") else "cross"
    return AttentionSite(name, kind, match[1], 2**level)  # pyright: ignore[reportArgumentType]


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
