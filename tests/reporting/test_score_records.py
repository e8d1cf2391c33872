"""Scores survive the disk with their protocols, and evaluations of other protocols never share a column."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from r2r.errors import DataError, InputError
from r2r.metrics import PSNR, SSIM, Backbone
from r2r.metrics.distances import KID
from r2r.provenance import write_json
from r2r.reporting import Comparison, Outputs, Scenes
from r2r.reporting.score_records import estimate, joint_table, read_scores, score_record


def compared(*, paired: bool = True, count: int = 5, seed: int = 0) -> Comparison:
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
    scenes = Scenes([f"{i}" for i in range(count)], list(images), list(images + 0.3), paired=paired)
    methods = [Outputs(name, list(images + shift), seconds=1.5) for name, shift in {"near": 0.05, "far": 0.2}.items()]
    kid = KID(Backbone("means", lambda images: images.mean((2, 3))), seed=seed)
    return Comparison(scenes, methods, {"kid": kid, "ssim": SSIM(), "psnr": PSNR()}, seed=seed)


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    write_json(tmp_path / "scores.json", score_record(compared()))
    return dict(read_scores(tmp_path))


def test_numbers_survive_the_disk(record: dict[str, Any]) -> None:
    comparison = compared()
    assert [(row["name"], row["kind"]) for row in record["rows"]] == [
        *[("input", "identity"), ("near", "method"), ("far", "method"), ("target vs target", "floor")]
    ]
    for row in record["rows"][:3]:
        for title, numbers in row["scores"].items():
            assert estimate(numbers) == comparison.estimate(title, row["name"])
    assert estimate(record["rows"][0]["scores"]["PSNR to source [dB]"]).value == math.inf
    assert record["rows"][1]["costs"] == {"evals": None, "seconds": 1.5, "memory_gb": None}
    assert {title: about["protocol"] for title, about in record["columns"].items()} == comparison.protocols()


def test_valid_json_without_infinities(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    write_json(tmp_path / "scores.json", score_record(compared()))
    stored = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    identity = stored["rows"][0]["scores"]["PSNR to source [dB]"]
    assert identity["value"] == "inf" and estimate(identity).value == math.inf


def test_all_changes_are_kept(record: dict[str, Any]) -> None:
    comparison, kept = compared(), {(c["column"], c["after"], c["before"]): c for c in record["changes"]}
    assert len(kept) == 3 * len(comparison.columns)
    change = kept["SSIM to source", "far", "near"]
    assert estimate(change) == comparison.change("SSIM to source", "far", "near")


def test_equal_protocols_share_columns(record: dict[str, Any]) -> None:
    table = joint_table("both", {"a": record, "b": record})
    assert [column.title for column in table.columns] == ["Images", *record["columns"]]
    assert [row[0] for row in table.rows[:5]] == ["a: input", "a: near", "a: far", "a: target vs target", "b: input"]
    assert table.rows[1][1:] == table.rows[5][1:]
    assert table.references == {0, 3, 4, 7}
    assert table.notes == []
    assert [row[0] for row in joint_table("one", {"a": record}).rows[:2]] == ["input", "near"]


def test_cells_of_another_protocol_never_share_a_column(record: dict[str, Any]) -> None:
    others = {"fewer": compared(count=4), "another seed": compared(seed=1)}
    table = joint_table("all", {"first": record, **{name: score_record(each) for name, each in others.items()}})
    kids = [i for i, column in enumerate(table.columns) if column.title.startswith("KID to target (means)")]
    assert [table.columns[i].title for i in kids] == [f"KID to target (means) #{number}" for number in (1, 2, 3)]
    methods = {row[0]: row for row in table.rows}
    for name, filled in {"first: near": 0, "fewer: near": 1, "another seed: near": 2}.items():
        assert [methods[name][i] is not None for i in kids] == [place == filled for place in range(3)]
    ssims = [i for i, column in enumerate(table.columns) if column.title.startswith("SSIM to source")]
    assert [methods["another seed: near"][i] is not None for i in ssims] == [
        True,
        False,
    ]  # the seed changes no protocol
    assert "KID to target (means) #2: seed 0, num_outputs 4, num_target 4." in table.notes
    unpaired = joint_table("all", {"first": record, "unpaired": score_record(compared(paired=False))})
    note = next(note for note in unpaired.notes if note.startswith("KID to target (means) #1"))
    assert "same-scene pairs left out" in note


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scores\.json in .*r2r\.evaluate"):
        read_scores(tmp_path)
    for text in ("{", "{}", "[]"):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(DataError, match=r"cannot read .*scores\.json"):
            read_scores(tmp_path)
