"""Work and memory of IGR at the size of Stable Diffusion 1.5: exact counts on PyTorch's meta device, no weights needed.

python experiments/full_size/igr_count.py --height 512 --width 384 [--output FILE]

FLOPs are those of `torch.utils.flop_counter`; activations are what autograd keeps, every storage once.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from r2r.attention import AttentionInputs, KeyValue
from r2r.benchmark import flops, kept_bytes, stable_diffusion
from r2r.models.garment_denoiser import Appearance, GarmentDenoiser
from r2r.models.stable_diffusion import TextConditioning

TOKENS, WIDTH, ENCODED = 77, 768, (257, 1280)  # CLIP ViT-L text, and what CLIP ViT-H makes of a picture
PROMPT = {"num_tokens": 16, "width": 768, "depth": 4, "head_width": 64}
STEPS, FIFTH = 20, 0.2


def encoder() -> Any:
    """A stand-in of CLIP ViT-H, which is frozen and whose tokens can be cached: only its width matters."""
    return SimpleNamespace(width=ENCODED[1], origin={"pretrained": "clip"}, to=lambda device: None)


def build(**settings: Any) -> GarmentDenoiser:
    """A denoiser on the meta device in bfloat16."""
    model = stable_diffusion("meta")
    with torch.device("meta"):
        denoiser = GarmentDenoiser(model, settings.pop("encoder", None), PROMPT, **settings)
    return denoiser.to(torch.bfloat16).requires_grad_(True)


def meta(*shape: int) -> Tensor:
    """Numbers without values."""
    return torch.empty(*shape, device="meta", dtype=torch.bfloat16)


def look(denoiser: GarmentDenoiser, size: tuple[int, int], garment: float = 1.0) -> Appearance:
    """One person, of whom a garment takes that share: masks without values cannot cut the reference keys down to it."""
    condition = TextConditioning(meta(1, TOKENS, WIDTH))
    encoded = meta(1, *ENCODED) if denoiser.image_prompt is not None else None
    latents = meta(1, 4, size[0] // 8, size[1] // 8)
    seen = denoiser.look(meta(1, 3, *size), condition, None, latents, encoded)
    bank = denoiser.reference.bank if denoiser.reference is not None else {}
    for name, inputs in bank.items():
        key, value = (inputs.part(part) for part in ("key", "value"))
        count = round(garment * key.shape[2])
        bank[name] = AttentionInputs(inputs.query, (KeyValue(key[:, :, :count], value[:, :, :count]),))
    return seen


def predict(denoiser: GarmentDenoiser, size: tuple[int, int], seen: Appearance, rows: int = 1) -> Tensor:
    """One call of the denoiser."""
    latents, times = meta(rows, 4, size[0] // 8, size[1] // 8), torch.empty((), device="meta", dtype=torch.long)
    looking = torch.empty(rows, device="meta", dtype=torch.bool)
    return denoiser.predict(latents, times, TextConditioning(meta(rows, TOKENS, WIDTH)), seen, looking, looking)


def training(
    size: tuple[int, int], checkpointing: bool = False, garment: float = 1.0, **settings: Any
) -> dict[str, float]:
    """One pair: FLOPs forward and backward, parameters, and bytes of activations."""
    denoiser = build(**settings)
    if checkpointing:
        denoiser.unet.enable_gradient_checkpointing()
    if checkpointing and denoiser.reference is not None:
        denoiser.reference.unet.enable_gradient_checkpointing()
    denoiser.train()

    def forward() -> Tensor:
        return predict(denoiser, size, look(denoiser, size, garment))

    return {
        "trained_parameters_m": sum(p.numel() for p in denoiser.parameters()) / 1e6,
        "tflop_forward": flops(forward),
        "tflop_step": flops(lambda: forward().sum().backward()),
        "activations_gb": kept_bytes(forward) / 2**30,
    }


def sampling(size: tuple[int, int], rows: int, garment: float = 1.0) -> dict[str, float]:
    """One image by 20 steps of so many rows: the reference once, and what it would be in every step."""
    denoiser = build(encoder=encoder())
    with torch.no_grad():
        once = flops(lambda: look(denoiser, size))
        seen = look(denoiser, size, garment)
        step = flops(lambda: predict(denoiser, size, seen, rows))
    bank = sum(each.part(part).nbytes for each in denoiser.reference.bank.values() for part in ("key", "value"))
    total = once + STEPS * step
    return {
        "tflop_reference": once,
        "tflop_step": step,
        "tflop_image": total,
        "tflop_image_reference_in_every_step": STEPS * (once + step),
        "bank_mb": bank / 2**20,
    }


def main() -> None:
    """Count, print, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    size = (given.height, given.width)
    whole, cut = stable_diffusion("meta").unet, build().reference.unet
    counts: dict[str, Any] = {
        "size": size,
        "unet_parameters_m": sum(p.numel() for p in whole.parameters()) / 1e6,
        "reference_parameters_m": sum(p.numel() for p in cut.parameters()) / 1e6,
        "training": {
            "full": training(size, encoder=encoder()),
            "full, garment of a fifth": training(size, garment=FIFTH, encoder=encoder()),
            "full, checkpointed": training(size, True, encoder=encoder()),
            "without reference": training(size, encoder=encoder(), use_reference=False),
            "fused from stride 2": training(size, encoder=encoder(), min_stride=2),
        },
        "sampling": {f"{rows} rows": sampling(size, rows) for rows in (2, 3)}
        | {f"{rows} rows, garment of a fifth": sampling(size, rows, FIFTH) for rows in (2, 3)},
    }
    text = json.dumps(counts, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
