"""`python -m r2r.translate input=DIR output=DIR`: translate a folder of images, a thin layer on `RenderedToReal`.

Results keep their relative names as PNG. Images already done are skipped, broken ones are reported and make the exit
code 3 once everything else is done. `run.json` in the output folder says what was run.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import progress_bar, verb
from r2r.errors import DataError, InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from r2r.tasks.image_translation import RenderedToReal

SETTINGS = ("num_inference_steps", "strength", "guidance_scale", "tac_ratio", "max_stride", "inject", "start")
SETTINGS += ("inversion_iterations", "inversion_order", "source")


def translate(cfg: DictConfig) -> None:
    """Translate what `cfg.input` holds and is not yet in `cfg.output`.

    Raises:
        InputError: before any work, for a wrong folder, setting or model.
        DataError: at the end, naming the files that could not be read.
    """
    from r2r.data.folders import find_jobs
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


def _run(pipe: "RenderedToReal", todo: dict[Path, Path], cfg: DictConfig, settings: Any) -> list[str]:
    """Translate in batches behind a progress bar; returns what could not be read."""
    from r2r.data.folders import readable_batches, save_png

    broken: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("translating", total=len(todo))
        for targets, images in readable_batches(todo, cfg.batch_size, broken):
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
