"""Weights of the released code, as its files hold them, and r2r's own exports."""

from pathlib import Path

import pytest
import torch
from torch import nn

from r2r.errors import InputError
from r2r.models.gan import (
    BridgeGenerator,
    PathGenerator,
    ResnetGenerator,
    load_generator,
    load_official,
    save_generator,
)
from tests.parity.conftest import load_case

IMAGE = torch.linspace(-1, 1, 3 * 16 * 20).reshape(1, 3, 16, 20)
GENERATORS = [ResnetGenerator(4, num_blocks=2), PathGenerator(4, 3), BridgeGenerator(4, 2, num_timesteps=3, tau=0.1)]


@pytest.mark.parametrize("generator", [*GENERATORS, BridgeGenerator(4, released=True)])
def test_an_export_translates_the_same(generator: nn.Module, tmp_path: Path) -> None:
    save_generator(generator, tmp_path)
    again = load_generator(tmp_path)
    assert torch.equal(again.translate(IMAGE), generator.translate(IMAGE))
    assert not again.training and not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(
    ("case_name", "prefix"), [("cut_generator", ""), ("santa_generator", ""), ("unsb_generator", "")]
)
def test_a_released_file_tells_its_kind_and_width(case_name: str, prefix: str, tmp_path: Path) -> None:
    case = load_case(case_name)
    file = tmp_path / "latest_net_G.pth"
    torch.save({f"module.{key}": value for key, value in case.weights().items()}, file)
    generator, x = load_generator(file), case.inputs("x")
    if case_name == "cut_generator":
        case.check("out", generator.translate(x))
    elif case_name == "santa_generator":
        case.check("decode_d1", generator.translate(x))
    else:
        case.check("released.t0_z", generator(x, torch.zeros(2, dtype=torch.long), case.inputs("z"))[0])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model.1.weight": torch.zeros(8, 3, 7, 7)}, "has no"),
        ({"other": torch.zeros(1)}, "first weight is other"),
        ([1, 2], "no state dict"),
    ],
)
def test_other_files_are_refused(state: object, message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "latest_net_G.pth")
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path / "latest_net_G.pth")


def test_what_does_not_fit_is_named_and_leaves_the_network_alone(tmp_path: Path) -> None:
    network = ResnetGenerator(4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save(ResnetGenerator(8).state_dict(), tmp_path / "wide.pth")
    torch.save(PathGenerator(4).state_dict(), tmp_path / "santa.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, message in {
        "wide": "another size",
        "santa": "another network",
        "text": "no weights",
        "none": "no file",
    }.items():
        with pytest.raises(InputError, match=message):
            load_official(network, tmp_path / f"{name}.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no export of cut, fastcut, santa or unsb"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text('{"generator": "UNet"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="names 'UNet'"):
        load_generator(tmp_path)
