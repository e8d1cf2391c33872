"""Scores with their protocol: realism of sets, likeness of images to references (whole or in a region), intervals."""

from r2r.metrics.backbones import Backbone, inception, squeezenet, torchvision_backbone
from r2r.metrics.distances import CLIPFID, FID, KID, SetScore
from r2r.metrics.features import FeatureCache
from r2r.metrics.fidelity import psnr, ssim
from r2r.metrics.keypoints import oks, pck
from r2r.metrics.perceptual import DISTS, LPIPS
from r2r.metrics.protocol import Protocol, check_images, protocol
from r2r.metrics.realism import kid, kid_difference
from r2r.metrics.regions import Mask
from r2r.metrics.scores import MSSSIM, PSNR, SSIM, WHOLE, DetailSSIM, ImageScore
from r2r.metrics.semantic import CLIPSimilarity, DINOStructure
from r2r.metrics.statistics import Estimate, bootstrap_mean, paired_difference
from r2r.metrics.vision_transformers import clip_image, dino

__all__ = [
    "CLIPFID",
    "DISTS",
    "FID",
    "KID",
    "LPIPS",
    "MSSSIM",
    "PSNR",
    "SSIM",
    "WHOLE",
    "Backbone",
    "CLIPSimilarity",
    "DINOStructure",
    "DetailSSIM",
    "Estimate",
    "FeatureCache",
    "ImageScore",
    "Mask",
    "Protocol",
    "SetScore",
    "bootstrap_mean",
    "check_images",
    "clip_image",
    "dino",
    "inception",
    "kid",
    "kid_difference",
    "oks",
    "paired_difference",
    "pck",
    "protocol",
    "psnr",
    "squeezenet",
    "ssim",
    "torchvision_backbone",
]
