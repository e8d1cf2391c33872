"""Reference tensors computed by the official implementations; sizes and settings come from the files."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(os.environ.get("R2R_PARITY") or Path(__file__).parents[3] / "shared" / "parity")


@dataclass(frozen=True)
class Case:
    """One file: tensors by name, the recorded settings, and its tolerance."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def hyper(self) -> dict[str, Any]:
        """Sizes and hyper-parameters."""
        return self.meta["hyper"]

    def weights(self, prefix: str = "weights.") -> dict[str, Tensor]:
        """A state dict with the prefix removed."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def inputs(self, name: str) -> Tensor:
        """A recorded input."""
        return self.tensors[f"inputs.{name}"]

    def check(self, name: str, got: Tensor) -> None:
        """Equal up to the file's tolerance, relative to the largest expected value."""
        expected = self.tensors[f"expected.{name}"]
        assert got.shape == expected.shape, name
        error = (got - expected).abs().max() / expected.abs().max()
        assert error <= self.meta["tolerance"], f"{name}: {error:.2e} > {self.meta['tolerance']:.0e}"


def load_case(name: str) -> Case:
    """Read `<name>.safetensors` of the parity folder, or skip with the reason."""
    path = FOLDER / f"{name.removesuffix('.safetensors')}.safetensors"
    if not path.is_file():
        pytest.skip(f"no reference tensors at {path}; set R2R_PARITY to their folder")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        return Case(tensors, json.loads(file.metadata()["parity"]))


@pytest.fixture(scope="session")
def parity_unet() -> UNet2DConditionModel:
    """The U-Net shared by the FashionR2R, PnP and MasaCtrl cases."""
    case = load_case("fashionr2r_unet")
    unet = UNet2DConditionModel(**case.hyper["unet"]).eval().requires_grad_(False)
    unet.load_state_dict(case.weights())
    return unet


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def check_update(got: Tensor, initial: Tensor, expected: Tensor, gradient: Tensor) -> None:
    """An Adam step is a sign: where the gradient is not near zero, 99 % of the elements must have moved alike."""
    clear = gradient.abs() > 1e-4 * gradient.abs().max()
    alike = ((got - initial) - (expected - initial)).abs() <= 1e-6
    assert alike[clear].float().mean() >= 0.99


def check_gradient(case: Case, name: str, got: Tensor) -> None:
    """Up to a relative L2 error of 3e-2: a ReLU unit that changes its sign is a jump; a mistake shows as 0.1."""
    expected = case.tensors[f"expected.{name}"]
    assert got.shape == expected.shape, name
    assert (got - expected).norm() / expected.norm() <= 3e-2, name
