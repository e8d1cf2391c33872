"""The whole experiment: scenes, jobs, scores, report; every part is skipped or goes on where it is done already.

FashionR2R (arXiv:2410.14429) drops no part of its method one at a time; this does, on scenes with a true photo twin.
"""

import time
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.ablation.report import write_report
from r2r.ablation.rows import read_rows, units
from r2r.ablation.scenes import held_out_scenes, real_photos, reference_photo
from r2r.ablation.scoring import Scores, check_columns, metrics, score
from r2r.ablation.work import run
from r2r.cli import progress_bar
from r2r.errors import InputError
from r2r.provenance import run_record


def ablation(cfg: DictConfig) -> Scores:
    """Run what is missing below `cfg.output`, score all of it and report.

    Raises:
        InputError: before any work, for rows, claims, scores or data that do not fit, or an output folder of other
            settings; later, for a job that failed.
    """
    start, output = time.perf_counter(), Path(cfg.output)
    rows = read_rows(cfg)
    check_columns(cfg, rows)
    if not cfg.seeds or len(set(cfg.seeds)) < len(cfg.seeds):
        raise InputError(f"seeds={list(cfg.seeds)}: give different numbers, at least one")
    metrics(cfg)  # weights that are missing are told before the first job
    held_out, photos = held_out_scenes(cfg, output), real_photos(cfg, output)
    known = held_out.groups(cfg.groups)
    if strange := [each for claim in cfg.claims if (each := claim.get("within")) is not None and each not in known]:
        raise InputError(f"claims within {strange[0]}: the scenes have the groups {', '.join(known) or '(none)'}")
    reference_photo(cfg, output)
    jobs = units(cfg, rows, output, len(held_out.names))
    print(
        f"{len(held_out.names)} held-out scenes, {len(rows)} rows, seeds {list(cfg.seeds)}: {len(jobs)} jobs",
        flush=True,
    )
    run(
        jobs,
        output,
        OmegaConf.to_object(cfg.devices) if OmegaConf.is_list(cfg.devices) else cfg.devices,
        cfg.device == "cpu",
    )
    with progress_bar() as progress:
        task = progress.add_task("scoring", total=None)

        def tell(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"scoring {name}", completed=done, total=total)

        scores = score(cfg, rows, held_out, photos, output, tell)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    record = run_record(config, seconds=time.perf_counter() - start, scenes=len(held_out.names), jobs=list(jobs))
    write_report(cfg, scores, held_out, record)
    return scores
