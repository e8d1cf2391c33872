"""How far an ablation is, by what lies on disk."""

from pathlib import Path

import pytest

from r2r.ablation import work
from r2r.ablation.rows import Unit
from r2r.ablation.work import Progress, _leave_something, count_done, levels


def test_counts_pictures_and_steps(tmp_path: Path) -> None:
    train, row = Unit("t", "train", [], total=4), Unit("r", "translate", [], total=3)
    sweep = Unit("s", "sweep", [], total=4)
    assert [count_done(each, tmp_path) for each in (train, row, sweep)] == [0, 0, 0]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "metrics.csv").write_text("step,loss\n0,1\n2,1\n")
    for name in ("r/a.png", "r/.b.png.partial", "s/strength_1/tac_0/a.png", "s/figure_1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [count_done(each, tmp_path) for each in (train, row, sweep)] == [2, 1, 1]
    (tmp_path / "t" / "export").mkdir()
    assert count_done(train, tmp_path) == 4


def test_tells_the_share_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    units = [Unit("a", "translate", [], total=4, cost=300), Unit("b", "translate", [], total=1, cost=100)]
    progress = Progress(units, tmp_path)
    assert progress() == "0% of the work"
    (tmp_path / "a").mkdir()
    for number in range(2):
        (tmp_path / "a" / f"{number}.png").touch()
    now[0] += 30
    assert progress() == "38% of the work, 0:50 left"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.png").touch()
    now[0] += 0.1
    assert progress() == "38% of the work, 0:50 left"  # the disk is looked at once a second


def test_a_need_comes_before() -> None:
    units = {
        name: Unit(name, "translate", [], needs) for name, needs in {"a": ("b",), "b": (), "c": ("a", "b")}.items()
    }
    assert levels(units) == [["b"], ["a"], ["c"]]


def test_a_translation_without_a_record_has_something_left_to_do(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    _leave_something(Unit("r", "translate", []), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / "run.json").touch()
    _leave_something(Unit("r", "translate", []), tmp_path)
    assert (tmp_path / "a.png").exists()
