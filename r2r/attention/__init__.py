"""Attention control: one processor between *project* and *attend*, three controls, row maps for batched branches.

    out = sum_s scale_s * softmax(Q K_s^T / sqrt(d)) V_s

Every method in r2r is an edit of (Q, {K_s, V_s}) at some attention sites of a U-Net: a source concatenated inside
a softmax shares it, an appended source decouples it. Laws: *place* belongs to the site, *time* to the sampling loop,
*role* to the control. There are no step counters, no layer counters and no weights here.

Sources: texture-preserving attention control (FashionR2R, arXiv:2410.14429, section 4.3) is `Inject` of queries and
keys; mutual self-attention (MasaCtrl, arXiv:2304.08465) is `Inject` of keys and values; reference nets are `Fuse`.

Shape legend: b batch, h heads, n query tokens, m key tokens, d head dim, c channels.
"""

from r2r.attention.controls import Fuse, Inject, Record, restore, snapshot
from r2r.attention.inputs import AttentionBank, AttentionControl, AttentionInputs, KeyValue, Part, attend
from r2r.attention.processor import ControlledAttnProcessor, attention_control, install
from r2r.attention.rows import RowMap, Rows
from r2r.attention.sites import AttentionSite, SiteFilter, Sites, TokenThreshold, UNet, attention_sites

__all__ = [
    "AttentionBank",
    "AttentionControl",
    "AttentionInputs",
    "AttentionSite",
    "ControlledAttnProcessor",
    "Fuse",
    "Inject",
    "KeyValue",
    "Part",
    "Record",
    "RowMap",
    "Rows",
    "SiteFilter",
    "Sites",
    "TokenThreshold",
    "UNet",
    "attend",
    "attention_control",
    "attention_sites",
    "install",
    "restore",
    "snapshot",
]
