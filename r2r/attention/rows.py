"""Names for the rows of a batched U-Net call, and which of them receive from which."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowMap:
    """Which rows of a batch receive from which donor rows: pairs of (receiver, donor) slices of equal length."""

    pairs: tuple[tuple[slice, slice], ...]

    @classmethod
    def every_group(cls, groups: int, count: int) -> "RowMap | None":
        """Each of `groups` of `count` rows receives the same `count` donor rows; None where there is one group."""
        if groups == 1:
            return None
        starts = range(0, groups * count, count)
        return cls(tuple((slice(start, start + count), slice(0, count)) for start in starts))

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
