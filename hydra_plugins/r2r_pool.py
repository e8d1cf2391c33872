"""`hydra/launcher=pool`: Hydra's side of `r2r.launching`. Every Hydra program imports it, so it imports little."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from r2r.errors import InputError

if TYPE_CHECKING:
    from r2r.launching import Job, Plan


@dataclass
class PoolLauncherConf:
    """`hydra.launcher`."""

    _target_: str = "hydra_plugins.r2r_pool.PoolLauncher"
    devices: Any = None  # null: all visible GPUs, or one CPU slot; a number of slots; or GPU ids: [0,1]


ConfigStore.instance().store(group="hydra/launcher", name="pool", node=PoolLauncherConf, provider="r2r")


class PoolLauncher(Launcher):
    """Runs the jobs of a sweep as fresh processes on a pool of devices; see `r2r.launching`."""

    def __init__(self, devices: Any = None) -> None:
        self.devices = OmegaConf.to_container(devices) if OmegaConf.is_list(devices) else devices

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by the sweeper."""
        self._loader = hydra_context.config_loader
        self._config = config
        self._verb = getattr(task_function, "verb", None)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides, numbered from `initial_job_idx` on."""
        from r2r.cli import fail
        from r2r.launching import launch

        try:
            plans = [self._plan(initial_job_idx + index, list(given)) for index, given in enumerate(job_overrides)]
            jobs = launch(Path(self._config.hydra.sweep.dir).absolute(), plans, self.devices)
        except InputError as error:
            return fail(error) or []
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        return [self._returned(job) for job in jobs]

    def _returned(self, job: "Job") -> JobReturn:
        done = job.state == "done"
        return JobReturn(
            overrides=job.overrides,
            working_dir=job.cwd,
            task_name=self._verb,
            status=JobStatus.COMPLETED if done else JobStatus.FAILED,
            _return_value=job.value if done else SystemExit(1),  # raised by Hydra's sweeper; the table has said why
        )

    def _plan(self, number: int, overrides: list[str]) -> "Plan":
        """The job's config with its number and folder, as Hydra's own launcher makes it, and resolved."""
        config = self._loader.load_sweep_config(self._config, overrides)
        shared, before = HydraConfig.instance(), HydraConfig.instance().cfg
        try:
            with open_dict(config.hydra):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            shared.set_config(config)  # a copy, for `${hydra:...}`: the folder may ask for the number
            folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)).absolute()
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.runtime.output_dir = str(folder)
            shared.set_config(config)
            return self._resolved(config, number, folder)
        except OmegaConfBaseException as error:
            raise InputError(f"job {number}: {error}") from error
        finally:
            shared.cfg = before

    def _resolved(self, config: DictConfig, number: int, folder: Path) -> "Plan":
        from r2r.launching import Plan

        if self._verb is None:
            raise InputError("hydra/launcher=pool starts r2r's own verbs; use hydra/launcher=basic for other programs")
        task = deepcopy(config)
        with open_dict(task):
            del task["hydra"]
        records = _records(config, task)
        if "paths" in task:
            with open_dict(task):
                task.paths.output_dir = str(folder)
        if missing := sorted(OmegaConf.missing_keys(task)):
            raise InputError(f"job {number} lacks {missing[0]}; give it on the command line as {missing[0]}=VALUE")
        return Plan(
            number=number,
            overrides=list(config.hydra.overrides.task),
            folder=folder,
            module=f"r2r.{self._verb}",
            task=cast(dict[str, Any], OmegaConf.to_container(task, resolve=True)),
            hydra=_hydra_inside(config),
            records=records,
        )


def _records(config: DictConfig, task: DictConfig) -> dict[str, str]:
    """What Hydra writes below `.hydra` for every run: only the launcher knows the job's own overrides."""
    subdir = config.hydra.output_subdir
    parts = {"config": task, "hydra": OmegaConf.masked_copy(config, "hydra"), "overrides": config.hydra.overrides.task}
    return {f"{subdir}/{name}.yaml": OmegaConf.to_yaml(part) for name, part in parts.items()} if subdir else {}


def _hydra_inside(config: DictConfig) -> dict[str, Any]:
    """The settings of Hydra that matter inside a job."""
    names = ("job.name", "job.chdir", "job.env_set", "verbose", "job_logging", "callbacks")
    inside = OmegaConf.create({})
    for name in names:
        value = OmegaConf.select(config.hydra, name)
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        OmegaConf.update(inside, name, value)
    return cast(dict[str, Any], OmegaConf.to_container(inside))
