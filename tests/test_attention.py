"""Identities of the attention core, on a small random U-Net."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from r2r.attention import (
    AttentionBank,
    AttentionInputs,
    AttentionSite,
    Fuse,
    Inject,
    KeyValue,
    Record,
    RowMap,
    Rows,
    Sites,
    attend,
    attention_control,
    attention_sites,
    install,
    restore,
    snapshot,
)

SELF, SHALLOW = Sites("self"), Sites("self", max_stride=1)


def batch(seed: int = 0, rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(rows, 4, 24, 16, generator=generator),
        "timestep": torch.tensor(7),
        "encoder_hidden_states": torch.randn(rows, 5, 24, generator=generator),
    }


def joined(*batches: dict[str, Tensor]) -> dict[str, Tensor]:
    both = {key: torch.cat([b[key] for b in batches]) for key in ("sample", "encoder_hidden_states")}
    return {**both, "timestep": batches[0]["timestep"]}


def run(unet: UNet2DConditionModel, inputs: dict[str, Any]) -> Tensor:
    return unet(**inputs).sample


def gradients(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}


@torch.no_grad()
def test_sites_know_their_token_grid(unet: UNet2DConditionModel) -> None:
    seen = {}

    def probe(inputs: AttentionInputs, site: AttentionSite) -> AttentionInputs:
        seen[site.name] = inputs.query.shape[2]
        return inputs

    with attention_control(unet, probe):
        run(unet, batch())
    for site in attention_sites(unet):
        rows, columns = site.token_grid(24, 16)
        assert seen[site.name] == rows * columns
    assert list(seen) == [site.name for site in attention_sites(unet)]  # in the order of the calls
    assert {site.stride for site in attention_sites(unet)} == {1, 2, 4}


def test_sites_outside_a_unet_are_refused(unet: UNet2DConditionModel) -> None:
    holder = SimpleNamespace(config=unet.config, attn_processors={"transformer.attn1.processor": None})
    holder.set_attn_processor = unet.set_attn_processor
    with pytest.raises(ValueError, match="transformer"):
        attention_sites(holder)


@torch.no_grad()
def test_no_control_is_plain_diffusers_bit_for_bit(unet: UNet2DConditionModel) -> None:
    unet.set_attn_processor(AttnProcessor2_0())
    plain = run(unet, batch())
    with attention_control(unet):
        assert torch.equal(run(unet, batch()), plain)
    masked = {**batch(), "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()}
    plain = run(unet, masked)
    with attention_control(unet):
        assert torch.equal(run(unet, masked), plain)


@torch.no_grad()
def test_the_model_is_left_as_it_was_found(unet: UNet2DConditionModel) -> None:
    before = dict(unet.attn_processors)
    with pytest.raises(RuntimeError, match="inside"), attention_control(unet):
        raise RuntimeError("inside")
    assert unet.attn_processors.keys() == before.keys()
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def test_scope_refuses_gradients(unet: UNet2DConditionModel) -> None:
    with pytest.raises(RuntimeError, match="no_grad"), attention_control(unet):
        pass


@torch.no_grad()
def test_injecting_ones_own_record_is_the_identity(unet: UNet2DConditionModel) -> None:
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        source = run(unet, batch(0))
    assert bank.keys() == {site.name for site in attention_sites(unet) if site.kind == "self"}
    with attention_control(unet, Inject(SELF, bank=bank)):
        assert torch.equal(run(unet, batch(0)), source)
        other = run(unet, batch(1))
    assert not torch.allclose(other, run(unet, batch(1)))


@torch.no_grad()
def test_inject_moves_queries_and_keys_at_its_sites_only(unet: UNet2DConditionModel) -> None:
    bank, got = AttentionBank(), AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        run(unet, batch(0))
    with attention_control(unet, Inject(SHALLOW, bank=bank), Record(got, SELF)):
        run(unet, batch(1))
    for site in attention_sites(unet):
        if site.kind == "self":
            for part in ("query", "key"):
                assert torch.equal(got[site.name].part(part), bank[site.name].part(part)) == SHALLOW(site)
            assert not torch.equal(got[site.name].part("value"), bank[site.name].part("value"))


@torch.no_grad()
def test_batched_rows_equal_separate_calls(unet: UNet2DConditionModel) -> None:
    """The source may ride in the batch or come from a bank; bystanders are untouched either way."""
    source, bystander, target = batch(0), batch(1), batch(2)
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        run(unet, source)
    with attention_control(unet, Inject(SELF, bank=bank)):
        expected = run(unet, target)
    rows = Rows(("source", "bystander", "target"), 2)
    with attention_control(unet, Inject(SELF, rows.route(target="source"))):
        got = run(unet, joined(source, bystander, target))
    torch.testing.assert_close(got[rows["target"]], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[rows["bystander"]], run(unet, bystander), rtol=1e-5, atol=1e-5)
    two = Rows(("bystander", "target"), 2)
    from_bank = Inject(SELF, RowMap(((two["target"], slice(0, 2)),)), bank)
    with attention_control(unet, from_bank):
        got = run(unet, joined(bystander, target))
    torch.testing.assert_close(got[two["target"]], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_disabled_inject_is_the_identity(unet: UNet2DConditionModel) -> None:
    rows = Rows(("source", "target"), 1).route(target="source")
    with attention_control(unet):
        plain = run(unet, batch())
    with attention_control(unet, Inject(SELF, rows, enabled=False)):
        assert torch.equal(run(unet, batch()), plain)


def test_inject_needs_a_donor() -> None:
    with pytest.raises(ValueError, match="rows"):
        Inject(SELF)


def test_row_maps_by_hand() -> None:
    rows = Rows(("a", "b", "c"), 2)
    own = torch.arange(6.0)[:, None]
    assert rows.route(c="a").place(own, own).flatten().tolist() == [0, 1, 2, 3, 0, 1]
    assert rows.route(b="c", a="b").place(own, own).flatten().tolist() == [2, 3, 4, 5, 4, 5]
    assert own.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="tuple"):
        rows.route(d="a")


@torch.no_grad()
def test_snapshots_survive_new_records(unet: UNet2DConditionModel) -> None:
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        run(unet, batch(0))
        kept = snapshot(bank)
        buffers = {name: inputs.query.data_ptr() for name, inputs in bank.items()}
        run(unet, batch(1))
    assert {name: inputs.query.data_ptr() for name, inputs in bank.items()} == buffers  # overwritten in place
    name = next(iter(bank))
    assert not torch.equal(bank[name].query, kept[name].query)
    restore(bank, kept)
    assert all(torch.equal(bank[name].part(p), kept[name].part(p)) for name in bank for p in ("query", "key", "value"))
    fresh = AttentionBank()
    restore(fresh, kept)
    assert fresh[name].query.data_ptr() != kept[name].query.data_ptr()
    assert torch.equal(fresh[name].query, kept[name].query)


@torch.no_grad()
def test_fuse_with_everything_masked_is_the_identity(unet: UNet2DConditionModel) -> None:
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        run(unet, batch(0))
    with attention_control(unet, Fuse(bank, SELF, lambda site, m: torch.zeros(2, 1, 1, m, dtype=torch.bool))):
        masked = run(unet, batch(1))
    with attention_control(unet, Fuse(bank, SELF)):
        fused = run(unet, batch(1))
    torch.testing.assert_close(masked, run(unet, batch(1)), rtol=1e-5, atol=1e-5)
    assert torch.isfinite(fused).all() and not torch.allclose(fused, masked)


@torch.no_grad()
def test_fusing_with_oneself_is_the_identity(unet: UNet2DConditionModel) -> None:
    """Softmax over [K; K] halves every weight, so doubled keys and values change nothing."""
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        source = run(unet, batch(0))
    with attention_control(unet, Fuse(bank, SELF)):
        torch.testing.assert_close(run(unet, batch(0)), source, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_fuse_reaches_mapped_rows_only(unet: UNet2DConditionModel) -> None:
    """Rows of a guidance batch: the reference is fused into one half, the other stays plain; masks still apply."""
    bank = AttentionBank()
    with attention_control(unet, Record(bank, SELF)):
        run(unet, batch(0))
    with attention_control(unet, Fuse(bank, SELF)):
        expected = run(unet, batch(1))
    rows = Rows(("negative", "prompt"), 2)
    to_prompt = RowMap(((rows["prompt"], slice(0, 2)),))
    with attention_control(unet, Fuse(bank, SELF, rows=to_prompt)):
        got = run(unet, joined(batch(2), batch(1)))
    torch.testing.assert_close(got[rows["prompt"]], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[rows["negative"]], run(unet, batch(2)), rtol=1e-5, atol=1e-5)


def test_attend_by_hand() -> None:
    """Equal scores give the mean of the values; an appended source adds its own mean, scaled."""
    query = torch.zeros(1, 1, 1, 2)
    own = KeyValue(torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [3.0, 2.0]]]]))
    extra = KeyValue(torch.zeros(1, 1, 1, 2), torch.tensor([[[[10.0, 20.0]]]]), scale=0.5)
    assert attend(AttentionInputs(query, (own,))).flatten().tolist() == [2.0, 1.0]
    assert attend(AttentionInputs(query, (own, extra))).flatten().tolist() == [7.0, 11.0]


def test_a_reference_net_gets_gradients(unet: UNet2DConditionModel) -> None:
    reference, bank = copy.deepcopy(unet), AttentionBank()
    install(reference, Record(bank, SELF))
    install(unet, Fuse(bank, SELF))
    run(reference, batch(0))
    run(unet, batch(1)).sum().backward()
    reached = {name for name, grad in gradients(reference).items() if grad.abs().sum() > 0}
    assert any("attn1.to_k" in name for name in reached) and any("attn1.to_v" in name for name in reached)


def test_installed_controls_survive_gradient_checkpointing(unet: UNet2DConditionModel) -> None:
    reference, bank = copy.deepcopy(unet), AttentionBank()
    with torch.no_grad(), attention_control(reference, Record(bank, SELF)):
        run(reference, batch(0))
    install(unet, Fuse(bank, SELF))
    unet.train()
    run(unet, batch(1)).sum().backward()
    expected = gradients(unet)
    unet.zero_grad(set_to_none=True)
    unet.enable_gradient_checkpointing()
    run(unet, batch(1)).sum().backward()
    for name, grad in gradients(unet).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-4)
