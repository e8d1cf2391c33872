"""Networks and the weights they come with."""

from r2r.models.lora import LoRA
from r2r.models.stable_diffusion import PRETRAINED, StableDiffusion, TextConditioning

__all__ = ["PRETRAINED", "LoRA", "StableDiffusion", "TextConditioning"]
