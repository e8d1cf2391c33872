"""How to translate: every number and choice of a rendered-to-real translation, checked when it is made."""

from dataclasses import dataclass

from r2r.diffusion.schedule import check_unit
from r2r.errors import InputError

CHOICES = {
    "inject": ("prompt", "both"),
    "start": ("inversion", "noise"),
    "inversion_order": ("ascending", "released"),
    "source": ("row", "recorded"),
}


@dataclass(frozen=True, kw_only=True)
class TranslationSettings:
    """How to translate; defaults are FashionR2R's released ones."""

    num_inference_steps: int = 50
    strength: float = 0.3  # share of the steps that are inverted and sampled again, in [0, 1]
    guidance_scale: float = 7.5  # 1 turns guidance off
    tac_ratio: float = 0.9  # share of the active steps that inject, noisiest first, in [0, 1]
    max_stride: int = 2  # inject into self-attentions up to this stride
    inject: str = "prompt"  # which guidance halves receive queries and keys: "prompt" or "both"
    start: str = "inversion"  # "inversion", or "noise": SDEdit (arXiv:2108.01073)
    inversion_iterations: int = 1  # evaluations for each inverted step; more make the way back exact
    inversion_order: str = "ascending"  # "ascending", or "released" as in FashionR2R's code
    source: str = "row"  # "row", or "recorded": queries and keys kept from the inversion, approximate but cheaper

    def __post_init__(self) -> None:
        check_unit("strength", self.strength)
        check_unit("tac_ratio", self.tac_ratio)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}")
        if self.num_inference_steps < 1:
            raise InputError(f"num_inference_steps={self.num_inference_steps} must be at least 1")
        if self.inversion_iterations < 1:
            raise InputError(f"inversion_iterations={self.inversion_iterations} must be at least 1")

    @property
    def halves(self) -> tuple[str, ...]:
        """The rows that guidance needs, in order."""
        return ("prompt",) if self.guidance_scale == 1 else ("negative", "prompt")

    @property
    def receivers(self) -> tuple[str, ...]:
        """The rows that take queries and keys from the source."""
        return ("prompt",) if self.inject == "prompt" else self.halves

    def first_injection(self, source_is_prompt: bool) -> int:
        """The first step in which an injection can change anything.

        After an inversion start the source row and the prompt row are equal in step 0, if they are told the same.
        """
        return int(self.start == "inversion" and self.inject == "prompt" and source_is_prompt)
