"""`python -m r2r.translate input=DIR output=DIR`: translate a folder of images, a thin layer on `RenderedToReal`.

Results keep their relative names as PNG. Images already done are skipped, broken ones are reported and make the exit
code 3 once everything else is done. `run.json` in the output folder says what was run.
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import verb
from r2r.errors import DataError, InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from PIL import Image

    from r2r.tasks.image_translation import RenderedToReal

log = logging.getLogger(__name__)

SETTINGS = ("num_inference_steps", "strength", "guidance_scale", "tac_ratio", "max_stride", "inject", "start")
SETTINGS += ("inversion_order", "source")


def translate(cfg: DictConfig) -> None:
    """Translate what `cfg.input` holds and is not yet in `cfg.output`.

    Raises:
        InputError: before any work, for a wrong folder, setting or model.
        DataError: at the end, naming the files that could not be read.
    """
    from r2r.tasks.image_translation import RenderedToReal, TranslationSettings

    jobs = find_jobs(Path(cfg.input), Path(cfg.output))
    settings = TranslationSettings(**{name: cfg[name] for name in SETTINGS})
    if cfg.batch_size < 1:
        raise InputError(f"batch_size={cfg.batch_size} must be at least 1")
    todo = {source: target for source, target in jobs.items() if not target.is_file()}
    print(f"{len(jobs)} images, {len(jobs) - len(todo)} done already")
    if not todo:
        return
    pipe = RenderedToReal.from_pretrained(cfg.model, cfg.negative_embedding, device=cfg.device, dtype=cfg.dtype)
    start = time.perf_counter()
    broken = _run(pipe, todo, cfg, settings)
    record = run_record(
        cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)),
        seconds=time.perf_counter() - start,
        images=len(todo) - len(broken),
        broken=broken,
        unet_sample_evals=pipe.model.sample_evals,
    )
    write_json(Path(cfg.output) / "run.json", record)
    if broken:
        raise DataError(f"{len(broken)} of {len(todo)} images could not be read:\n  " + "\n  ".join(broken))


def find_jobs(source: Path, output: Path) -> dict[Path, Path]:
    """Each image below `source` with the PNG it becomes, in the same relative place below `output`.

    Raises:
        InputError: no images, output inside the input, or two inputs that differ only in their suffix.
    """
    from r2r.data.images import list_images

    folder = source if source.is_dir() else source.parent
    if output.resolve().is_relative_to(folder.resolve()) and source.is_dir():
        raise InputError(f"output={output} lies inside input={source}; choose a folder of its own")
    paths = [source] if source.is_file() else list_images(source)
    jobs = {path: output / path.relative_to(folder).with_suffix(".png") for path in paths}
    by_target: dict[Path, Path] = {}
    for path, target in jobs.items():
        if target in by_target:
            raise InputError(f"{by_target[target]} and {path} would both become {target}; rename one")
        by_target[target] = path
    return jobs


def _run(pipe: "RenderedToReal", todo: dict[Path, Path], cfg: DictConfig, settings: Any) -> list[str]:
    """Translate in batches behind a progress bar; returns what could not be read."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    broken: list[str] = []
    columns = TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(todo))
        for targets, images in _readable_batches(todo, cfg.batch_size, broken):
            results = pipe(
                images,
                prompt=cfg.prompt,
                negative_prompt=cfg.negative_prompt,
                seed=cfg.seed,
                resolution=cfg.resolution,
                batch_size=cfg.batch_size,
                **vars(settings),
            )
            for target, result in zip(targets, results, strict=True):
                _save(result, target)
            progress.update(task, advance=len(images))
        progress.update(task, completed=len(todo))
    return broken


def _readable_batches(
    todo: dict[Path, Path], size: int, broken: list[str]
) -> Iterator[tuple[list[Path], list["Image.Image"]]]:
    """Batches of decoded images of equal size with their targets; the unreadable are noted in `broken`."""
    from r2r.data.images import load_image

    targets: list[Path] = []
    images: list[Image.Image] = []
    for source, target in todo.items():
        try:
            image = load_image(source)
        except DataError as error:
            broken.append(str(error))
            log.warning("skipped: %s", error)
            continue
        if images and (len(images) == size or image.size != images[0].size):
            yield targets, images
            targets, images = [], []
        targets.append(target)
        images.append(image)
    if images:
        yield targets, images


def _save(image: "Image.Image", target: Path) -> None:
    """Write beside the final place, then rename: an interrupted run leaves no half-written image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    image.save(partial, format="PNG", compress_level=1)
    os.replace(partial, target)


@verb("translate")
def main(cfg: DictConfig) -> None:
    """Translate a folder."""
    translate(cfg)


if __name__ == "__main__":
    main()
