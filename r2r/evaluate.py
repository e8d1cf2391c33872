"""`python -m r2r.evaluate source=DIR target=DIR outputs=DIR`: score translated images, a thin layer on `Comparison`.

Outputs are scored against their sources (fidelity) and, with a target, against photos (realism). Everything that can be
checked without decoding an image is checked first; results are written at the end, so a run that fails leaves nothing.

`python -m r2r.evaluate experiment=fashion_ablation output=DIR` makes what it scores: see `r2r.ablation`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from r2r.cli import build, progress_bar, verb
from r2r.errors import InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from r2r.reporting import Comparison, Outputs, Scenes

SOURCE, TARGET = "source", "target"
RESIZED = "outputs, target and masks to the size of their source, Lanczos (masks: nearest)"
Named = Mapping[str, Path]  # picture files by name
Size = tuple[int, int]  # width, height

# Mappings that take any key: methods and regions are named on the command line (outputs.NAME=FOLDER).
_OPEN = {name: DictConfig({}, flags={"struct": False}) for name in ("outputs", "masks", "beside")}
ConfigStore.instance().store(name="open_mappings", node=_OPEN)


@dataclass(frozen=True)
class Given:
    """The files to be scored: what belongs together has one name, everything else is left out."""

    names: list[str]
    source: Named
    target: Named
    outputs: Mapping[str, Named]
    masks: Mapping[str, Named]
    paired: bool
    left_out: Mapping[str, list[str]]
    resized: bool = False

    def per_name(self) -> dict[str, list[Path]]:
        """Files by what they are, in the order of the names; the target only where it follows them."""
        twins = {TARGET: self.target} if self.paired else {}
        methods = {f"outputs.{name}": files for name, files in self.outputs.items()}
        masks = {f"masks.{name}": files for name, files in self.masks.items()}
        folders = {SOURCE: self.source, **twins, **methods, **masks}
        return {title: [files[name] for name in self.names] for title, files in folders.items()}


def evaluate(cfg: DictConfig) -> "Comparison":
    """Score the outputs and write what came out to `cfg.output`.

    Raises:
        InputError: before any work, for folders that do not fit each other, sizes, or sets too small for a score.
        MissingWeightsError: before any work, for a network of a score that is not at hand.
        DataError: for a file that cannot be read.
    """
    from r2r.reporting.score_records import read_scores

    folders = output_folders(cfg)
    read = [cfg.source, cfg.target, *folders.values(), *cfg.masks.values(), *cfg.beside.values()]
    check_output(Path(cfg.output), read)
    earlier = {str(name): read_scores(Path(folder)) for name, folder in cfg.beside.items()}
    comparison, given = score(cfg, folders)
    report(cfg, comparison, given, earlier)
    return comparison


def score(cfg: DictConfig, folders: Mapping[str, Path]) -> tuple["Comparison", Given]:
    """Compare the methods in `folders`; all checks come before the work. Raises as `evaluate`."""
    from r2r.metrics import FeatureCache
    from r2r.reporting import Comparison

    given, sizes = check_sizes(cfg, read_folders(cfg, folders))
    use_device(cfg.device)
    scores = {name: build(each) for name, each in cfg.metrics.items() if each is not None}
    check_scores(scores, given, sizes)
    scenes, methods = tensors(given, sizes, folders)
    cache = FeatureCache(None if cfg.cache_dir is None else Path(cfg.cache_dir).expanduser())
    print(_summary(given), flush=True)
    with progress_bar() as progress:
        task = progress.add_task("scoring", total=None)

        def tell(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"scoring {name}", completed=done, total=total)

        return Comparison(scenes, methods, scores, cfg.seed, cache, tell, batch_size=cfg.batch_size), given


def output_folders(cfg: DictConfig) -> dict[str, Path]:
    """The folder of each method by its name; a single folder is called by its own.

    Raises InputError for no folder, or one that holds something else than outputs.
    """
    several = OmegaConf.is_dict(cfg.outputs)
    named = {str(name): Path(folder) for name, folder in cfg.outputs.items()} if several else {}
    folders = named if several else {Path(cfg.outputs).resolve().name: Path(cfg.outputs)}
    if not folders:
        raise InputError("no outputs; give outputs=FOLDER, or outputs.NAME=FOLDER for each method")
    for name, folder in folders.items():
        if next(folder.glob("strength_*/tac_*"), None):
            raise InputError(f"{folder} holds a sweep; give a cell of it: outputs.{name}={folder}/strength_S/tac_R")
        if (folder / "checkpoints").is_dir() or (folder / "samples").is_dir():
            raise InputError(
                f"{folder} is a training run: its samples are grids of a few images. Translate first: "
                f"python -m r2r.translate input=SOURCE output=FOLDER model={folder / 'export'}, then outputs=FOLDER"
            )
    return folders


def check_output(output: Path, inputs: Sequence[str | Path | None]) -> None:
    """Raise InputError unless results can be written to a folder of their own."""
    if any(folder is not None and Path(folder).resolve() == output.resolve() for folder in inputs):
        raise InputError(f"output={output} is one of the folders to be read; choose a folder of its own")
    existing = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"output={output}: cannot write to {existing}; choose another folder")


def read_folders(cfg: DictConfig, folders: Mapping[str, Path]) -> Given:
    """What belongs together in the folders. Raises InputError for missing folders and names that do not match."""
    from r2r.data.pictures import common_names, pictures

    for key, known in {"missing": ("error", "skip"), "paired": ("auto", True, False)}.items():
        if cfg[key] not in known:
            raise InputError(f"{key}={cfg[key]} is none of {', '.join(map(str, known)).lower()}")
    source, target = pictures(cfg.source), pictures(cfg.target) if cfg.target is not None else {}
    if cfg.paired is True and not target:
        raise InputError("paired=true without a target; give target=FOLDER with the true twin of each source")
    paired = bool(target) and (set(target) == set(source) if cfg.paired == "auto" else cfg.paired)
    outputs = {name: pictures(folder) for name, folder in folders.items()}
    masks = {name: pictures(folder) for name, folder in cfg.masks.items() if folder is not None}
    matching = {SOURCE: source, **({TARGET: target} if paired else {})}
    matching |= {f"outputs.{name}": files for name, files in outputs.items()}
    matching |= {f"masks.{name}": {n: files[n] for n in files if n in source} for name, files in masks.items()}
    names, left_out = common_names(matching, skip=cfg.missing == "skip")
    return Given(names, source, target, outputs, masks, paired, left_out)


def check_sizes(cfg: DictConfig, given: Given) -> tuple[Given, list[Size]]:
    """The size of each source, from file headers.

    Raises InputError for `resize=error` and an image of another size than its source, naming both.
    """
    from r2r.data.pictures import picture_size

    if cfg.resize not in ("error", "reference"):
        raise InputError(f"resize={cfg.resize} is none of error, reference")
    files = given.per_name()
    sizes = [picture_size(path) for path in files[SOURCE]]
    for path in () if given.paired else given.target.values():
        picture_size(path)  # a file that is no image is found before any work
    different = [
        (path, size, expected, reference)
        for paths in files.values()
        for path, expected, reference in zip(paths, sizes, files[SOURCE], strict=True)
        if (size := picture_size(path)) != expected
    ]
    if different and cfg.resize == "error":
        path, size, expected, reference = different[0]
        more = f"; {len(different) - 1} more differ" if len(different) > 1 else ""
        raise InputError(
            f"{path} is {size[0]}x{size[1]}, but {reference} is {expected[0]}x{expected[1]} (width x height){more}; "
            "give images of one size, or resize=reference brings each to the size of its source"
        )
    return replace(given, resized=bool(different)), sizes


def check_scores(scores: Mapping[str, Any], given: Given, sizes: Sequence[Size]) -> None:
    """Raise InputError, with the way out, for too few images, too small ones, and no score at all."""
    from r2r.metrics import SetScore

    useful = {name: score for name, score in scores.items() if given.target or not isinstance(score, SetScore)}
    if not useful:
        raise InputError("nothing to score: give a target=FOLDER for realism, or metrics of single images")
    for name, score in useful.items():
        try:
            if isinstance(score, SetScore):
                score.check(len(given.names), len(given.names) if given.paired else len(given.target))
            else:
                for width, height in set(sizes):
                    score.check((height, width))
        except InputError as error:
            told = "<its key>" in str(error)
            way_out = str(error).replace("<its key>", name) if told else f"{error}; or leave it out: '~metrics.{name}'"
            raise InputError(way_out) from error


def tensors(given: Given, sizes: Sequence[Size], folders: Mapping[str, Path]) -> tuple["Scenes", list["Outputs"]]:
    """The files as sequences that decode when read; costs and settings from the run records beside the outputs."""
    from r2r.data.pictures import Masks, Pictures
    from r2r.reporting import Outputs, Scenes
    from r2r.reporting.runs import read_run

    files, common = given.per_name(), sizes if given.resized else None
    target = Pictures(files[TARGET], common) if given.paired else Pictures(list(given.target.values()))
    scenes = Scenes(
        given.names,
        Pictures(files[SOURCE]),
        target if given.target else None,
        given.paired,
        {name: Masks(files[f"masks.{name}"], common) for name in given.masks},
        resize=RESIZED if given.resized else "none",
    )
    methods: list[Outputs] = []
    for name, folder in folders.items():
        run, images = read_run(name, folder), Pictures(files[f"outputs.{name}"], common)
        methods.append(Outputs(name, images, run.evals, run.seconds, run.memory_gb, folder, run.settings))
    return scenes, methods


def use_device(device: str | None) -> None:
    """Networks of scores run on the GPU they see: hide all, or choose one. Raises InputError where there is none."""
    import torch

    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device is not None:
        count = torch.cuda.device_count()
        if device not in ("cuda", *(f"cuda:{index}" for index in range(count))) or not count:
            raise InputError(f"device={device}: {count} GPUs here; give device=cpu, or cuda:N with N below {count}")
        torch.cuda.set_device(torch.device(device))


def report(cfg: DictConfig, comparison: "Comparison", given: Given, earlier: Mapping[str, Any]) -> None:
    """Write scores, tables and record; print the tables and the place."""
    from rich.console import Console
    from rich.text import Text

    from r2r.reporting import write_rows
    from r2r.reporting.score_records import SCORES, joint_table, score_record

    folder, tables = Path(cfg.output), comparison.tables("Scores", _notes(given))
    record = run_record(
        cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)),
        images=len(given.names),
        methods=list(given.outputs),
        left_out=given.left_out,
    )
    content = score_record(comparison) | {"left_out": given.left_out}
    tables += [joint_table("Beside earlier evaluations", {"now": content, **earlier})] if earlier else []
    folder.mkdir(parents=True, exist_ok=True)
    comparison.table("Scores", columns=list(comparison.columns)).write_csv(folder / "table.csv")
    markdown = "\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in tables)
    (folder / "table.md").write_text(markdown, encoding="utf-8")
    (folder / "table.tex").write_text("\n".join(table.to_latex() for table in tables), encoding="utf-8")
    write_rows(folder / "per_image.csv", comparison.per_image_rows())
    write_json(folder / SCORES, content)
    write_json(folder / "run.json", record)
    console = Console(width=max(Console().width, 124))
    for table in tables:
        console.print(table.to_rich())
        console.print()
    console.print(Text(f"scores: {(folder / SCORES).absolute()}"), soft_wrap=True)


def _notes(given: Given) -> list[str]:
    """What a reader of the table must know of the images."""
    parts = [
        f"{title} {len(names)} ({', '.join(names[:5])}{', ...' * (len(names) > 5)})"
        for title, names in given.left_out.items()
    ]
    notes = [f"Left out, not in every folder: {'; '.join(parts)}."] if parts else []
    return notes + ([f"Sizes made equal: {RESIZED}."] if given.resized else [])


def _summary(given: Given) -> str:
    shared = len(set(given.source) & set(given.target))
    if given.paired:
        target = "each with its true twin in the target"
    elif given.target:
        near = f" ({shared} of its names are sources': paired=true takes those as twins)" if shared else ""
        target = f"target of {len(given.target)} other images{near}"
    else:
        target = "no target: scores against the source alone"
    lines = [f"{len(given.names)} images of {len(given.outputs)} method(s); {target}", *_notes(given)]
    return "\n".join(lines)


@verb("evaluate")
def score_folders(cfg: DictConfig) -> None:
    """Score folders of translated images."""
    evaluate(cfg)


@verb("ablation")
def run_experiment(cfg: DictConfig) -> None:
    """Make and score everything that an experiment compares."""
    from r2r.ablation import ablation

    ablation(cfg)


def main() -> None:
    """Score folders; with `experiment=NAME`, whose config has other keys, run that experiment."""
    chosen = any(argument.startswith("experiment=") for argument in sys.argv[1:])
    (run_experiment if chosen else score_folders)()


if __name__ == "__main__":
    main()
