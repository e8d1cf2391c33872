"""Networks behind scores: where they run, what stands for their weights, and loading them from the hub.

Whatever is not at hand raises MissingWeightsError: a score is never taken with weights that were drawn at random.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from r2r.errors import MissingWeightsError

State = dict[str, Tensor]


def accelerator() -> str:
    """Device that networks of scores run on: the GPU when there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_id(state: Mapping[str, Tensor]) -> str:
    """Eight hexadecimal digits that stand for names and values of the weights, in whatever file they came."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]


def from_hub(architecture: Any, model: str, **options: Any) -> Any:
    """A transformers network by hub id or folder: float32, frozen, in evaluation mode, with every weight loaded.

    Raises: MissingWeightsError when it is neither a folder, nor cached, nor reachable, or lacks weights.
    """
    try:
        with _quiet():
            network, loading = architecture.from_pretrained(
                model, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise MissingWeightsError(
            f"model={model!r}: no {architecture.__name__} there and none could be fetched ({reason}). Download it once "
            "while online (HF_HOME says where the cache is; HF_HUB_OFFLINE=1 forbids fetching), or give a folder: "
            "model=FOLDER"
        ) from error
    if missing := sorted(loading["missing_keys"]):
        raise MissingWeightsError(
            f"model={model!r} is no {architecture.__name__}: it lacks {len(missing)} tensors, such as {missing[0]!r}; "
            "give the hub id or folder of such a model"
        )
    return network.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and notices of transformers while weights are read: what matters is raised."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(level)
