"""What a run was made with: command, config, commit, versions, machine, time, memory; enough to run it again."""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("r2r", "torch", "lightning", "diffusers", "transformers", "hydra-core", "torchmetrics", "webdataset")
_STARTED = time.perf_counter()


def run_record(config: Mapping[str, Any], *, status: str = "done", seconds: float | None = None, **work: Any) -> Any:
    """The content of `run.json`: `work` is what this run counted (images, evaluations, metrics, ...).

    `seconds` defaults to the time since the process started. Memory is the peak of this process so far, in GiB.
    """
    return {
        "status": status,
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": config.get("seed"),
        "seconds": round(time.perf_counter() - _STARTED if seconds is None else seconds, 2),
        **peak_memory(),
        **work,
        "git": git_state(),
        "versions": versions(),
        "hardware": hardware(),
        "config": dict(config),
    }


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware() -> dict[str, Any]:
    """Platform, CPU cores this process may use, and the names of the GPUs it sees."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cuda = _cuda()
    gpus = [cuda.get_device_name(index) for index in range(cuda.device_count())] if cuda else []
    return {"platform": platform.platform(), "cpus": cpus, "gpus": gpus}


def peak_memory() -> dict[str, float | None]:
    """Highest resident memory of this process, and highest allocation on its current GPU (None without one), in GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere
    cuda = _cuda()
    return {
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3),
        "peak_gpu_memory_gb": round(cuda.max_memory_allocated() / 2**30, 3) if cuda else None,
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout r2r runs from and whether files differ from it; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        return {"commit": commit, "changed": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, or a checkout of another user
        return None


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON through a temporary file in the same folder, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _git(root: Path, *arguments: str) -> str:
    call = ["git", "-C", str(root), *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout


def _cuda() -> Any:
    """`torch.cuda` where it is in use; this module itself never imports torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
