"""The W&B report is complete on disk without an account, and refuses to be published where that cannot work."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from r2r.errors import InputError
from r2r.metrics import Estimate, protocol
from r2r.reporting.pages import Finding, Link, Page
from r2r.reporting.tables import Column, Table
from r2r.reporting.wandb_report import Board, check_publishable, publish, report_spec

wandb = pytest.importorskip("wandb")
PAGE = Page(
    title="Rendered to real" * 10,
    lead="Two scenes.",
    columns=[],
    scenes=[],
    compared=(0, 1),
    findings=[Finding("KID falls.", "−0.1", True)],
    tables=[
        Table("Scores", [Column("Images"), Column("KID", 2, "lower")], [["r2r", Estimate(0.2, 0.1, 0.3, 2)]], ["N."])
    ],
    protocols={"KID": protocol("KID", n=2)},
    caveats=["A tiny model."],
    commands=["python -m r2r.report"],
    settings={},
    links=[Link("train", "https://wandb.ai/team/r2r/runs/1", "its run"), Link("r2r", Path("r2r"))],
)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def library() -> Iterator[Any]:
    pytest.importorskip("wandb_workspaces")
    from r2r.reporting.wandb_report import _library

    return _library()


def blocks(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in spec["spec"]["blocks"] if block["type"] == kind]


@pytest.mark.usefixtures("library", "no_account")
def test_the_spec_needs_no_account_and_holds_everything() -> None:
    spec = report_spec(PAGE, Board("r2r", "team", ["train/loss"]), ["grid"])
    assert json.loads(json.dumps(spec)) == spec
    assert spec["displayName"] == PAGE.title[:128] and spec["description"] == "Two scenes."
    [table, protocols, commands] = [block["content"] for block in blocks(spec, "markdown-block")]
    assert table == PAGE.tables[0].to_markdown()
    assert "**KID**: metric KID, n 2" in protocols and "python -m r2r.report" in commands
    [pictures, runs] = [grid["metadata"] for grid in blocks(spec, "panel-grid")]
    assert pictures["panelBankSectionConfig"]["panels"][0]["config"]["mediaKeys"] == ["report/grid"]
    comparer, curve = runs["panelBankSectionConfig"]["panels"]
    assert comparer["viewType"] == "Run Comparer" and curve["config"]["metrics"] == ["train/loss"]
    assert [link["url"] for gallery in blocks(spec, "gallery") for link in gallery["links"]] == [PAGE.links[0].target]


@pytest.mark.usefixtures("no_account")
def test_the_library_reads_its_own_format_back(library: Any) -> None:
    spec = report_spec(PAGE, Board("r2r"), ["grid"])
    model = library.internal.ReportViewspec.model_validate({**spec, "spec": json.dumps(spec["spec"])})
    kinds = [type(block).__name__ for block in library.Report._from_model(model).blocks]
    assert kinds[:3] == ["UnorderedList", "H2", "MarkdownBlock"] and kinds.count("PanelGrid") == 2


@pytest.mark.usefixtures("library", "no_account")
def test_no_project_no_panels() -> None:
    assert blocks(report_spec(PAGE, Board()), "panel-grid") == []


@pytest.mark.usefixtures("library", "no_account")
@pytest.mark.parametrize(
    ("board", "mode", "message"),
    [
        (Board(), None, "wandb_project=NAME"),
        (Board("r2r"), "offline", "WANDB_MODE=offline"),
        (Board("r2r"), None, "wandb login"),
    ],
)
def test_what_cannot_be_published_is_refused(
    board: Board, mode: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(InputError, match=message):
        check_publishable(board)
    with pytest.raises(InputError, match=message):
        publish(PAGE, board, {})


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(InputError, match=r'pip install "r2r\[wandb-reports\]"'):
        report_spec(PAGE, Board())


class _Run(SimpleNamespace):
    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *args: object) -> None:
        self.finished = True


def test_publishing_logs_pictures_and_shows_that_run(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the server: what would be sent, and in which order."""
    logged: dict[str, Any] = {}
    run = _Run(id="abc", project="r2r", entity="team", log=logged.update)
    saved: list[Any] = []
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr(wandb, "init", lambda **options: run)
    monkeypatch.setattr(library.Report, "save", lambda self: saved.append(self))
    monkeypatch.setattr(library.Report, "url", "https://wandb.ai/team/r2r/reports/x")
    assert publish(PAGE, Board("r2r"), {"grid": Image.new("RGB", (4, 4))}) == "https://wandb.ai/team/r2r/reports/x"
    assert list(logged) == ["report/grid"] and run.finished
    [report] = saved
    grids = [block for block in report.blocks if isinstance(block, library.PanelGrid)]
    assert (report.entity, report.project) == ("team", "r2r")
    assert grids[0].runsets[0].filters == "Metric('ID') == 'abc'"
