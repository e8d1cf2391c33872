"""Networks and losses of the unpaired translators CUT, SANTA and UNSB, and the weights of their released code."""

from r2r.models.gan.adain import PathGenerator
from r2r.models.gan.bridge import BridgeDiscriminator, BridgeGenerator
from r2r.models.gan.checkpoints import load_official
from r2r.models.gan.export import load_generator, save_generator
from r2r.models.gan.patches import PatchContrast
from r2r.models.gan.resnet import PatchDiscriminator, ResnetGenerator

__all__ = [
    "BridgeDiscriminator",
    "BridgeGenerator",
    "PatchContrast",
    "PatchDiscriminator",
    "PathGenerator",
    "ResnetGenerator",
    "load_generator",
    "load_official",
    "save_generator",
]
