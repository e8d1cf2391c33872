"""Prompt-to-Prompt's control of cross-attention maps, as an edit of queries, keys and values.

*Prompt-to-Prompt Image Editing with Cross Attention Control* (arXiv:2208.01626). Two prompts are sampled side by side.
Refinement gives the tokens that both prompts have the attention map of the first; tokens that only the second has keep
their own. Reweighting then multiplies the map of single tokens. Maps act linearly on values, so no map is needed:

    (w * refined map) V = softmax(Q1 K1^T) (w V, moved to the first prompt's positions, zero for new tokens)
                        + softmax(Q2 K2^T) (w V, zero but for new tokens)

Read: `AttentionRefine`, `AttentionReweight` and `get_word_inds` in VCT's copy of the code (CrystalNeuro's
visual-concept-translator), its aligner in a notebook checkpoint there; not read: google's own notebooks. Inferred: the
positions below, by running the rules that were read on token ids; VCT itself was not run.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from r2r.attention import AttentionInputs, AttentionSite, KeyValue, Part, RowMap, SiteFilter


@dataclass(slots=True)
class CrossRefine:
    """Refinement of the empty prompt by `num_new` tokens, then reweighting, in the receiver rows.

    Alignment of "" (start, end, padding ...) with v new tokens (start, v tokens, end, padding ...), as the released
    aligner has it: start takes the map of start; the v tokens keep their own; end, at v + 1, takes that of end, at 1;
    paddings beyond v + 1 take that of the same position, not of a shifted one. So positions 2 ... v + 1 of the empty
    prompt lose their map, and the rows of a refined map do not sum to one, as released.

    `rows` pairs receivers (the new prompt) with donors (the empty prompt); `weights` has a factor for each position.
    """

    where: SiteFilter
    rows: RowMap
    num_new: int
    weights: Float[Tensor, " m"]
    enabled: bool = True

    def __call__(self, inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        if not self.enabled or not self.where(site):
            return inputs
        own, place = inputs.sources[0], self.rows.place
        if own.mask is not None or len(inputs.sources) > 1:
            raise ValueError(f"CrossRefine edits plain cross-attention; {site.name} has a mask or another source")
        shared, new = self._values(own.value)
        parts: dict[Part, Tensor] = {
            "query": place(inputs.query, inputs.query),
            "key": place(own.key, own.key),
            "value": shared,
        }
        donated = inputs.with_parts(parts)
        # The core has one query for all softmaxes, now the donor's. The second one gets the logits of the own query as
        # the mask that is added to those of keys that are zero.
        logits = inputs.query @ own.key.transpose(-1, -2) * own.key.shape[-1] ** -0.5
        second = KeyValue(torch.zeros_like(own.key), new, logits)
        return AttentionInputs(donated.query, (*donated.sources, second))

    def _values(self, value: Float[Tensor, "b h m d"]) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
        """What the donors' map and the own map act on; other rows have all of their values in the first."""
        weighted = value * self.weights.to(value)[:, None]
        shared, new = value.clone(), torch.zeros_like(value)
        end = self.num_new + 1
        for receiver, _ in self.rows.pairs:
            new[receiver, :, 1:end] = weighted[receiver, :, 1:end]
            shared[receiver] = weighted[receiver]
            shared[receiver, :, 1 : end + 1] = 0
            shared[receiver, :, 1] = weighted[receiver, :, end]
        return shared, new
