"""A generator in a folder: `config.json` says which and how large, `model.safetensors` holds the weights."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from r2r.errors import InputError
from r2r.models.gan.adain import PathGenerator
from r2r.models.gan.bridge import BridgeGenerator
from r2r.models.gan.checkpoints import load_official_state, read_state
from r2r.models.gan.resnet import ResnetGenerator

GENERATORS = {each.__name__: each for each in (ResnetGenerator, PathGenerator, BridgeGenerator)}
SETTINGS = "config.json"
WEIGHTS = "model.safetensors"


def save_generator(generator: nn.Module, folder: str | Path) -> None:
    """Write both files into a folder that is there."""
    config = {"generator": type(generator).__name__, "settings": generator.settings}
    (Path(folder) / SETTINGS).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({key: value.contiguous() for key, value in generator.state_dict().items()}, Path(folder) / WEIGHTS)


def load_generator(path: str | Path) -> Any:
    """A generator from an export, or from a `latest_net_G.pth` of the released code, whose kind and width its weights
    tell; frozen, in evaluation mode.

    Raises:
        InputError: neither of them, or weights that do not fit.
    """
    folder = Path(path)
    if folder.suffix == ".pth":
        generator = _released(folder)
    elif (folder / SETTINGS).is_file() and (folder / WEIGHTS).is_file():
        config = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if config.get("generator") not in GENERATORS:
            raise InputError(f"{folder} holds no generator of r2r: {SETTINGS} names {config.get('generator')!r}")
        generator = GENERATORS[config["generator"]](**config["settings"])
        generator.load_state_dict(load_file(folder / WEIGHTS))
    else:
        raise InputError(f"model={str(path)!r} is no export of cut, fastcut, santa or unsb, and no latest_net_G.pth")
    return generator.eval().requires_grad_(False)


def _released(path: Path) -> nn.Module:
    state = read_state(path)
    if "model_res.0.conv_fin.2.weight" in state:
        layers = sum(1 for key in state if key.startswith("z_transform.") and key.endswith(".weight"))
        generator: nn.Module = BridgeGenerator(len(state["model.1.weight"]), layers, released=True)
    elif "domain_embedding.weight" in state:
        generator = PathGenerator(len(state["encoder.1.weight"]), state["domain_embedding.weight"].shape[1])
    elif "model.1.weight" in state:
        blocks = sum(1 for key in state if key.endswith("conv_block.1.weight"))
        generator = ResnetGenerator(len(state["model.1.weight"]), blocks)
    else:
        raise InputError(f"{path} is no generator of CUT, SANTA or UNSB: its first weight is {next(iter(state), None)}")
    load_official_state(generator, state, str(path))
    return generator
