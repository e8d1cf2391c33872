"""Translation by a trained generator of CUT, FastCUT, SANTA or UNSB: one network, no U-Net, no prompt."""

from collections.abc import Sequence
from itertools import groupby, islice

import torch
from PIL import Image
from torch import Generator

from r2r.data.images import fit_to_multiple, to_pil, to_tensor
from r2r.errors import InputError
from r2r.models.gan.bridge import BridgeGenerator
from r2r.models.gan.export import load_generator

MULTIPLE = 4  # the generators halve twice


class GeneratorTranslator:
    """Translate images of any sizes by a generator.

    >>> pipe = GeneratorTranslator("logs/cut/export")  # doctest: +SKIP
    >>> photos = pipe([render])  # doctest: +SKIP
    """

    def __init__(self, model: str, num_evals: int | None = None, device: str = "cpu") -> None:
        """Load an export folder or a `latest_net_G.pth` of the released code.

        Raises:
            InputError: no generator there, or `num_evals` for another kind than UNSB's, or out of its range.
        """
        self.network = load_generator(model).to(device)
        self.device, self.sample_evals = device, 0  # evaluations of the network so far, one for each image
        most = self.network.bridge.num_timesteps if isinstance(self.network, BridgeGenerator) else 1
        if num_evals is not None and not 1 <= num_evals <= most:
            raise InputError(
                f"task.num_evals={num_evals} must lie in [1, {most}] for this {type(self.network).__name__}"
            )
        self.num_evals = num_evals or most

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Image.Image] | Image.Image,
        *,
        seed: int = 0,
        resolution: int | None = None,
        batch_size: int = 8,
    ) -> list[Image.Image]:
        """Translations in the sizes of the images; `seed` is that of UNSB's noise, the same for every image.

        `resolution` is the short side to work at, by default the image's own; sides are rounded to multiples of four.
        """
        images = [images] if isinstance(images, Image.Image) else images
        fitted = [fit_to_multiple(image, MULTIPLE, resolution) for image in images]
        results: list[Image.Image] = []
        for _, group in groupby(fitted, key=lambda item: item[0].size):
            while batch := list(islice(group, batch_size)):
                pixels = torch.stack([to_tensor(image) for image, _ in batch]).to(self.device)
                # noise is drawn image by image: a picture does not depend on its neighbours
                parts = pixels.split(1 if self._random else len(pixels))
                out = torch.cat([self._translate(part, seed) for part in parts])
                results += [back(to_pil(picture)) for picture, (_, back) in zip(out, batch, strict=True)]
        return results

    @property
    def _random(self) -> bool:
        return isinstance(self.network, BridgeGenerator)

    def _translate(self, pixels: torch.Tensor, seed: int) -> torch.Tensor:
        self.sample_evals += len(pixels) * self.num_evals
        if not isinstance(self.network, BridgeGenerator):
            return self.network.translate(pixels)
        return self.network.translate(pixels, Generator(pixels.device).manual_seed(seed), self.num_evals)
