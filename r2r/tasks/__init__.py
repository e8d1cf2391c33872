"""One file for each method: what is trained, on what loss, and what comes out."""

from r2r.tasks.cut import CUT
from r2r.tasks.domain_finetuning import DomainFinetuning
from r2r.tasks.garment_restoration import GarmentRestoration
from r2r.tasks.garment_restorer import GarmentRestorer, RestorationSettings
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from r2r.tasks.pose_sampler import PoseSampler, PoseSettings
from r2r.tasks.pose_transfer import PoseTransfer
from r2r.tasks.santa import SANTA
from r2r.tasks.textual_inversion import TextualInversion
from r2r.tasks.translation_sweep import SweepPlan
from r2r.tasks.unsb import UNSB
from r2r.tasks.vct import VisualConceptTranslator

__all__ = [
    "CUT",
    "SANTA",
    "UNSB",
    "DomainFinetuning",
    "GarmentRestoration",
    "GarmentRestorer",
    "PoseSampler",
    "PoseSettings",
    "PoseTransfer",
    "RenderedToReal",
    "RestorationSettings",
    "SweepPlan",
    "TextualInversion",
    "TranslationSettings",
    "VisualConceptTranslator",
]
