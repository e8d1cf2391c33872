"""The edits: record what passes, inject it elsewhere, or fuse it into the own softmax."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from r2r.attention.inputs import AttentionBank, AttentionInputs, KeyValue, Part
from r2r.attention.rows import RowMap
from r2r.attention.sites import AttentionSite, SiteFilter


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

    `mask(site, m)` says which of the m reference keys each row may attend to, (b, 1, 1, m), True = attend, or how much
    more, a log-bias, -inf = not at all; None = all alike. A row with none attends to its own alone. `rows` maps rows of
    the bank to receivers; other rows see no reference. A net that is its own reference is `enabled` by turns.
    """

    bank: AttentionBank
    where: SiteFilter
    mask: Callable[[AttentionSite, int], Bool[Tensor, "b 1 1 m"] | Float[Tensor, "b 1 1 m"] | None] | None = None
    rows: RowMap | None = None
    enabled: bool = True

    def __call__(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if not (self.enabled and self.where(site)):
            return inputs
        own, reference = inputs.sources[0], self.bank[site.name].sources[0]
        key, value, mask = self._reference(inputs, reference, site)
        key, value = torch.cat([own.key, key], dim=2), torch.cat([own.value, value], dim=2)
        if mask is not None:
            mask = mask.to(inputs.query.dtype) if mask.is_floating_point() else mask
            free = mask.new_full((*mask.shape[:3], own.key.shape[2]), not mask.is_floating_point())  # True, or no bias
            mask = torch.cat([free, mask], dim=3)
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
        return place(empty, reference.key), place(empty, reference.value), _only(seen, mask)


def _only(seen: Tensor, mask: Tensor | None) -> Tensor:
    """A mask or bias, of what is seen alone."""
    if mask is None or not mask.is_floating_point():
        return seen if mask is None else seen & mask
    return mask.masked_fill(~seen, -torch.inf)
