"""The rows of an ablation, and the jobs that make them: trainings and translations, each with what it needs first.

A job is what a verb would be given on the command line, in a folder of its own below the output. Nothing here knows a
row by name: rows are data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import compose, flat
from r2r.errors import InputError
from r2r.launching import Plan

MODELS = ("none", "base", "finetuned")  # also of embeddings
HALVES = ("positive", "negative")  # recipes that a model and an embedding are made by; others make a model from scratch
# Jobs of a launcher are started with Hydra's own logging off: what they log goes where they print.
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


@dataclass(frozen=True)
class Row:
    """One method: which model with which embedding, and what its translation differs in.

    `model` none is the input itself; the name of a recipe is what that recipe trains from scratch. A row made `once`,
    for the first seed, is the same for every seed or an aside. `evals` are those of an image, where the settings of
    FashionR2R do not tell; only the time left rests on them.
    """

    key: str
    name: str
    model: str = "finetuned"
    embedding: str = "none"
    translation: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False
    evals: int | None = None


@dataclass(frozen=True)
class Unit:
    """One job: a verb with overrides, in the folder called `name`, after the jobs in `needs`.

    It is done when `total` things are there (pictures, or steps), which cost `cost` U-Net evaluations together.
    """

    name: str
    verb: str
    overrides: list[str]
    needs: tuple[str, ...] = ()
    total: int = 1
    cost: int = 1

    def plan(self, output: Path) -> Plan:
        """The job as the launcher takes it. Raises InputError for settings that the verb does not know."""
        folder = (output / self.name).absolute()
        place = f"paths.output_dir={_quoted(folder)}" if self.verb == "train" else f"output={_quoted(folder)}"
        config = compose(self.verb, [*self.overrides, place])
        task = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        hydra = {"job": {"name": "r2r"}, "job_logging": LOGGING}
        return Plan(0, [self.name], folder, f"r2r.{self.verb}", task, hydra)


def read_rows(cfg: DictConfig) -> dict[str, Row]:
    """The rows by their key. Raises InputError for rows that cannot be made."""
    found: dict[str, Row] = {}
    for key, given in cast(dict[str, Any], OmegaConf.to_container(cfg.rows, resolve=True)).items():
        try:
            row = Row(key, **({"name": key} | given))
        except TypeError as error:
            raise InputError(f"rows.{key}: {error}; give name, model, embedding, translation, once, evals") from error
        known = [*MODELS, *(str(recipe) for recipe in cfg.recipes if recipe not in HALVES)]
        if row.model not in known:
            raise InputError(f"rows.{key}: model={row.model} must be one of {', '.join(known)}")
        if row.embedding not in MODELS:
            raise InputError(f"rows.{key}: embedding={row.embedding} must be one of {', '.join(MODELS)}")
        found[key] = row
    inputs = [row.key for row in found.values() if row.model == "none"]
    if len(inputs) != 1:
        raise InputError(f"rows with model: none, the input itself, are {', '.join(inputs) or 'missing'}; give one")
    if cfg.full not in found:
        raise InputError(f"full={cfg.full} is none of the rows {', '.join(found)}")
    return found


def units(cfg: DictConfig, rows: Mapping[str, Row], output: Path, num_scenes: int) -> dict[str, Unit]:
    """All jobs by name, those of the first seed first."""
    found: list[Unit] = []
    for number, seed in enumerate(cfg.seeds):
        made = [row for row in rows.values() if row.model != "none" and not (row.once and number)]
        found += trainings(cfg, made, seed, output)
        found += [translation(cfg, row, seed, output, num_scenes) for row in made]
    if cfg.trade_off.num_scenes:
        found.append(trade_off(cfg, rows[cfg.full], output, min(num_scenes, cfg.trade_off.num_scenes)))
    return {unit.name: unit for unit in found}


def trainings(cfg: DictConfig, rows: Sequence[Row], seed: int, output: Path) -> list[Unit]:
    """The training runs that the rows rest on, for one seed."""
    embeddings = {row.embedding for row in rows} - {"none"}
    found = [_from_scratch(cfg, recipe, seed, output) for recipe in _recipes(cfg, rows)]
    if any("finetuned" in (row.model, row.embedding) for row in rows):
        found.append(_training(cfg, "positive", seed, trained("finetuned", seed), _base(cfg, str(cfg.model))))
    for on in sorted(embeddings):
        model, needs = model_of(cfg, on, seed, output)
        found.append(_training(cfg, "negative", seed, place(f"negative_{on}", seed), _base(cfg, model), needs))
    return found


def translation(cfg: DictConfig, row: Row, seed: int, output: Path, num_scenes: int) -> Unit:
    """The translation of the held-out scenes by one row, for one seed."""
    settings, needs = _translating(cfg, row, seed, output)
    settings |= {"input": str((output / "scenes" / "input").absolute()), **dict(row.translation)}
    evals = evaluations(settings) if row.evals is None else row.evals
    cost = num_scenes * (1 + evals)  # one: encoding and decoding
    return Unit(place(row.key, seed), "translate", flat(settings), needs, num_scenes, cost)


def trade_off(cfg: DictConfig, row: Row, output: Path, num_scenes: int) -> Unit:
    """The sweep over TAC ratio and strength with the models of a row, for the first seed."""
    settings, needs = _translating(cfg, row, cfg.seeds[0], output)
    scenes = (output / "scenes" / "some").absolute()
    axes = {name: list(cfg.trade_off[name]) for name in ("strength", "tac_ratio")}
    settings = {name: value for name, value in settings.items() if name not in (*axes, "batch_size")} | axes
    settings |= {"input": str(scenes / "input"), "num_figures": 1}
    target = scenes / "target" if cfg.metrics.held_out else (output / "photos").absolute()
    settings |= {"masks.garment": str(scenes / "garment"), "target": str(target)}
    cells = len(axes["strength"]) * len(axes["tac_ratio"])
    cost = num_scenes * sum(evaluations({**settings, "strength": s, "tac_ratio": 0}) for s in axes["strength"]) * 2
    overrides = [*flat(settings), "+metrics.detail={_target_: r2r.metrics.DetailSSIM}"]
    return Unit("trade_off", "sweep", overrides, needs, num_scenes * cells, cost)


def place(name: str, seed: int) -> str:
    """The folder of a job, below the output."""
    return f"seed_{seed}/{name}"


def trained(recipe: str, seed: int) -> str:
    """The folder of a training by a recipe, below the output; a row may have the recipe's name."""
    return place("positive" if recipe == "finetuned" else f"{recipe}_training", seed)


def trainings_of(cfg: DictConfig, row: Row, seed: int) -> list[str]:
    """The folders of the trainings that a row rests on, below the output."""
    found = [trained(recipe, seed) for recipe in _recipes(cfg, [row])]
    found += [trained("finetuned", seed)] if row.model == "finetuned" else []
    found += [trained("finetuned", seed)] if row.embedding == "finetuned" else []
    found += [place(f"negative_{row.embedding}", seed)] if row.embedding != "none" else []
    return list(dict.fromkeys(found))


def model_of(cfg: DictConfig, which: str, seed: int, output: Path) -> tuple[str, tuple[str, ...]]:
    """A model (base, finetuned or of a recipe) as other verbs are told it, and the job that makes it."""
    if which == "base":
        return str(cfg.model), ()
    made = trained(which, seed)
    return str((output / made / "export").absolute()), (made,)


def evaluations(settings: Mapping[str, Any]) -> int:
    """About how many U-Net evaluations a picture costs, for the time left: inversion, guidance halves, source row."""
    steps = int(settings["num_inference_steps"] * settings["strength"])
    injected = int(steps * settings["tac_ratio"])
    inverted = steps if settings.get("start", "inversion") == "inversion" or injected else 0
    inverted *= settings.get("inversion_iterations", 1)
    return inverted + steps * (1 if settings["guidance_scale"] == 1 else 2) + injected


def _translating(cfg: DictConfig, row: Row, seed: int, output: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a translation is told of models and settings, and the jobs that these need."""
    model, needs = model_of(cfg, row.model, seed, output)
    settings = {**cast(dict[str, Any], OmegaConf.to_container(cfg.translation, resolve=True))}
    settings |= {"model": model, "seed": seed, "device": cfg.device}
    if row.embedding != "none":
        made = place(f"negative_{row.embedding}", seed)
        token = str(compose("train", list(cfg.recipes.negative)).task.placeholder_token).strip("<>")
        settings["negative_embedding"] = str((output / made / "export" / f"{token}.safetensors").absolute())
        needs += (made,)
    return settings, needs


def _recipes(cfg: DictConfig, rows: Sequence[Row]) -> list[str]:
    """The recipes from scratch that rows rest on, each once, and those that these begin with before them."""
    found: list[str] = []
    for row in rows:
        if row.model not in MODELS:
            first = cfg.begins.get(row.model)
            found += [recipe for recipe in (first, row.model) if recipe is not None and recipe not in found]
    return found


def _from_scratch(cfg: DictConfig, recipe: str, seed: int, output: Path) -> Unit:
    if (first := cfg.begins.get(recipe)) is None:
        return _training(cfg, recipe, seed, trained(recipe, seed), {})
    made = trained(first, seed)
    begin = {"task": {"initial": str((output / made / "export").absolute())}}
    return _training(cfg, recipe, seed, trained(recipe, seed), begin, (made,))


def _base(cfg: DictConfig, model: str) -> dict[str, Any]:
    """What a training that begins with a model is told of it."""
    return {"model": {"pretrained": model, "resolution": cfg.resolution}}


def _training(
    cfg: DictConfig, recipe: str, seed: int, name: str, begin: Mapping[str, Any], needs: tuple[str, ...] = ()
) -> Unit:
    settings = cast(
        dict[str, Any], OmegaConf.to_container(cfg[recipe if recipe in HALVES else "scratch"], resolve=True)
    )
    overrides = [*cfg.recipes[recipe], *flat({"seed": seed, **begin}), *flat(settings)]
    config = compose("train", overrides)
    steps = int(config.trainer.max_steps)
    return Unit(name, "train", overrides, needs, steps, 3 * steps * int(config.data.batch_size))


def _quoted(folder: Path) -> str:
    return flat(str(folder), "x").pop().removeprefix("x=")
