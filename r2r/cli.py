"""What every verb shares: its Hydra entry, errors as one clear message and an exit code, and the config on show."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue

from r2r.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
CONF = next(folder for folder in (_HERE / "conf", _HERE.parent / "conf") if folder.is_dir())


def config_folder(verb: str) -> str:
    """Where the config of a verb lies: in `conf`, or in a folder of it.

    Verbs whose `model=` is a plain value live in a folder of their own: beside the group `conf/model/` Hydra would take
    the value for the name of a file.
    """
    places = [CONF / f"{verb}.yaml", *CONF.glob(f"*/{verb}.yaml")]
    return str(next(place.parent for place in places if place.is_file()))


def verb(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make `main(cfg)` the command `python -m r2r.<name>`, configured by `<name>.yaml` of its config folder.

    `InputError` (also inside an instantiation) ends the process with its message alone and its exit code.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @wraps(task)
        def guarded(cfg: DictConfig) -> None:
            logging.getLogger("lightning.pytorch").propagate = False  # it prints by itself already
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # lightning's own
            try:
                task(cfg)
            except KeyboardInterrupt:
                print("interrupted: what is finished is kept", file=sys.stderr, flush=True)
                raise SystemExit(130) from None
            except MissingMandatoryValue as error:
                fail(InputError(f"{str(error).splitlines()[0]}; give it on the command line as {error.full_key}=VALUE"))
            except Exception as error:
                if (cause := user_error(error)) is None:
                    raise
                fail(cause)

        guarded.__dict__["verb"] = name  # tells the launcher of a sweep what to start
        return hydra.main(version_base="1.3", config_path=config_folder(name), config_name=name)(guarded)

    return decorate


def user_error(error: BaseException | None) -> InputError | None:
    """The `InputError` behind an exception, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def fail(error: InputError) -> None:
    """Print the message and leave with the error's exit code."""
    sys.stdout.flush()
    message = str(error)
    if message.startswith("Caught "):  # raised in a loader's worker: torch puts the traceback into the text
        message = message.strip().splitlines()[-1]
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)


def compose(name: str, overrides: list[str]) -> DictConfig:
    """The config a verb would get from these overrides; for verbs that run other verbs."""
    running = GlobalHydra.instance().hydra  # the verb's own, when a verb composes for another
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(config_folder(name), version_base="1.3"):
            return hydra.compose(name, overrides)
    finally:
        GlobalHydra.instance().hydra = running


def flat(settings: Any, prefix: str = "") -> list[str]:
    """Nested settings as Hydra overrides, `{"a": {"b": 1}}` as `["a.b=1"]`; text is quoted."""
    if not isinstance(settings, Mapping):
        return [f"{prefix}={json.dumps(settings, ensure_ascii=False)}"]
    return [each for key, value in settings.items() for each in flat(value, f"{prefix}.{key}" if prefix else key)]


def fix_output_dir(cfg: DictConfig) -> Path:
    """Write the folder Hydra made into the config: `${now:}` would name another one in a child process."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with open_dict(cfg):
        cfg.paths.output_dir = str(folder)
    return folder


def show_config(cfg: DictConfig, folder: Path) -> None:
    """Print the config tree and keep the resolved config beside Hydra's own files."""
    from rich.console import Console
    from rich.syntax import Syntax

    resolved = OmegaConf.to_yaml(cfg, resolve=True)
    Console().print(Syntax(resolved, "yaml", theme="ansi_dark", background_color="default"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.resolved.yaml").write_text(resolved, encoding="utf-8")


def progress_bar() -> "Progress":
    """A progress bar with count, elapsed time and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "ETA",
        TimeRemainingColumn(),
    )


def build(section: DictConfig, **extra: Any) -> Any:
    """Instantiate one section of a config with plain Python containers."""
    return hydra.utils.instantiate(section, _convert_="all", **extra)
