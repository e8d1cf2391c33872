"""Drop-one-out experiments: trained, translated, scored and reported by one command that goes on where it stopped."""

from r2r.ablation.experiment import ablation

__all__ = ["ablation"]
