"""Write studio scenes as WebDataset shards: in parallel, resumable, and with the same bytes for the same settings."""

import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from r2r.errors import InputError
from r2r.studio.rendering import PHOTO_SPP, render_scene
from r2r.studio.scene import SUBJECTS, sample_scene
from r2r.studio.stage import load_mitsuba

SETTINGS_FILE = "studio.json"


@dataclass(frozen=True)
class StudioSettings:
    """What to render, see `sample_scene`: the last `val_fraction` of the identities are the validation split."""

    output: str = "logs/studio"
    num_scenes: int = 100
    seed: int = 0
    subject: str = "mixed"
    views: int = 3
    resolution: int = 128
    scenes_per_shard: int = 50
    val_fraction: float = 0.1
    spp: int = PHOTO_SPP

    def __post_init__(self) -> None:
        for name, low in {"num_scenes": 1, "seed": 0, "resolution": 16, "scenes_per_shard": 1, "spp": 1}.items():
            if getattr(self, name) < low:
                raise InputError(f"{name}={getattr(self, name)} is too small; give {name}={low} or more")
        if self.subject not in SUBJECTS:
            raise InputError(f"subject={self.subject} is none of {', '.join(SUBJECTS)}")
        if not 2 <= self.views <= 4:
            raise InputError(f"views={self.views}: a person has 2 to 4 views")
        if not 0 <= self.val_fraction <= 1:
            raise InputError(f"val_fraction={self.val_fraction} is not a share; give a number from 0 to 1")

    def record(self) -> dict[str, int | float | str]:
        """The settings that decide the bytes of the shards."""
        return {key: value for key, value in asdict(self).items() if key != "output"}


@dataclass(frozen=True)
class Shard:
    """One tar file and the scene numbers in it."""

    name: str
    indices: range


def plan_shards(settings: StudioSettings) -> list[Shard]:
    """Every shard of the collection: training scenes first, the last `val_fraction` of the indices for validation."""
    identity = 1 if settings.subject == "garment" else settings.views
    first_val = round(settings.num_scenes * (1 - settings.val_fraction) / identity) * identity
    first_val = min(first_val, settings.num_scenes)
    splits = {"train": range(first_val), "val": range(first_val, settings.num_scenes)}
    step = settings.scenes_per_shard
    return [
        Shard(f"{split}-{number:04d}.tar", indices[start : start + step])
        for split, indices in splits.items()
        for number, start in enumerate(range(0, len(indices), step))
    ]


def write_shards(settings: StudioSettings, workers: int = 1) -> list[Path]:
    """Render all scenes into `settings.output` and return the shard paths.

    Finished shards are kept, an unfinished one is rendered again. Raises InputError when the folder holds other
    files or shards of other settings, or when Mitsuba is missing.
    """
    if workers < 1:
        raise InputError(f"workers={workers} is too small; give workers=1 or more")
    load_mitsuba()
    output = _claim(Path(settings.output), settings)
    shards = plan_shards(settings)
    missing = [shard for shard in shards if not (output / shard.name).exists()]
    jobs = [(settings, index) for shard in missing for index in shard.indices]
    with _progress() as progress:
        task = progress.add_task("scenes", total=settings.num_scenes, completed=settings.num_scenes - len(jobs))
        samples = _render_all(jobs, workers)
        for shard in missing:
            _write_shard(output / shard.name, islice(samples, len(shard.indices)), lambda: progress.advance(task))
    return [output / shard.name for shard in shards]


def _claim(output: Path, settings: StudioSettings) -> Path:
    """Make the folder ours, or refuse it; `studio.json` tells which settings its shards were rendered with."""
    file = output / SETTINGS_FILE
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output} is a file; give a folder")
    if file.exists():
        _refuse_other_settings(json.loads(file.read_text()), settings, output)
    elif output.exists() and any(output.iterdir()):
        raise InputError(f"output={output} holds files that are not from the studio; give an empty or a new folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings.record(), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"output={output} cannot be written ({error.strerror}); give another folder") from error
    return output


def _refuse_other_settings(before: dict[str, int | float | str], settings: StudioSettings, output: Path) -> None:
    now = settings.record()
    changed = [f"{key}={now[key]} (there: {before.get(key)})" for key in now if before.get(key) != now[key]]
    if changed:
        raise InputError(f"output={output} holds shards of other settings: {', '.join(changed)}; give another folder")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )


def _render_all(jobs: list[tuple[StudioSettings, int]], workers: int) -> Iterator[dict[str, bytes]]:
    """Samples in the order of `jobs`; several workers are spawned processes."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_render_sample, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_render_sample, jobs)


def _render_sample(job: tuple[StudioSettings, int]) -> dict[str, bytes]:
    """The members of one sample, by file name."""
    settings, index = job
    scene = sample_scene(settings.seed, index, settings.subject, settings.views)
    members = render_scene(scene, settings.resolution, settings.spp) | {"": scene.record()}
    key = f"{settings.seed:04d}-{index:06d}"
    return dict(_encoded(f"{key}.{name}".rstrip("."), member) for name, member in members.items())


def _encoded(name: str, member: Image.Image | dict[str, Any]) -> tuple[str, bytes]:
    """File name and bytes of a picture (PNG) or a record (JSON)."""
    if isinstance(member, Image.Image):
        return f"{name}.png", _png(member)
    return f"{name}.json", json.dumps(member, sort_keys=True).encode()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write_shard(path: Path, samples: Iterable[dict[str, bytes]], advance: Callable[[], None]) -> None:
    """Write under a temporary name and rename, so that a shard with its final name is whole."""
    unfinished = path.with_suffix(".tar.unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for name, content in sample.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            advance()
    unfinished.replace(path)
