"""Clothes on a body at rest, cut from the same numbers as the flat garment and with its cloth coordinates.

Every tube runs over the same angle and height as its flat twin (`garments.py`), so a stripe or a print lies at the same
place of the cloth; only where the cloth is in space differs: around the body, no tighter than the cut allows.
"""

from dataclasses import replace

from r2r.studio.body import Girth
from r2r.studio.bottoms import wear_skirt, wear_trousers
from r2r.studio.people import Body
from r2r.studio.tops import wear_top
from r2r.studio.wardrobe import Garment
from r2r.studio.worn import Worn


def wear(garment: Garment, body: Body, under: Girth, tucked: bool = False) -> Worn:
    """The garment over what is `under` it; a `tucked` top ends inside the waistband."""
    build = {"trousers": wear_trousers, "shorts": wear_trousers, "skirt": wear_skirt}.get(garment.category)
    worn = build(garment.shape, body, under) if build else wear_top(garment.shape, body, under, tucked)
    cloths = [replace(c, part=replace(c.part, label=garment.label)) for c in worn.cloths]
    return replace(worn, cloths=cloths)
