"""`python -m r2r.caption input=FOLDER`: caption images or shards with BLIP, for training with words.

BLIP: Bootstrapping Language-Image Pre-training, arXiv 2201.12086, through transformers.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import progress_bar, verb
from r2r.errors import DataError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from r2r.data.samples import Sample

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 30.0
Captioner = Callable[[Sequence["Image"]], list[str]]


def find_images(folder: str | Path) -> "list[Sample]":
    """Samples to caption: those of `*.tar` shards in `folder` if there are any, else its images, recursively."""
    from r2r.data.datasets import image_samples
    from r2r.data.shards import index_shards

    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"input is not a folder: {root.absolute()}")
    shards = sorted(str(path) for path in root.glob("*.tar"))
    return index_shards(shards) if shards else image_samples(root, root)


def caption_samples(
    samples: "Sequence[Sample]",
    output: str | Path,
    captioner: Captioner,
    batch_size: int = 8,
    image_member: str | None = None,
) -> list[str]:
    """Add a caption for every sample that has none yet to the JSON file `output` (by key).

    The file is replaced as a whole every half minute and at the end, also when interrupted: the next call goes on from
    there. Returns the messages about images that could not be read.
    """
    from r2r.data.captions import read_captions

    captions = read_captions(Path(output).parent, output) if Path(output).is_file() else {}
    missing = [sample for sample in samples if sample.key not in captions]
    log.info("%d images, %d have a caption already", len(samples), len(samples) - len(missing))
    failed: list[str] = []
    saved = time.monotonic()
    try:
        for batch in _progress(missing, batch_size):
            captions |= _caption(batch, captioner, image_member, failed)
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                write_json(output, captions)
                saved = time.monotonic()
    finally:
        write_json(output, captions)
    return failed


def _caption(
    batch: "Sequence[Sample]", captioner: Captioner, image_member: str | None, failed: list[str]
) -> dict[str, str]:
    from r2r.data.images import decode_image
    from r2r.data.views import only_image

    images: dict[str, Image] = {}
    for sample in batch:
        try:
            part = sample.part(image_member or only_image(sample))
            images[sample.key] = decode_image(part.read(), part.name)
        except DataError as error:
            failed.append(str(error))
    return dict(zip(images, captioner(list(images.values())), strict=True)) if images else {}


def _progress(samples: "Sequence[Sample]", batch_size: int) -> "Iterator[Sequence[Sample]]":
    with progress_bar() as progress:
        bar = progress.add_task("captions", total=len(samples))
        for first in range(0, len(samples), batch_size):
            yield samples[first : first + batch_size]
            progress.advance(bar, len(samples[first : first + batch_size]))


@verb("caption")
def main(cfg: DictConfig) -> None:
    """Caption what is under `input`; unreadable images are reported and end the command with a non-zero exit."""
    from r2r.models.captioner import blip

    samples = find_images(cfg.input)
    captioner = blip(cfg.model, cfg.device, cfg.max_new_tokens)
    failed = caption_samples(samples, cfg.output, captioner, cfg.batch_size, cfg.image_member)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    write_json(Path(cfg.output).with_suffix(".run.json"), run_record(config, images=len(samples), broken=failed))
    if failed:
        raise DataError(f"{len(failed)} of {len(samples)} images could not be captioned:\n  " + "\n  ".join(failed))
    log.info("captions in %s", cfg.output)


if __name__ == "__main__":
    main()
