"""Counts the graphs that torch.compile makes of a translation: `python -m tests.count_graphs` prints them as JSON.

A process of its own, because the type checks of the test suite are not traceable.
"""

import json
from typing import Any

import torch

from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from tests.pipelines import random_pipeline


def main() -> None:
    """Translate twice with a compiled U-Net, for each way the source can come in."""
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    counts: dict[str, list[int]] = {}
    for source in ("row", "recorded"):
        torch._dynamo.reset()
        pipe = RenderedToReal(StableDiffusion(random_pipeline()))
        conditions = [pipe.model.encode_prompts([text]) for text in ("", "render")]
        settings = TranslationSettings(num_inference_steps=10, strength=0.6, tac_ratio=0.5, source=source)
        latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        eager = pipe.translate_latents(latents, *conditions, settings=settings)
        pipe.unet.compile(backend=backend, fullgraph=True, dynamic=True)
        graphs.clear()
        counts[source] = []
        for _ in range(2):
            compiled = pipe.translate_latents(latents, *conditions, settings=settings)
            torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
            counts[source].append(len(graphs))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
