"""`hydra/sweeper=optuna`: searching settings with Optuna (extra `optuna`), in batches of what the pool runs at once.

    python -m r2r.train -m experiment=fashion_dki optimized_metric=val/loss hydra/sweeper=optuna \
        hydra.sweeper.n_trials=20 'task.optimizer.lr=tag(log,interval(1e-5,1e-3))' 'data.batch_size=choice(4,8)'

The study lies in the sweep's folder (`study.db`): the same command with `hydra.sweep.dir=FOLDER` adds trials to it. A
trial's number is its job's. Every Hydra program imports this module, so Optuna itself loads where it is used.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from r2r.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


@dataclass
class OptunaSweeperConf:
    """`hydra.sweeper`."""

    _target_: str = "hydra_plugins.r2r_optuna.OptunaSweeper"
    n_trials: int = 20  # of this call; a study that goes on has its earlier ones besides
    direction: str = "minimize"  # or maximize: optimized_metric
    seed: int | None = None  # of the search, not of the jobs


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="r2r")


class OptunaSweeper(Sweeper):
    """Asks Optuna for the values that are sweeps on the command line; everything else is the same for all jobs."""

    def __init__(self, n_trials: int, direction: str, seed: int | None) -> None:
        self.n_trials, self.direction, self.seed = n_trials, direction, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self._loader, self._config = hydra_context.config_loader, config
        make = Plugins.instance().instantiate_launcher
        self._launcher = make(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the trials; returns the best value."""
        from r2r.cli import fail

        try:
            return self._sweep(arguments)
        except InputError as error:
            fail(error)

    def _sweep(self, arguments: list[str]) -> float:
        given = OverridesParser.create(self._loader).parse_overrides(arguments)
        last = {override.get_key_element(): override for override in given}
        fixed = [override.input_line or "" for override in last.values() if not override.is_sweep_override()]
        searched = {name: override for name, override in last.items() if override.is_sweep_override()}
        batch = self._check(fixed, searched)
        folder = Path(self._config.hydra.sweep.dir).absolute()
        study, space = self._study(folder), {name: _distribution(override) for name, override in searched.items()}
        OmegaConf.save(self._config, folder / "multirun.yaml")
        for begin in range(0, self.n_trials, batch):
            trials = [study.ask(space) for _ in range(min(batch, self.n_trials - begin))]
            jobs = [[*fixed, *(f"{name}={value}" for name, value in trial.params.items())] for trial in trials]
            for trial, job in zip(trials, self._launcher.launch(jobs, trials[0].number), strict=True):
                _tell(study, trial.number, job.return_value if job.status == JobStatus.COMPLETED else None)
        if not _count(study, "COMPLETE"):
            raise InputError(f"none of {len(study.trials)} trials succeeded; their logs are in {folder}")
        return _report(study, folder)

    def _check(self, fixed: list[str], searched: dict[str, Override]) -> int:
        """See to what must be right before the first trial; returns how many jobs the pool runs at once."""
        from hydra_plugins.r2r_pool import PoolLauncher
        from r2r.launching import device_count, device_ids, uses_cpu

        config = self._loader.load_sweep_config(self._config, fixed)
        if not isinstance(self._launcher, PoolLauncher):
            raise InputError("hydra/sweeper=optuna reads the results of r2r's own launcher: leave hydra/launcher out")
        if not config.get("optimized_metric"):
            raise InputError("hydra/sweeper=optuna needs optimized_metric=NAME, a metric of run.json such as val/loss")
        if self.direction not in ("minimize", "maximize"):
            raise InputError(f"hydra.sweeper.direction={self.direction}: give minimize or maximize")
        if not searched or self.n_trials < 1:
            raise InputError(
                "nothing to search: give settings as interval(a,b), range(a,b) or choice(a,b), and n_trials"
            )
        slots = len(device_ids(self._launcher.devices, uses_cpu(config)))
        return max(1, slots // device_count((config.get("trainer") or {}).get("devices", 1), slots))

    def _study(self, folder: Path) -> "Study":
        from r2r.launching import read_jobs

        try:
            import optuna
        except ImportError as error:
            raise InputError("hydra/sweeper=optuna needs Optuna: pip install 'r2r[optuna]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        storage, sampler = f"sqlite:///{folder / 'study.db'}", optuna.samplers.TPESampler(seed=self.seed)
        known = {"study_name": "r2r", "direction": self.direction, "load_if_exists": True}
        study = optuna.create_study(storage=storage, sampler=sampler, **known)
        jobs = read_jobs(folder)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a search that was cut off
            _tell(study, trial.number, jobs[trial.number].value if trial.number in jobs else None)
        return study


def _distribution(override: Override) -> "BaseDistribution":
    """Optuna's word for a sweep of Hydra's grammar; `tag(log,...)` is logarithmic, `int(interval(...))` of integers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        kind: Any = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep):
        values: Any = sorted(sweep.range())  # Hydra leaves the end out, Optuna does not
        kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
        return kind(values[0], values[-1], step=abs(sweep.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _tell(study: "Study", number: int, value: float | None) -> None:
    from optuna.trial import TrialState

    study.tell(number, value, TrialState.COMPLETE if value is not None else TrialState.FAIL)


def _count(study: "Study", state: str) -> int:
    return sum(trial.state.name == state for trial in study.trials)


def _report(study: "Study", folder: Path) -> float:
    """Print the best trial and write it to `best.json`."""
    best = study.best_trial
    overrides = [f"{name}={value}" for name, value in best.params.items()]
    counts = {"trials": len(study.trials), "failed": _count(study, "FAIL")}
    record = {"value": best.value, "overrides": overrides, "job": best.number, **counts}
    (folder / "best.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"best of {counts['trials']} trials ({counts['failed']} failed): {best.value:.6g}, job {best.number}")
    print(" ".join(overrides))
    return study.best_value
