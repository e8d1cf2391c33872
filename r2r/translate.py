"""`python -m r2r.translate input=DIR output=DIR`: translate a folder of images, a thin layer on `RenderedToReal`.

`task=vct` and `task=generator` translate by a baseline instead; `task=garment_restoration` restores flat garments, and
`task=pose_transfer source=DIR poses=DIR output=DIR` draws persons in other poses.

Results keep their relative names as PNG. Images already done are skipped, broken ones are reported and make the exit
code 3 once everything else is done. `run.json` in the output folder says what was run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import build, progress_bar, verb
from r2r.errors import DataError, InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import Progress

SETTINGS = ("num_inference_steps", "strength", "guidance_scale", "tac_ratio", "max_stride", "inject", "start")
SETTINGS += ("inversion_iterations", "inversion_order", "source")


def translate(cfg: DictConfig) -> None:
    """Translate what `cfg.input` holds and is not yet in `cfg.output`.

    Raises:
        InputError: before any work, for a wrong folder, setting or model.
        DataError: at the end, naming the files that could not be read.
    """
    from r2r.tasks.translation_settings import TranslationSettings

    jobs = _jobs(cfg)
    if cfg.task is None:
        TranslationSettings(**{name: cfg[name] for name in SETTINGS})
    if cfg.batch_size < 1:
        raise InputError(f"batch_size={cfg.batch_size} must be at least 1")
    todo = {source: target for source, target in jobs.items() if not target.is_file()}
    print(f"{len(jobs)} images, {len(jobs) - len(todo)} done already")
    if not todo:
        return
    with progress_bar() as progress:
        method = _method(cfg)(cfg, progress)
        start = time.perf_counter()
        broken = _run(method, todo, cfg.batch_size, progress)
    record = run_record(
        cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)),
        seconds=time.perf_counter() - start,
        images=len(todo) - len(broken),
        broken=broken,
        **method.work(),
    )
    write_json(Path(cfg.output) / "run.json", record)
    if broken:
        raise DataError(f"{len(broken)} of {len(todo)} images could not be read:\n  " + "\n  ".join(broken))


@dataclass(frozen=True)
class Method:
    """Translates images of equal size, and tells afterwards how much work it was."""

    translate: Callable[[list[Any]], list["Image"]]
    work: Callable[[], dict[str, Any]]
    load: Callable[[Any], Any] | None = None  # of what is translated, by its place among the jobs; None: images


def rendered_to_real(cfg: DictConfig, progress: "Progress") -> Method:
    """FashionR2R."""
    from r2r.tasks.image_translation import RenderedToReal

    pipe = RenderedToReal.from_pretrained(cfg.model, cfg.negative_embedding, device=cfg.device, dtype=cfg.dtype)
    settings: dict[str, Any] = {name: cfg[name] for name in SETTINGS}
    settings |= {"prompt": cfg.prompt, "negative_prompt": cfg.negative_prompt}
    run = partial(pipe, seed=cfg.seed, resolution=cfg.resolution, batch_size=cfg.batch_size, **settings)
    return Method(run, lambda: {"unet_sample_evals": pipe.model.sample_evals})


def visual_concept(cfg: DictConfig, progress: "Progress") -> Method:
    """VCT; what is learned of the reference is kept beside the results, so that it is learned once."""
    from r2r.models.stable_diffusion import StableDiffusion

    if cfg.reference is None:
        raise InputError("task=vct needs a picture that has the look: reference=PHOTO")
    model = StableDiffusion.from_pretrained(cfg.model, dtype=cfg.dtype).to(_device(cfg))
    translator = build(cfg.task, model=model, reference=cfg.reference)
    start, kept = time.perf_counter(), Path(cfg.output) / "concept.safetensors"
    if kept.is_file():
        translator.load_concept(kept)
    else:
        task = progress.add_task("learning the reference", total=translator.concept.settings.steps)
        translator.learn_concept(seed=cfg.seed, progress=lambda steps: progress.advance(task, steps))
        kept.parent.mkdir(parents=True, exist_ok=True)
        translator.save_concept(kept)
    run = partial(translator, seed=cfg.seed, resolution=cfg.resolution)
    learned, seconds = model.sample_evals, round(time.perf_counter() - start, 2)
    return Method(
        run,
        lambda: {
            "unet_sample_evals": model.sample_evals - learned,
            "learning_sample_evals": learned,
            "learning_seconds": seconds,
        },
    )


def generator(cfg: DictConfig, progress: "Progress") -> Method:
    """A trained generator of an unpaired method."""
    translator = build(cfg.task, model=cfg.model, device=_device(cfg))
    run = partial(translator, seed=cfg.seed, resolution=cfg.resolution, batch_size=cfg.batch_size)
    return Method(run, lambda: {"generator_sample_evals": translator.sample_evals})


def of_persons(cfg: DictConfig, progress: "Progress") -> Method:
    """IGR and TruePose; persons are read with their label maps, and with the pose they are to take."""
    translator = build(cfg.task, model=cfg.model, input=cfg.input, device=_device(cfg), dtype=cfg.dtype)
    run = partial(translator, seed=cfg.seed, resolution=cfg.resolution)
    return Method(run, translator.work, translator.load)


def garment_cutout(cfg: DictConfig, progress: "Progress") -> Method:
    """The worn garment, cut out."""
    translator = build(cfg.task, input=cfg.input)
    return Method(translator, lambda: {"unet_sample_evals": 0}, translator.load)


METHODS = {  # by what a task builds
    "VisualConceptTranslator": visual_concept,
    "GeneratorTranslator": generator,
    "GarmentTranslator": of_persons,
    "GarmentCutout": garment_cutout,
    "PoseTranslator": of_persons,
}


def _method(cfg: DictConfig) -> Callable[[DictConfig, "Progress"], Method]:
    if cfg.task is None:
        return rendered_to_real
    name = str(cfg.task._target_).rpartition(".")[2]
    if name not in METHODS:
        known = "vct, generator, garment_restoration, garment_cutout or pose_transfer"
        raise InputError(f"task={name} cannot translate a folder; give task={known}, or no task")
    return METHODS[name]


def _jobs(cfg: DictConfig) -> dict[Any, Path]:
    """What is translated, with the file it becomes: images, or pairs of an image and a pose."""
    from r2r.data.folders import find_jobs, find_pairs

    source, output = Path(cfg.input), Path(cfg.output)
    return find_pairs(source, Path(cfg.poses), output, cfg.pairing) if "poses" in cfg else find_jobs(source, output)


def _device(cfg: DictConfig) -> str:
    import torch

    return cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _run(method: Method, todo: dict[Any, Path], batch_size: int, progress: "Progress") -> list[str]:
    """Translate in batches behind the progress bar; returns what could not be read."""
    from r2r.data.folders import readable_batches, save_png
    from r2r.data.images import load_image

    broken: list[str] = []
    task = progress.add_task("translating", total=len(todo))
    for targets, images in readable_batches(todo, batch_size, broken, method.load or load_image):
        for target, result in zip(targets, method.translate(images), strict=True):
            save_png(result, target)
        progress.update(task, advance=len(images))
    progress.update(task, completed=len(todo))
    return broken


@verb("translate")
def main(cfg: DictConfig) -> None:
    """Translate a folder."""
    translate(cfg)


if __name__ == "__main__":
    main()
