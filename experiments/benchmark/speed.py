"""How fast r2r trains and translates, beside diffusers' training scripts and pipelines, in one process order.

python experiments/benchmark/speed.py --model full --side 512 --batch 32 --output DIR      # on a GPU
python experiments/benchmark/speed.py --model tiny --side 128 --batch 4 --seconds 8 --output DIR      # on a CPU

Every run has a process of its own and loads the same random weights and the same pictures; runs take turns (A, B, A, B)
so that a slow spell of the machine meets all. r2r trains by `r2r.train` itself, with latents and captions cached;
"fast" is channels-last, compiled, with a fused optimizer; with --contenders, "r2r fast, forced layout" has Inductor
keep channels-last where it would not. On a GPU everything computes in bfloat16, weights that train stay in float32; on
a CPU in float32. DIR gets `speed.json`, anew after each run, and `speed.png`. What fails is recorded with its message.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

CONTENDERS = {
    "finetuning": ["r2r", "r2r fast", "diffusers"],
    "textual inversion": ["r2r", "r2r fast", "diffusers"],
    "translation": [
        "r2r",
        "r2r fast",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionDiffEditPipeline",
        "LEditsPPPipelineStableDiffusion",
    ],
}
VARIANTS = ["r2r fast, forced layout"]  # of both trainings
EXPERIMENTS = {"finetuning": "fashion_dki", "textual inversion": "fashion_negative"}
COUNTERS = Path(__file__).with_name("counters.json")  # TFLOP of an image at 512 px


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Random pictures with captions, and a pipeline of the wanted size."""
    from r2r.benchmark import stable_diffusion
    from r2r.models import StableDiffusion

    chance, place = np.random.default_rng(0), folder / "pictures"
    place.mkdir()
    for index in range(4 * options.batch):
        pixels = chance.integers(0, 256, (options.side, options.side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")
        (place / f"{index:04d}.txt").write_text(f"a photo of garment number {index}")
    model = StableDiffusion.from_pretrained("tiny") if options.model == "tiny" else stable_diffusion()
    model.save_pretrained(folder / "model")


def variant(contender: str) -> AbstractContextManager[Any]:
    """What is changed around a training, by the words behind the comma of its name."""
    from torch._inductor import config

    return config.patch(force_layout_optimization=True) if contender.endswith("forced layout") else nullcontext()


def train_by_r2r(task: str, contender: str, options: argparse.Namespace, clock: Any) -> None:
    """The command as a user gives it, without files that it writes on the way."""
    from peers import Stopwatch

    from r2r.cli import compose
    from r2r.train import train

    Stopwatch.clock, folder = clock, Path(options.folder)
    told = [f"experiment={EXPERIMENTS[task]}", f"model.pretrained={folder / 'model'}", "data=folder"]
    told += [f"model.resolution={options.side}", f"data.root={folder / 'pictures'}", "data.val_fraction=0"]
    told += [f"data.batch_size={options.batch}", f"data.num_workers={options.workers}", "task.cache_latents=true"]
    told += ["trainer.limit_val_batches=0", "trainer.max_steps=1000000", "+callbacks.clock._target_=peers.Stopwatch"]
    told += [f"callbacks.{name}=null" for name in ("checkpoint", "final_checkpoint", "grid", "export")]
    told += ["trainer.precision=bf16-mixed"] if torch.cuda.is_available() else ["trainer.accelerator=cpu"]
    fast = ["model.channels_last=true", "model.compile=true", "+task.optimizer.fused=true"]
    told += fast if contender.startswith("r2r fast") else []
    with tempfile.TemporaryDirectory() as output, variant(contender):
        train(compose("train", [*told, f"paths.output_dir={output}"]))


def time_training(task: str, contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Windows of one run: seconds of a step."""
    import peers

    clock = peers.Clock(options.seconds, warm_up=8, window=options.window)
    if contender == "diffusers":
        data = peers.pictures(Path(options.folder) / "pictures", options.side, options.batch, options.workers)
        loop = {"finetuning": peers.text_to_image, "textual inversion": peers.textual_inversion}[task]
        loop(Path(options.folder) / "model", data, clock)
    else:
        train_by_r2r(task, contender, options, clock)
    return {"seconds_per_batch": clock.windows}


def time_translation(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a batch of pictures, and U-Net evaluations of each, counted at the U-Net."""
    import peers

    from r2r import RenderedToReal

    cuda, model = torch.cuda.is_available(), Path(options.folder) / "model"
    device, dtype = ("cuda", "bfloat16") if cuda else ("cpu", "float32")
    if contender.startswith("r2r"):
        pipe: Any = RenderedToReal.from_pretrained(str(model), device=device, dtype=dtype)
        if contender == "r2r fast":
            pipe.model.speed_up(channels_last=True, compile=True)

        def edit(images: list[Image.Image]) -> Any:
            return pipe(images, strength=0.3, num_inference_steps=50, batch_size=len(images))
    else:
        pipe, edit = peers.editing(contender, model, device, getattr(torch, dtype))
    rows: list[int] = []
    pipe.unet.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    images = [Image.open(path) for path in sorted((Path(options.folder) / "pictures").glob("*.png"))[: options.batch]]
    edit(images)
    evals, clock = sum(rows) / len(images), peers.Clock(options.seconds, warm_up=1, window=1)
    while not clock.tick():
        edit(images)
    return {"seconds_per_batch": clock.windows, "unet_evals_per_image": evals}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run in this process."""
    task, contender = options.run.split(": ")
    translates = task == "translation"
    found = time_translation(contender, options) if translates else time_training(task, contender, options)
    if torch.cuda.is_available():
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def matmul_rate() -> float:
    """Tera-FLOPs a second of a large matrix product in the precision of the runs, the median of some."""
    cuda = torch.cuda.is_available()
    side, dtype, device = (8192, torch.bfloat16, "cuda") if cuda else (1024, torch.float32, "cpu")
    left, taken = torch.randn(side, side, dtype=dtype, device=device), list[float]()
    for _ in range(20):
        start = time.perf_counter()
        left @ left
        if cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 2 * side**3 / median(taken[5:]) / 1e12


def summary(rounds: list[dict[str, Any]], task: str, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Median and spread over all windows of all rounds, and what follows from them."""
    seconds = [each for found in rounds for each in found["seconds_per_batch"]]
    middle = median(seconds)
    spread = [float(each) for each in np.percentile(seconds, [5, 95])]
    told: dict[str, Any] = {"milliseconds_per_batch": 1e3 * middle, "percentiles_5_95": [1e3 * each for each in spread]}
    told |= {"images_per_second": options.batch / middle, "windows": len(seconds), "rounds": len(rounds)}
    if "unet_evals_per_image" in rounds[0]:
        evals = rounds[0]["unet_evals_per_image"]
        told |= {"unet_evals_per_image": evals, "milliseconds_per_eval": 1e3 * middle / options.batch / evals}
    elif options.model == "full" and options.side == 512:
        work = json.loads(COUNTERS.read_text())["counters"][f"{task}: TFLOP"] * options.batch / middle
        told |= {"tflop_per_second_useful": work, "share_of_matmul": work / rate}
    if "peak_memory_gib" in rounds[0]:
        told["peak_memory_gib"] = max(each["peak_memory_gib"] for each in rounds)
    return told


Rounds = dict[str, list[dict[str, Any]]]  # what each run found, by its name


def take_turns(
    options: argparse.Namespace, runs: list[str], keep: Callable[[Rounds, dict[str, str]], dict[str, Any]]
) -> dict[str, Any]:
    """`keep` gets, after each run, results over all rounds so far, and the last words of runs that failed."""
    found: Rounds = {run: [] for run in runs}
    failed, record = dict[str, str](), dict[str, Any]()
    for number in range(options.rounds):
        for run in runs:
            if run in failed:
                continue
            print(f"round {number + 1} of {options.rounds}: {run}", flush=True)
            again = [sys.executable, *sys.argv, "--run", run, "--folder", options.folder]
            done = subprocess.run(again, capture_output=True, text=True)
            if done.returncode:
                failed[run] = done.stderr.strip().splitlines()[-1]
            else:
                found[run].append(json.loads(done.stdout.splitlines()[-1]))
            record = keep({run: rounds for run, rounds in found.items() if rounds}, failed)
    return record


def store(options: argparse.Namespace, rate: float, rounds: Rounds, failed: dict[str, str]) -> dict[str, Any]:
    """The record of what is known by now, written to its file."""
    import diffusers

    settings = {name: value for name, value in vars(options).items() if name not in ("run", "folder", "output")}
    results = {run: summary(each, run.split(": ")[0], options, rate) for run, each in rounds.items()}
    cuda = torch.cuda.is_available()
    record = {"device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"}
    record |= {"torch": torch.__version__, "diffusers": diffusers.__version__, **settings}
    record |= {"matmul_tflop_per_second": rate, "results": results, "failed": failed}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "speed.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def draw(results: dict[str, Any], path: Path) -> None:
    """Images a second of each task, a bar for each contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = [task for task in CONTENDERS if any(run.startswith(f"{task}: ") for run in results)]
    figure, axes = plt.subplots(len(tasks), 1, figsize=(7, 1.7 * len(tasks)), layout="constrained", squeeze=False)
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        own = {run.split(": ")[1]: value for run, value in results.items() if run.startswith(f"{task}: ")}
        axis.barh(list(own), [each["images_per_second"] for each in own.values()], color="#4878a8")
        axis.invert_yaxis()
        axis.set(title=task, xlabel="images per second")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Time one run, or all in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["tiny", "full"], default="full", help="full: Stable Diffusion 1.5's size")
    for name, default in {"side": 512, "batch": 16, "rounds": 2, "window": 5, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=60, help="steady state of each run")
    parser.add_argument("--tasks", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    usual = [each for names in CONTENDERS.values() for each in names]
    parser.add_argument("--contenders", nargs="+", choices=sorted({*usual, *VARIANTS}), default=usual)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--run", help="this one alone, in this process")
    parser.add_argument("--folder", help="of the pictures and the model, with --run")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options)))
        return
    rate = matmul_rate()
    with tempfile.TemporaryDirectory() as options.folder:
        prepare(options, Path(options.folder))
        known = {task: CONTENDERS[task] + VARIANTS * (task in EXPERIMENTS) for task in options.tasks}
        runs = [f"{task}: {each}" for task, names in known.items() for each in names if each in options.contenders]
        record = take_turns(options, runs, partial(store, options, rate))
    draw(record["results"], options.output / "speed.png")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
