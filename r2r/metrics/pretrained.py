"""Weights of feature backbones from files and torch hub's cache: what is missing is named, with the place to put it."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from r2r.errors import MissingWeightsError
from r2r.metrics.weights import State

_BROKEN = (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError)


def read_state(weights: str | Path, what: str) -> State:
    """The tensors of a safetensors file, or of a .pth file read without running code from it.

    Raises MissingWeightsError when the file is not there or cannot be read.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MissingWeightsError(f"no weights at {path}; give a .safetensors or .pth file of {what}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise MissingWeightsError(f"{path} holds no readable weights of {what}: {_first_line(error)}") from error


def load_exactly(network: nn.Module, weights: str | Path, what: str) -> None:
    """Load a file into `network`; every key must fit.

    Raises MissingWeightsError when the file is missing, unreadable, or of another network.
    """
    state = read_state(weights, what)
    with fitting(weights, what):
        network.load_state_dict(state)


@contextmanager
def fitting(weights: str | Path, what: str) -> Iterator[None]:
    """Around a call that puts the tensors of a file into a network: MissingWeightsError when they do not fit."""
    try:
        yield
    except (*_BROKEN, TypeError, AttributeError) as error:
        raise MissingWeightsError(f"{weights} does not hold {what}: {str(error)[:500]}") from error


@contextmanager
def from_torch_hub(url: str, what: str) -> Iterator[None]:
    """Around a call that loads the published weights at `url` through the cache of torch hub (TORCH_HOME).

    Raises MissingWeightsError when they are neither cached nor reachable, or the cached file is broken.
    """
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    try:
        yield
    except (*_BROKEN, HTTPException) as error:
        raise MissingWeightsError(
            f"the weights of {what} are not at {place}, or broken, and could not be fetched ({_first_line(error)}). "
            f"Download {url} once to that place (TORCH_HOME moves it), or name the file: weights=FILE"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
