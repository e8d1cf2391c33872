"""`python -m r2r.benchmark output=DIR`: what r2r computes at the size of Stable Diffusion 1.5, counted exactly.

Counts are those of the code that trains and translates, run on tensors without values (`FakeTensorMode`): no weights,
no GPU, and the same numbers everywhere. FLOPs are PyTorch's (`torch.utils.flop_counter`: a multiply and an add are
two), attention as two matrix products forward and four backward; kernels that compute the forward half again cost more.
Activations are those in float32 with a fused kernel of attention. Nothing here is a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from r2r.cli import verb
from r2r.errors import InputError
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from r2r.models import StableDiffusion


def counters(size: tuple[int, int]) -> dict[str, float]:
    """Work for one image of `size` (height, width): FLOPs in units of 10^12, activations and banks in MiB.

    Trainings have latents and captions cached. Raises InputError for sides that are no multiples of 64.
    """
    import torch

    from r2r.models import LoRA
    from r2r.tasks import DomainFinetuning, TextualInversion

    if any(side % 64 or side < 64 for side in size):
        raise InputError(f"height={size[0]} width={size[1]} must be multiples of 64")
    found: dict[str, float] = {}
    unused: Any = torch.optim.AdamW  # no step is taken
    finetuning = partial(DomainFinetuning, optimizer=unused, lr_scheduler=unused, cache_latents=True)
    steps = {
        "finetuning": finetuning,
        "finetuning, checkpointed": partial(finetuning, gradient_checkpointing=True),
        "finetuning, LoRA": partial(finetuning, lora=LoRA()),
        "textual inversion": partial(TextualInversion, optimizer=unused, lr_scheduler=unused, cache_latents=True),
    }
    for name, build in steps.items():
        task = build(_unwritten())
        trained = sum(each.numel() for each in task.parameters() if each.requires_grad)
        found[f"{name}: trained parameters [M]"] = trained / 1e6
        with without_values():
            step = _training_step(task, size)
            found[f"{name}: TFLOP"] = flops(lambda step=step: step().backward())
            found[f"{name}: activations [MiB]"] = kept_bytes(step) / 2**20
    with without_values():
        found |= _networks(stable_diffusion(), size)
    for name, evaluations in _evaluations().items():
        networks = found["encoding: TFLOP"] + found["decoding: TFLOP"]
        found[name] = evaluations
        found[name.replace("U-Net evaluations", "TFLOP")] = evaluations * found["U-Net evaluation: TFLOP"] + networks
    return found


def stable_diffusion(device: str = "cpu") -> "StableDiffusion":
    """Stable Diffusion 1.5's networks with random weights, or without any on the device "meta" or in `without_values`.

    The tokenizer is the tiny model's, as tokens do not change the work.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from r2r.models import StableDiffusion
    from r2r.models.tiny import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    blocks: dict[str, Any] = {  # diffusers annotates them as tuples of one
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    with torch.device(device):
        encoder = CLIPTextModel(text)
        vae = AutoencoderKL(layers_per_block=2, latent_channels=4, **blocks)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    parts: dict[str, Any] = {"text_encoder": encoder, "vae": vae, "unet": unet, "scheduler": schedule}
    checks: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusion(StableDiffusionPipeline(tokenizer=tokenizer, **parts, **checks))


def _unwritten() -> "StableDiffusion":
    """The same with weights that were never written: peft builds a LoRA on those, and on none without values."""
    model = stable_diffusion("meta")
    for network in model.modules():
        network.to_empty(device="cpu")
    return model


@contextmanager
def without_values() -> Iterator[None]:
    """Tensors made here have shapes and no values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def flops(work: Callable[[], Any]) -> float:
    """Tera-FLOPs of some work, with attention as matrix products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops() / 1e12


def kept_bytes(work: Callable[[], Any]) -> int:
    """Bytes that autograd keeps for the way back, every storage once, parameters not counted."""
    import torch
    from torch.autograd.graph import saved_tensors_hooks

    kept: dict[int, tuple[Any, int]] = {}

    def pack(tensor: "Tensor") -> "Tensor":
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = (storage, storage.nbytes())  # held, so that its address stays its own
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    del result
    return sum(size for _, size in kept.values())


def _training_step(task: Any, size: tuple[int, int]) -> Callable[[], "Tensor"]:
    """The loss of one image whose latents and caption are known."""
    import torch

    latents = torch.empty(1, 4, size[0] // 8, size[1] // 8)
    task.encode = lambda images: latents
    if getattr(task, "known_captions", None) is not None:
        task.known_captions["a shirt"] = task.model.encode_prompts(["a shirt"])
    batch = {"image": torch.empty(1, 3, *size), "caption": ["a shirt"], "key": ["a"]}
    return lambda: task._loss(batch, torch.Generator().manual_seed(0))


def _evaluations() -> dict[str, float]:
    """U-Net evaluations of an image at the defaults of `r2r.translate`, counted at the tiny model's U-Net."""
    import torch

    from r2r.models import StableDiffusion
    from r2r.tasks import RenderedToReal, TranslationSettings

    pipe, found = RenderedToReal(StableDiffusion.from_pretrained("tiny")), dict[str, float]()
    latents, empty = torch.zeros(1, 8, 8, 8), pipe.model.encode_prompts([""])
    for source in ("row", "recorded"):
        before = pipe.model.sample_evals
        pipe.translate_latents(latents, empty, empty, settings=TranslationSettings(source=source))
        found[f"translation, source={source}: U-Net evaluations"] = float(pipe.model.sample_evals - before)
    return found


def _networks(model: "StableDiffusion", size: tuple[int, int]) -> dict[str, float]:
    """Each network once, and what texture-preserving attention control keeps of one evaluation."""
    import torch

    from r2r.attention import AttentionBank, Record, Sites, attention_control
    from r2r.tasks import TranslationSettings

    latents, empty, bank = torch.empty(1, 4, size[0] // 8, size[1] // 8), model.encode_prompts([""]), AttentionBank()
    found = {"encoding: TFLOP": flops(lambda: model.encode(torch.empty(1, 3, *size)))}
    found["decoding: TFLOP"] = flops(lambda: model.decode(latents))
    with torch.no_grad(), attention_control(model.unet, Record(bank, Sites("self", TranslationSettings().max_stride))):
        found["U-Net evaluation: TFLOP"] = flops(lambda: model.predict(latents, torch.tensor(500), empty))
    kept = sum(each.query.nbytes + each.part("key").nbytes for each in bank.values())
    return found | {"queries and keys of a step, bfloat16 [MiB]": kept / 2 / 2**20}  # counted in float32


@verb("benchmark")
def main(cfg: DictConfig) -> None:
    """Count, print, and write."""
    found = counters((cfg.height, cfg.width))
    for name, value in found.items():
        print(f"{name:52} {value:12.4f}")
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    write_json(Path(cfg.output) / "counters.json", {"height": cfg.height, "width": cfg.width, "counters": found})
    write_json(Path(cfg.output) / "run.json", run_record(config))


if __name__ == "__main__":
    main()
