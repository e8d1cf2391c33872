"""Weights of the released code of CUT, SANTA and UNSB (`latest_net_G.pth` and the like) in r2r's networks.

The networks have the released module names, so a file fits once the filters of the resampling, which are constants
here, and the layers that UNSB's code never uses are left out.
"""

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from r2r.errors import InputError

CONSTANTS = re.compile(r"\.filt$")
UNUSED = re.compile(r"^model_res\.\d+\.style\.")  # of UNSB: built, never called
UNUSED_RELEASED = re.compile(
    r"^model_res\.\d+\.(conv_block|Dense_time)\.|^time_embed\."
)  # as well, by the released block


def load_official(network: nn.Module, path: str | Path) -> None:
    """Load a state dict that the released code saved with `torch.save` into a network of the same sizes.

    Raises:
        InputError: no such file, no state dict, or one of another network or size; the network is then as it was.
    """
    load_official_state(network, read_state(path), str(path))


def load_official_state(network: nn.Module, state: dict[str, Tensor], name: str = "weights") -> None:
    """The same with a state dict at hand; `name` is how errors call it."""
    known = network.state_dict()
    state = {key: value for key, value in state.items() if key in known or not _left_out(key)}
    if surplus := sorted(set(state) - set(known)):
        raise InputError(f"{name} is of another network: {type(network).__name__} has no {surplus[0]}")
    if missing := sorted(set(known) - set(state)):
        raise InputError(f"{name} is of another network: it has no {missing[0]} for {type(network).__name__}")
    for key, value in state.items():
        if value.shape != known[key].shape:
            sizes = f"{tuple(value.shape)}, not {tuple(known[key].shape)}"
            raise InputError(f"{name} is of another size: {key} has shape {sizes}; set model.width to fit")
    network.load_state_dict(state)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A pickled state dict, read without running what is in it; the prefix of `DataParallel` is taken off."""
    if not Path(path).is_file():
        raise InputError(f"{path} is no file; give a latest_net_*.pth of the released code")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} holds no weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict; give a latest_net_*.pth of the released code")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _left_out(key: str) -> bool:
    return any(pattern.search(key) for pattern in (CONSTANTS, UNUSED, UNUSED_RELEASED))
