"""One training step at the size of Stable Diffusion 1.5, by `r2r.train` itself, on random weights.

python experiments/full_size/step.py igr | truepose [--frozen] [--output FILE]

Writes a pipeline of Stable Diffusion 1.5's architecture and a CLIP ViT-H, both in bfloat16 with random weights, to a
folder that is removed again (4 GB), and trains one batch of one pair of the embedded persons: 512 x 384 or 512 x 352,
bfloat16 throughout (`trainer.precision=bf16-true`), AdamW, gradient checkpointing. Memory is the highest resident set
of the process, so on a CPU it holds weights, gradients, moments and activations, and the libraries themselves.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel

from r2r.benchmark import stable_diffusion
from r2r.cli import build, compose

METHODS = {  # experiment, task, height and width, the setting that trains the second U-Net
    "igr": ("igr_coarse", "garment_restoration_clip", (512, 384), "train_reference"),
    "truepose": ("truepose", "pose_transfer_clip", (512, 352), "train_source"),
}


def write_models(folder: Path) -> None:
    """Random weights of the real shapes; the vocabulary is the embedded model's, as tokens do not change the work."""
    stable_diffusion().pipe.to(torch.bfloat16).save_pretrained(folder / "sd15")
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    vision = CLIPVisionModel(CLIPVisionConfig(**sizes, patch_size=14, image_size=224))
    vision.to(torch.bfloat16).save_pretrained(folder / "clip")


def settings(method: str, folder: Path, frozen: bool) -> list[str]:
    """A command line of `r2r.train`."""
    experiment, task, size, trains = METHODS[method]
    return [
        f"experiment={experiment}",
        "model=sd15",
        f"task={task}",
        "+model.dtype=bfloat16",
        f"model.pretrained={folder / 'sd15'}",
        f"task.encoder.pretrained={folder / 'clip'}",
        "task.encoder.subfolder=''",
        f"data.resolution=[{size[0]},{size[1]}]",
        "data.batch_size=1",
        "data.num_workers=0",
        "trainer.precision=bf16-true",
        "trainer.accelerator=cpu",
        "trainer.max_steps=1",
        "trainer.limit_val_batches=0",
        "trainer.num_sanity_val_steps=0",
        "task.gradient_checkpointing=true",
        f"task.{trains}={not frozen}",
        f"paths.output_dir={folder / 'run'}",
    ]


class Count(Callback):
    """FLOPs and seconds of the step, which begins with the frozen encoders and ends with the optimizer."""

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin."""
        self.counter, self.start = FlopCounterMode(display=False), time.perf_counter()
        self.counter.__enter__()

    def on_train_batch_end(self, *args: Any) -> None:
        """End."""
        self.counter.__exit__(None, None, None)
        self.seconds = time.perf_counter() - self.start


def measure(method: str, folder: Path, frozen: bool) -> dict[str, Any]:
    """Train the step."""
    config = compose("train", settings(method, folder, frozen))
    torch.manual_seed(0)
    data = build(config.data)
    data.setup("fit")
    task = build(config.task, model=build(config.model))
    count = Count()
    trainer = build(config.trainer, callbacks=[count], logger=False, enable_checkpointing=False)
    before = {name: value.detach().clone() for name, value in task.named_parameters() if name.endswith("to_v.weight")}
    trainer.fit(task, datamodule=data)
    moved = sum(bool((value != dict(task.named_parameters())[name]).any()) for name, value in before.items())
    return {
        "method": method,
        "size": METHODS[method][2],
        "second_unet_trains": not frozen,
        "loss": trainer.callback_metrics["train/loss"].item(),
        "trained_parameters_m": sum(p.numel() for p in task.parameters() if p.requires_grad) / 1e6,
        "value_projections_moved": f"{moved} of {len(before)}",
        "tflop": count.counter.get_total_flops() / 1e12,
        "seconds": round(count.seconds, 1),
        "threads": torch.get_num_threads(),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("--frozen", action="store_true", help="keep the second U-Net as it begins")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--models", type=Path, help="write the models here, or take those that are here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.models or Path(temporary)
        if not (folder / "clip").is_dir():
            write_models(folder)
        text = json.dumps(measure(given.method, folder, given.frozen), indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
