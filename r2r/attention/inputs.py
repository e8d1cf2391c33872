"""What attention is computed from, and how: one softmax for each source of keys and values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from r2r.attention.sites import AttentionSite

Part = Literal["query", "key", "value"]


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


def attend(inputs: AttentionInputs) -> Float[Tensor, "b h n d"]:
    """Scaled dot-product attention of the query with every source, summed with their scales."""
    out = _softmax(inputs.query, inputs.sources[0])
    return sum((_softmax(inputs.query, source) for source in inputs.sources[1:]), out)


def _softmax(query: Tensor, source: KeyValue) -> Tensor:
    out = F.scaled_dot_product_attention(query, source.key, source.value, attn_mask=source.mask)
    return out if source.scale == 1.0 else source.scale * out
