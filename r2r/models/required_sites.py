"""A control that attaches to no attention layer changes nothing and says nothing: refuse it instead.

VCT's released code does exactly that on current diffusers: it looks for a class that has been renamed, finds 0 layers,
and samples as if there were no control.
"""

from r2r.attention import AttentionSite, SiteFilter, attention_sites
from r2r.errors import InputError
from r2r.models.stable_diffusion import StableDiffusion


def require_sites(model: StableDiffusion, where: SiteFilter) -> list[AttentionSite]:
    """The attention layers of the model that a control acts on, in the order in which they are called.

    Raises:
        InputError: there is none; the message names the model and the layers it has.
    """
    sites = attention_sites(model.unet)
    if found := [site for site in sites if where(site)]:
        return found
    name = model.pipe.name_or_path or type(model.unet).__name__
    has = ", ".join(f"{kind} at stride {stride}" for kind, stride in sorted({(s.kind, s.stride) for s in sites}))
    raise InputError(f"{where} selects no attention layer of the model {name!r}, which has {has or 'none at all'}")
