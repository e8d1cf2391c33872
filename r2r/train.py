"""`python -m r2r.train experiment=fashion_dki`: compose a config, check the data, train, export."""

import errno
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import build, fix_output_dir, show_config, verb
from r2r.errors import InputError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def train(cfg: DictConfig) -> Any:
    """Run one training config; everything is written below `cfg.paths.output_dir`. Returns the trained task.

    Data is checked first, then weights are loaded: what is wrong with a command shows in its first minute.
    """
    import torch
    from lightning import seed_everything
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    folder = Path(cfg.paths.output_dir)
    checkpoint = starting_point(cfg.resume, folder)
    torch.set_float32_matmul_precision("high")
    # Manual optimization: a checkpoint after a step holds the weights after it, as elsewhere.
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    # Epochs shorter than a logging interval: rows go by steps of the run and come all the same.
    warnings.filterwarnings("ignore", message="The number of training batches")
    seed_everything(cfg.seed, workers=True, verbose=False)
    data = build(cfg.data)
    data.setup("fit")
    refuse_idle_prior(data, cfg.task.get("prior_weight"))
    task = build(cfg.task, model=build(cfg.model))
    trainer = _trainer(cfg)
    refuse_sharding(trainer, task)
    if trainer.is_global_zero:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        data.first_batch_grid(folder / "samples" / "first_batch.png")
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException:  # Lightning's exit code would be 0
        print(f"told to end (SIGTERM): saved at step {trainer.global_step}; resume=auto goes on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None
    except OSError as error:
        if error.errno in FULL:
            raise StorageError(full_disk(folder, error)) from error
        raise
    except SystemExit:
        if trainer.interrupted:  # Lightning answers Ctrl-C with exit code 1
            raise KeyboardInterrupt from None
        raise
    return task


def find_checkpoint(resume: str | None, folder: Path) -> str | None:
    """The checkpoint to go on from: a path, with "auto" the latest in `folder` (None if there is none), or None.

    Raises:
        InputError: a path that is not there; or a fresh start in a folder that holds the checkpoints of another run.
    """
    found = sorted(folder.glob("step_*.ckpt"), key=lambda path: int(re.sub(r"\D", "", path.stem)))
    if resume == "auto":
        return str(found[-1]) if found else None
    if resume is None and found:
        raise InputError(f"{folder} holds checkpoints up to {found[-1].name}; use resume=auto or another output folder")
    if resume is not None and not Path(resume).is_file():
        raise InputError(f"resume={resume!r} is no checkpoint file; use resume=auto, a .ckpt path, or leave it out")
    return resume


def full_disk(folder: Path, error: OSError) -> str:
    """What to do about a file that could not be written, and what is safe."""
    kept = sorted(path.name for path in (folder / "checkpoints").glob("step_*.ckpt"))
    free = shutil.disk_usage(folder).free / 2**30
    safe = f"the last whole checkpoint is {kept[-1]}" if kept else "no checkpoint was written yet"
    return (
        f"cannot write below {folder} ({error.strerror}; {free:.1f} GiB free there); {safe}. Make room, or lower "
        "callbacks.checkpoint.save_top_k, then give the same command with resume=auto"
    )


def refuse_idle_prior(data: Any, weight: float | None) -> None:
    """Raises InputError where a weight has no pictures beside those to learn, or such pictures have none.

    A weight of None is that of a task without prior preservation.
    """
    from r2r.data import UnpairedDataModule

    if weight is not None and (weight > 0) != isinstance(data, UnpairedDataModule):
        raise InputError(f"task.prior_weight={weight:g}: above 0 it needs data=with_prior, which needs it")


def refuse_sharding(trainer: Any, task: Any) -> None:
    """Raises InputError where the strategy is FSDP2 and the task has no network that is shared out."""
    from lightning.pytorch.strategies import ModelParallelStrategy
    from lightning.pytorch.utilities.model_helpers import is_overridden

    if isinstance(trainer.strategy, ModelParallelStrategy) and not is_overridden("configure_model", task):
        raise InputError(
            f"trainer=fsdp is for experiment=fashion_dki; {type(task).__name__} runs with another trainer="
        )


def _trainer(cfg: DictConfig) -> Any:
    from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

    from r2r.callbacks import Export, RunRecord

    if "ddp_gloo" not in StrategyRegistry:
        StrategyRegistry.register("ddp_gloo", DDPStrategy, process_group_backend="gloo")
    callbacks = [each for each in build(cfg.callbacks).values() if each is not None]  # callbacks.NAME=null drops one
    for callback in callbacks:
        if isinstance(callback, RunRecord | Export):
            callback.config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return build(cfg.trainer, callbacks=callbacks, logger=list(build(cfg.logger).values()))


def refuse_processes_in_a_sweep(cfg: DictConfig) -> None:
    """Inside `--multirun`, Lightning must not start processes: they would repeat the command line, and so the sweep.

    The pool starts every job as a run of its own, and on SLURM `srun` starts all processes.

    Raises:
        InputError: a job of several processes under such a launcher.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or hydra.launcher._target_.endswith(".SlurmLauncher"):
        return
    strategy, devices = str(cfg.trainer.get("strategy", "auto")), cfg.trainer.get("devices", 1)
    if strategy.startswith(("ddp", "fsdp", "deepspeed")) or str(devices) != "1":
        name = f"hydra/launcher={hydra.runtime.choices['hydra/launcher']}"
        raise InputError(
            f"trainer.strategy={strategy} with trainer.devices={devices} cannot run under {name}: every process of a "
            f"job would start the whole sweep again. Leave {name} out: r2r's own launcher starts processes rightly"
        )


def starting_point(resume: str | None, folder: Path) -> str | None:
    """The checkpoint to go on from, as `find_checkpoint` finds it in the output folder.

    A job that SLURM put back into the queue goes on by itself: Lightning saved `hpc_ckpt_*.ckpt` when it was told to
    end, and loads it where no other checkpoint is named.
    """
    if not int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return find_checkpoint(resume, folder / "checkpoints")
    return None if any(folder.glob("hpc_ckpt_*.ckpt")) else find_checkpoint("auto", folder / "checkpoints")


@verb("train")
def main(cfg: DictConfig) -> None:
    """Train as configured; refuses a sweep whose processes Lightning would start wrongly."""
    refuse_processes_in_a_sweep(cfg)
    folder = fix_output_dir(cfg)
    if not any(int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        show_config(cfg, folder)
    train(cfg)


if __name__ == "__main__":
    main()
