"""`python -m r2r.sweep input=DIR output=DIR strength=[...] tac_ratio=[...]`: every cell of a grid, work shared.

Pictures go to `strength_<s>/tac_<r>/` below the output folder. An image whose cells are all there is not done again, so
the same command, or `resume=DIR`, goes on after a kill. At the end come scores of every cell (`cells.csv`), picture
grids, heat maps and `run.json`. `devices=N` shares the images out to N processes; under torchrun or srun every rank
takes its share, and `resume=DIR` draws and scores afterwards.

`resume=DIR` also goes on with a training sweep (`python -m r2r.train -m ...`): what is not done there is run.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import build, progress_bar, verb
from r2r.errors import DataError, InputError
from r2r.provenance import peak_memory, run_record, write_json

if TYPE_CHECKING:
    from r2r.data.cells import CellFolders

Part = dict[str, Any]  # what one process did: images, broken, unet_sample_evals, seconds, memory

SETTINGS = ("num_inference_steps", "guidance_scale", "max_stride", "inject", "start", "inversion_iterations")
SETTINGS += ("inversion_order", "source")
DECIDING = (*SETTINGS, "strength", "tac_ratio", "input", "model", "negative_embedding", "prompt", "negative_prompt")
DECIDING += ("seed", "resolution", "dtype")
CONFIG, PARTS = "sweep.yaml", ".part-*.json"


def sweep(cfg: DictConfig) -> None:
    """Translate what is missing in `cfg.output`; outside of torchrun and srun also score and draw all of it.

    Raises:
        InputError: before any work, for a wrong folder, setting or model, or an output folder of other settings.
        DataError: at the end, naming the files that could not be read.
    """
    folders, jobs = plan(cfg)
    if "RANK" in os.environ:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        part = translate(cfg, folders, dict(list(jobs.items())[rank::world]), int(os.environ.get("LOCAL_RANK", rank)))
        return write_json(folders.root / PARTS.replace("*", str(rank)), part)
    scores = _scores(cfg, len(jobs))
    start, left = time.perf_counter(), sum(not folders.complete(name) for name in jobs.values())
    print(f"{len(jobs)} images, {len(jobs) - left} done already; {len(folders.cells)} cells each")
    parts = _share_out(cfg, folders) if cfg.devices > 1 and left else [translate(cfg, folders, jobs)]
    broken = [each for part in parts for each in part["broken"]]
    scored = report(cfg, folders, scores)
    earlier = folders.root / "run.json"  # of the same sweep: what it did counts too
    before = json.loads(earlier.read_text()) if earlier.is_file() else {}
    record = run_record(
        cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)),
        seconds=before.get("seconds", 0.0) + time.perf_counter() - start,
        images=before.get("images", 0) + sum(part["images"] for part in parts),
        broken=broken,
        unet_sample_evals=before.get("unet_sample_evals", 0) + sum(part["unet_sample_evals"] for part in parts),
        parts=parts,
        **scored,
    )
    write_json(folders.root / "run.json", record)
    if broken:
        raise DataError(f"{len(broken)} of {len(jobs)} images could not be read:\n  " + "\n  ".join(broken))


def plan(cfg: DictConfig) -> "tuple[CellFolders, dict[Path, Path]]":
    """The folders of the cells, and each image with its name in them; marks the output folder as this sweep's.

    Raises InputError for settings that cannot be swept, or an output folder that holds another sweep.
    """
    from r2r.data.cells import CellFolders
    from r2r.tasks.translation_settings import TranslationSettings
    from r2r.tasks.translation_sweep import SweepPlan

    if cfg.task is not None:
        raise InputError("a sweep is over strength and TAC ratio, which task=... has not; leave task out")
    strengths, ratios = _axis(cfg.strength), _axis(cfg.tac_ratio)
    SweepPlan.of(strengths, ratios, TranslationSettings(**{name: cfg[name] for name in SETTINGS}))
    for name in ("max_rows", "devices", "num_figures"):
        if cfg[name] < 1:
            raise InputError(f"{name}={cfg[name]} must be at least 1")
    folders = CellFolders(Path(cfg.output), strengths, ratios)
    jobs = folders.jobs(Path(cfg.input))
    _references(cfg, [name.with_suffix("").as_posix() for name in jobs.values()])
    _claim(cfg, folders.root)
    return folders, jobs


def translate(cfg: DictConfig, folders: "CellFolders", jobs: Mapping[Path, Path], index: int | None = None) -> Part:
    """Write all cells of the images that lack one; `index` is the GPU of this process among several."""
    from r2r.data.folders import readable_batches, save_png
    from r2r.tasks import RenderedToReal, SweepPlan, TranslationSettings

    part: Part = {"images": 0, "broken": [], "unet_sample_evals": 0, "seconds": 0.0}
    todo = {path: name for path, name in jobs.items() if not folders.complete(name)}
    if not todo:
        return part
    pipe = RenderedToReal.from_pretrained(
        cfg.model, cfg.negative_embedding, device=_device(cfg, index), dtype=cfg.dtype
    )
    options = {name: cfg[name] for name in SETTINGS}
    at_once = SweepPlan.of(folders.strengths, folders.tac_ratios, TranslationSettings(**options)).images_at_once(
        cfg.max_rows
    )
    start = time.perf_counter()
    with progress_bar() as progress:
        task = progress.add_task("sweeping", total=len(todo))
        for names, images in readable_batches(todo, at_once, part["broken"]):
            results = pipe.sweep(
                images,
                strengths=folders.strengths,
                tac_ratios=folders.tac_ratios,
                prompt=cfg.prompt,
                negative_prompt=cfg.negative_prompt,
                seed=cfg.seed,
                resolution=cfg.resolution,
                max_rows=cfg.max_rows,
                **options,
            )
            for cell, pictures in results.items():
                for name, picture in zip(names, pictures, strict=True):
                    save_png(picture, folders.folder(cell) / name)
            part["images"] += len(images)
            progress.update(task, advance=len(images))
        progress.update(task, completed=len(todo))
    part |= {"unet_sample_evals": pipe.model.sample_evals, "seconds": round(time.perf_counter() - start, 2)}
    return part | peak_memory()


def report(cfg: DictConfig, folders: "CellFolders", scores: dict[str, Any]) -> dict[str, Any]:
    """Score every cell, write `cells.csv`, grids and heat maps; returns what the run record keeps of it."""
    from rich.console import Console

    from r2r.data.pictures import Masks, Pictures
    from r2r.reporting import Comparison, Outputs
    from r2r.reporting.figures import write_sweep_figures
    from r2r.reporting.scenes import Scenes
    from r2r.reporting.score_records import numbers

    names = folders.names()
    sources, target, masks = _references(cfg, names)
    paired = set(names) <= set(target)
    aims = [target[name] for name in names] if paired else list(target.values())
    scenes = Scenes(
        keys=names,
        source=Pictures(sources),
        target=Pictures(aims) if aims else None,
        paired=paired,
        masks={region: Masks(paths) for region, paths in masks.items()},
    )
    methods = {f"strength {s:g}, TAC ratio {r:g}": (s, r) for s, r in folders.cells}
    outputs = [
        Outputs(title, Pictures([folders.path(cell, name) for name in names])) for title, cell in methods.items()
    ]
    comparison = Comparison(scenes, outputs, scores, seed=cfg.seed)
    table = comparison.table(f"{len(names)} images", costs=False)
    table.write_csv(folders.root / "cells.csv")
    Console().print(table.to_rich())
    print(f"pictures, scores and figures: {folders.root}")
    cells = [
        {
            "strength": s,
            "tac_ratio": r,
            "scores": {c: numbers(comparison.estimate(c, title)) for c in comparison.columns},
        }
        for title, (s, r) in methods.items()
    ]
    better = {column: comparison.column(column).better for column in comparison.columns}
    write_sweep_figures(folders, dict(zip(names, sources, strict=True)), cells, better, names[: cfg.num_figures])
    return {"cells": cells, "better": better, "protocols": comparison.protocols()}


def resume(folder: Path) -> int:
    """Go on with the sweep of pictures, or the training sweep, in a folder; returns the exit code."""
    if (folder / "sweep.jsonl").is_file():
        from r2r import launching

        return launching.resume(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"resume={folder} holds no sweep: neither {CONFIG} nor sweep.jsonl is there")
    sweep(cast(DictConfig, OmegaConf.load(folder / CONFIG)))
    return 0


def _references(cfg: DictConfig, names: list[str]) -> tuple[list[Path], dict[str, Path], dict[str, list[Path]]]:
    """Files of the inputs, of the target by name, and of the masks by region.

    Raises InputError for folders that are missing or empty, and for masks that lack an input's name.
    """
    from r2r.data.pictures import common_names, pictures

    source = Path(cfg.input)
    sources = pictures(source if source.is_dir() else source.parent)
    target = pictures(cfg.target) if cfg.target else {}
    masks = {f"masks.{region}": pictures(folder) for region, folder in cfg.masks.items() if folder}
    common_names({"input": names} | {title: [n for n in names if n in found] for title, found in masks.items()})
    regions = {title.removeprefix("masks."): [found[name] for name in names] for title, found in masks.items()}
    return [sources[name] for name in names], target, regions


def _scores(cfg: DictConfig, count: int) -> dict[str, Any]:
    """The metrics, with their weights; raises InputError for sets of pictures that they cannot score."""
    from r2r.data.pictures import pictures
    from r2r.metrics import SetScore

    scores = {name: build(score) for name, score in cfg.metrics.items()}
    for name, score in scores.items():
        if isinstance(score, SetScore) and cfg.target:
            try:
                score.check(count, len(pictures(cfg.target)))
            except InputError as error:
                raise InputError(f"{error}; or leave it out: '~metrics.{name}'") from error
    return scores


def _share_out(cfg: DictConfig, folders: "CellFolders") -> list[Part]:
    """Run `devices` processes over the images that are left; returns what each of them did."""
    for old in folders.root.glob(PARTS):
        old.unlink()
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={cfg.devices}"]
    call = [sys.executable, "-m", *launcher, "-m", "r2r.sweep", f'resume="{folders.root.absolute()}"']
    if (code := subprocess.run(call, check=False).returncode) != 0:
        print(f"a process failed; what is finished is kept: go on with resume={folders.root}", file=sys.stderr)
        raise SystemExit(code)
    parts = [json.loads(path.read_text()) for path in sorted(folders.root.glob(PARTS))]
    for path in folders.root.glob(PARTS):
        path.unlink()
    return parts


def _claim(cfg: DictConfig, root: Path) -> None:
    """Keep the config in the output folder; refuse one that holds pictures of other settings."""
    path = root / CONFIG
    now = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    if path.is_file():
        before = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
        changed = [f"{key}={now[key]} (there: {before.get(key)})" for key in DECIDING if before.get(key) != now[key]]
        if changed:
            raise InputError(
                f"output={root} holds a sweep of other settings: {', '.join(changed)}; choose another folder"
            )
    if os.environ.get("RANK", "0") == "0":
        root.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(now | {"resume": None}), path)


def _axis(values: Any) -> list[float]:
    numbers = values if OmegaConf.is_list(values) else [values]
    try:
        return [float(value) for value in numbers]
    except (TypeError, ValueError):
        raise InputError(f"{values} is not a list of numbers; write strength=[0.2,0.4] tac_ratio=[0,0.9]") from None


def _device(cfg: DictConfig, index: int | None) -> str | None:
    import torch

    several = index is not None and cfg.device in (None, "cuda") and torch.cuda.is_available()
    return f"cuda:{index}" if several else cfg.device


@verb("sweep")
def main(cfg: DictConfig) -> None:
    """Sweep over a grid, or go on with a sweep."""
    if cfg.resume is not None:
        raise SystemExit(resume(Path(cfg.resume)))
    sweep(cfg)


if __name__ == "__main__":
    main()
