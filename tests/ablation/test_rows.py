"""Rows are data: what jobs they make, on which models, after what; and what cannot be made is refused."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from r2r.ablation.rows import Row, evaluations, model_of, read_rows, trainings_of, translation, units
from r2r.ablation.work import levels
from r2r.cli import CONF, compose
from r2r.errors import InputError

EXPERIMENTS = sorted(path.stem for path in (CONF / "ablation" / "experiment").glob("*.yaml"))


def config(*overrides: str, experiment: str = "fashion_ablation") -> DictConfig:
    return compose("ablation", [f"experiment={experiment}", "output=out", *overrides])


def test_rows_of_the_issue_are_there() -> None:
    rows = read_rows(config())
    assert [row.name for row in rows.values()] == [
        *["input (identity)", "autoencoder only", "SDEdit", "full", "no positive finetune"],
        *["no positive finetune, guidance 2.5", "no negative embedding", "no TAC", "TAC on both halves"],
    ]
    assert rows["no_tac"].translation == {"tac_ratio": 0} and rows["no_tac"].embedding == "finetuned"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_job_is_one_the_verbs_know(experiment: str, tmp_path: Path) -> None:
    photos = ["photos=somewhere"] if experiment == "fashion_real" else []
    cfg = config(*photos, "seeds=[3,4]", experiment=experiment)
    for unit in units(cfg, read_rows(cfg), tmp_path, 5).values():
        plan = unit.plan(tmp_path)
        assert plan.module == f"r2r.{unit.verb}" and plan.folder == tmp_path / unit.name
        if unit.verb == "train":
            assert plan.task["paths"]["output_dir"] == str(plan.folder)
            assert plan.task["seed"] == int(unit.name[5])
        else:
            assert plan.task["output"] == str(plan.folder)


def test_jobs_rest_on_the_models_of_their_seed(tmp_path: Path) -> None:
    cfg = config("seeds=[0,2]")
    made = units(cfg, read_rows(cfg), tmp_path, 5)
    assert len(made) == 2 * (3 + 6) + 1 + 1 + 1  # the autoencoder, more guidance and the sweep once
    full = made["seed_2/full"].plan(tmp_path).task
    assert full["model"] == str(tmp_path / "seed_2" / "positive" / "export")
    assert full["negative_embedding"] == str(
        tmp_path / "seed_2" / "negative_finetuned" / "export" / "rendered.safetensors"
    )
    assert full["seed"] == 2 and full["strength"] == cfg.translation.strength
    assert made["seed_2/full"].needs == ("seed_2/positive", "seed_2/negative_finetuned")
    base = made["seed_2/no_positive"].plan(tmp_path).task
    assert base["model"] == "tiny" and "negative_base" in base["negative_embedding"]
    assert made["seed_2/no_positive"].needs == ("seed_2/negative_base",)
    embedding = made["seed_2/negative_finetuned"].plan(tmp_path).task
    assert embedding["model"]["pretrained"] == full["model"] and embedding["name"] == "fashion_negative"
    assert made["seed_0/sdedit"].plan(tmp_path).task["negative_embedding"] is None
    assert "seed_2/autoencoder" not in made


def test_only_what_rows_rest_on_is_trained(tmp_path: Path) -> None:
    cfg = config(
        "~rows.no_positive",
        "~rows.no_positive_more",
        "~rows.full",
        "~rows.no_tac",
        "~rows.both_halves",
        "full=sdedit",
        "claims=[]",
    )
    trained = [name for name, unit in units(cfg, read_rows(cfg), tmp_path, 5).items() if unit.verb == "train"]
    assert trained == ["seed_0/positive"]


def test_levels_follow_the_needs(tmp_path: Path) -> None:
    cfg = config()
    made = units(cfg, read_rows(cfg), tmp_path, 5)
    steps = levels(made)
    assert set(steps[0]) == {"seed_0/positive", "seed_0/negative_base", "seed_0/autoencoder"}
    rows = "sdedit", "no_positive", "no_positive_more", "no_negative"
    assert set(steps[1]) == {"seed_0/negative_finetuned", *(f"seed_0/{row}" for row in rows)}
    assert [made[name].cost for name in steps[2]] == sorted((made[name].cost for name in steps[2]), reverse=True)


def test_a_row_may_be_added_by_the_command_line(tmp_path: Path) -> None:
    cfg = config("+rows.weak={name: weak, model: finetuned, translation: {strength: 0.25}}")
    unit = translation(cfg, read_rows(cfg)["weak"], 0, tmp_path, 3)
    assert unit.plan(tmp_path).task["strength"] == 0.25


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+rows.x={model: finest}", "model=finest"),
        ("+rows.x={modle: base}", "modle"),
        ("+rows.x={model: none}", "input, x"),
        ("full=fool", "full=fool"),
    ],
)
def test_rows_that_cannot_be_made_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(config(override))


def test_settings_that_translation_does_not_know_are_refused(tmp_path: Path) -> None:
    cfg = config("+rows.x={model: base, translation: {strenght: 1}}")
    unit = translation(cfg, read_rows(cfg)["x"], 0, tmp_path, 3)
    with pytest.raises(Exception, match="strenght"):
        unit.plan(tmp_path)


def test_cost_is_about_that_of_the_pipeline() -> None:
    """The documented 58 evaluations of 16 steps at full strength are two more: steps that cannot change anything."""
    demo = {"num_inference_steps": 16, "strength": 1.0, "guidance_scale": 7.5, "tac_ratio": 0.9}
    assert evaluations(demo) == 62
    assert evaluations({**demo, "strength": 0.0}) == 0
    assert evaluations({**demo, "start": "noise", "tac_ratio": 0, "guidance_scale": 1}) == 16


def test_models_by_name() -> None:
    cfg = config("model=some/folder")
    assert model_of(cfg, "base", 0, Path("out")) == ("some/folder", ())
    assert Row("x", "x").model == "finetuned"


def test_a_row_of_a_recipe_of_its_own_is_trained_from_scratch(tmp_path: Path) -> None:
    cfg = config("seeds=[0,2]", experiment="baselines")
    made = units(cfg, read_rows(cfg), tmp_path, 5)
    trained, translated = made["seed_2/unsb_released_training"], made["seed_2/unsb_released"]
    task = trained.plan(tmp_path).task
    assert task["model"]["_target_"].endswith("BridgeGenerator") and task["model"]["released"] is True
    assert (task["seed"], task["trainer"]["max_steps"], trained.total) == (2, 1500, 1500)
    assert translated.needs == (trained.name,)
    job = translated.plan(tmp_path).task
    assert job["model"] == str(tmp_path / trained.name / "export")
    assert job["task"]["_target_"].endswith("GeneratorTranslator")
    vct = made["seed_0/vct"].plan(tmp_path).task
    assert (
        vct["reference"].endswith("reference.png") and vct["task"]["guidance_scale"] == cfg.translation.guidance_scale
    )
    assert "seed_2/vct" not in made
    assert trainings_of(cfg, read_rows(cfg)["full"], 2) == ["seed_2/positive", "seed_2/negative_finetuned"]
    assert trainings_of(cfg, read_rows(cfg)["vct"], 2) == []


def test_a_recipe_may_begin_with_what_another_made(tmp_path: Path) -> None:
    cfg = config("seeds=[1]", experiment="igr_studio")
    made, rows = units(cfg, read_rows(cfg), tmp_path, 5), read_rows(cfg)
    fine = made["seed_1/fine_training"]
    assert fine.needs == ("seed_1/first_training",) and fine.total == 400
    task = fine.plan(tmp_path).task
    assert task["task"]["initial"] == str(tmp_path / "seed_1" / "first_training" / "export")
    assert task["data"]["curation"] is not None and task["model"]["pretrained"] == "tiny"
    assert trainings_of(cfg, rows["full"], 1) == ["seed_1/first_training", "seed_1/fine_training"]
    job = made["seed_1/full"].plan(tmp_path).task
    assert job["task"]["parsing"] == str(Path("out") / "scenes" / "parsing")
