"""Losses of unpaired translation: adversarial ones, and the contrastive one between patches (CUT, arXiv:2007.15651)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

GAN_LOSSES = ("lsgan", "vanilla", "wgangp", "nonsaturating")


def gan_loss(prediction: Tensor, real: bool, kind: str = "lsgan") -> Tensor:
    """How far scores are from those of real (or fake) images, in float32; "nonsaturating" has one value an image."""
    prediction = prediction.float()
    if kind == "lsgan":
        return (prediction - float(real)).square().mean()
    if kind == "vanilla":
        return F.binary_cross_entropy_with_logits(prediction, torch.full_like(prediction, float(real)))
    signed = -prediction if real else prediction
    return signed.mean() if kind == "wgangp" else F.softplus(signed).flatten(1).mean(1)


def patch_nce(
    query: Float[Tensor, "b s d"],
    key: Float[Tensor, "b s d"],
    temperature: float = 0.07,
    across_batch: bool = False,
) -> Float[Tensor, "b s"]:
    """Cross-entropy of finding each query's own key among the keys at other positions (equation 3); keys are constant.

    Negatives come from the same image, or with `across_batch` from all images. Its own key is set to similarity -10
    among the negatives, before the temperature, as in the released code.

    Deviations: the released code groups negatives by the batch size in its options, whatever the batch; here by image.
    """
    shape, key = query.shape[:2], key.detach()
    if across_batch:
        query, key = (vectors.flatten(0, 1).unsqueeze(0) for vectors in (query, key))
    with torch.autocast(query.device.type, enabled=False):
        similarity = query.float() @ key.float().transpose(1, 2)
    positive = similarity.diagonal(dim1=1, dim2=2).unsqueeze(2)
    own = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    logits = torch.cat([positive, similarity.masked_fill(own, -10.0)], dim=2) / temperature
    target = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none").view(shape)
