"""Captions of photos by BLIP: Bootstrapping Language-Image Pre-training, arXiv:2201.12086, through transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL.Image import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

from r2r.errors import MissingWeightsError

Captioner = Callable[[Sequence[Image]], list[str]]


def blip(model: str, device: str | None = None, max_new_tokens: int = 40) -> Captioner:
    """BLIP captioning by hub id or local folder, greedy decoding.

    Raises: MissingWeightsError when the weights are neither a folder, nor cached, nor reachable.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        processor: Any = BlipProcessor.from_pretrained(model)
        network: Any = BlipForConditionalGeneration.from_pretrained(model)
        network.to(device).eval()
    except (OSError, ValueError) as error:
        raise MissingWeightsError(
            f"model={model!r}: no BLIP weights there and none could be fetched ({str(error).splitlines()[0][:200]}). "
            "Download them once while online (HF_HOME says where the cache is; HF_HUB_OFFLINE=1 forbids fetching), "
            "or give a local folder: model=FOLDER"
        ) from error

    @torch.inference_mode()
    def caption(images: Sequence[Image]) -> list[str]:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        tokens = network.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]

    return caption
