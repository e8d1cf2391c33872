"""The run record: enough to run again, written whole or not at all."""

import json
import subprocess
from pathlib import Path

import pytest

from r2r import provenance
from r2r.provenance import git_state, run_record, write_json


def test_record_has_what_a_rerun_needs(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", run_record({"seed": 7, "model": "tiny"}, images=3))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["seed"] == 7 and record["config"]["model"] == "tiny"
    assert record["images"] == 3 and record["status"] == "done"
    assert record["command"].startswith("python ")
    assert record["versions"]["torch"] and record["hardware"]["cpus"] >= 1
    assert record["seconds"] > 0 and record["peak_memory_gb"] > 0.01


def test_git_state_tells_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "r2r" / "provenance.py"))
    assert git_state() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for call in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *call], check=True)
    state = git_state()
    assert state is not None and len(state["commit"]) == 40 and not state["changed"]
    (tmp_path / "file").write_text("a")
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    assert git_state() == state | {"changed": True}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {("no", "key"): 1})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
