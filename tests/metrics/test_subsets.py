"""KID over subsets equals torch-fidelity, torchmetrics and clean-fid on the same subsets; global generators rest."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from r2r.errors import InputError
from r2r.metrics import subsets
from r2r.metrics.realism import kid
from r2r.metrics.subsets import clean_fid, clean_fid_kid, subset_kid, torch_fidelity_kid, torchmetrics_kid

SIZE, COUNT, SEED = 12, 7, 3


def gaussians(n: int, shift: float = 0.0, seed: int = 0, d: int = 16) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    return gaussians(30, 0.4, seed=1), gaussians(25, seed=2)


def drawn(n: int, seed: int, size: int = SIZE, count: int = COUNT) -> Tensor:
    draws = np.random.RandomState(seed)
    return torch.stack([torch.from_numpy(draws.choice(n, size, replace=False)) for _ in range(count)])


def test_equals_both_libraries_on_the_same_subsets(sets: tuple[Tensor, Tensor]) -> None:
    outputs, target = sets
    rows, columns = drawn(30, 0), drawn(25, 1)
    values = subset_kid(outputs, target, rows, columns)
    for index, value in enumerate(values.tolist()):
        held = outputs[rows[index]], target[columns[index]]
        assert value == pytest.approx(kernel_mmd(*(side.numpy() for side in held)), rel=1e-9)
        assert value == pytest.approx(poly_mmd(*held).item(), rel=1e-9)


@pytest.mark.parametrize("limit", [1, 2**24])
def test_few_small_subsets_of_large_sets_take_batches_and_agree(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsets, "_BATCH_ELEMENTS", limit)
    outputs, target = gaussians(90, 0.4, seed=1), gaussians(80, seed=2)
    rows, columns = drawn(90, 0, size=4, count=5), drawn(80, 1, size=4, count=5)
    assert rows.numel() * rows.shape[1] < 90**2, "would use the kernel matrix of the whole sets"
    expected = [poly_mmd(outputs[row], target[column]) for row, column in zip(rows, columns, strict=True)]
    assert torch.allclose(subset_kid(outputs, target, rows, columns), torch.stack(expected), rtol=1e-9)


def test_subsets_of_everything_are_the_exact_value(sets: tuple[Tensor, Tensor]) -> None:
    outputs, target = sets
    everything = torch.arange(25).expand(2, -1)
    values = subset_kid(outputs[:25], target, everything, everything)
    assert values.tolist() == pytest.approx([kid(outputs[:25], target).value] * 2, rel=1e-9)


def test_torch_fidelity_is_its_own_number(sets: tuple[Tensor, Tensor]) -> None:
    options = {"kid_subset_size": SIZE, "kid_subsets": COUNT, "rng_seed": SEED, "verbose": False}
    expected = kid_features_to_metric(*sets, **options)
    estimate = torch_fidelity_kid(*sets, SIZE, COUNT, SEED)
    assert estimate.value == expected["kernel_inception_distance_mean"]
    assert estimate.high - estimate.value == pytest.approx(1.96 * expected["kernel_inception_distance_std"])
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_torchmetrics_is_its_metric_after_the_same_seed(sets: tuple[Tensor, Tensor]) -> None:
    metric = KernelInceptionDistance(nn.Identity(), subsets=COUNT, subset_size=SIZE)
    metric.update(sets[1], real=True)
    metric.update(sets[0], real=False)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        mean, std = metric.compute()
    estimate = torchmetrics_kid(*sets, SIZE, COUNT, SEED)
    assert estimate.value == pytest.approx(mean.item(), rel=1e-6)
    assert estimate.high - estimate.value == pytest.approx(1.96 * std.item(), rel=1e-6)


def test_clean_fid_is_its_function_after_the_same_seed(sets: tuple[Tensor, Tensor]) -> None:
    library = pytest.importorskip("cleanfid.fid")
    state = np.random.get_state()
    np.random.seed(SEED)
    expected = library.kernel_distance(sets[1].numpy(), sets[0].numpy(), num_subsets=COUNT, max_subset_size=SIZE)
    np.random.set_state(state)
    assert clean_fid_kid(*sets, SIZE, COUNT, SEED).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("backend", [torch_fidelity_kid, torchmetrics_kid, clean_fid_kid])
def test_reproducible_and_global_generators_untouched(backend: object, sets: tuple[Tensor, Tensor]) -> None:
    if backend is clean_fid_kid:
        pytest.importorskip("cleanfid.fid")
    assert callable(backend)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    first = backend(*sets, SIZE, COUNT, SEED)
    assert first == backend(*sets, SIZE, COUNT, SEED)
    assert first != backend(*sets, SIZE, COUNT, SEED + 1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state(legacy=False)["state"]["key"])


def test_absent_clean_fid_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(subsets, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install \"r2r\[clean-fid\]\""):
        clean_fid()
