"""Poses for a U-Net: keypoints drawn as maps, and an encoder that adds them inside the down blocks.

Maps are those of CFLD (arXiv:2402.18078): three channels of coloured limbs and one Gaussian for each keypoint, whose
sigma is 6 pixels in a picture 256 high. The encoder is diffusers' T2I-Adapter (arXiv:2302.08453).

Deviations
- TruePose's pose encoder is not public; this is r2r's choice.
- Every level passes a convolution that begins at zero (ControlNet, arXiv:2302.05543), so that an untrained encoder
  changes nothing. T2I-Adapter has none.
- Limbs are drawn with soft edges of one pixel, so that small pictures keep thin limbs.
"""

from collections.abc import Sequence

import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from r2r.pose import LIMBS, OPENPOSE_18, limb_colours
from r2r.types import Pose

CHANNELS = 3 + len(OPENPOSE_18)
SIGMA = 6 / 256  # of the height
THICKNESS = 1 / 48  # of the short side


def pose_maps(pose: Pose, size: tuple[int, int]) -> Float[Tensor, "b 21 h w"]:
    """Limbs in 17 hues on black, in [0, 1], and 18 Gaussians of height 1; `size` is (height, width) of the picture.

    What is not known is not drawn; hidden keypoints are.
    """
    rows, columns = (torch.arange(side, device=pose.device) + 0.5 for side in size)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # h w 2, as x and y
    places, known = pose[:, :, None, None, :2], (pose[:, :, 2] > 0)[:, :, None, None]
    heat = torch.exp(-(grid - places).square().sum(-1) / (2 * (SIGMA * size[0]) ** 2)) * known
    return torch.cat([_limbs(pose, grid, max(1.0, THICKNESS * min(size) / 2)), heat], dim=1)


def _limbs(pose: Pose, grid: Float[Tensor, "h w 2"], radius: float) -> Float[Tensor, "b 3 h w"]:
    """Later limbs on top of earlier ones."""
    ends = [[OPENPOSE_18.index(limb[end]) for limb in LIMBS] for end in (0, 1)]
    start, end = (pose[:, places] for places in ends)
    along = (end - start)[:, :, None, None, :2]
    away = grid - start[:, :, None, None, :2]
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)).clamp(0, 1)
    cover = (radius + 0.5 - (away - share[..., None] * along).norm(dim=-1)).clamp(0, 1)
    cover = cover * torch.minimum(start[..., 2], end[..., 2]).gt(0)[:, :, None, None]
    picture = pose.new_zeros(len(pose), 3, *grid.shape[:2])
    for number, colour in enumerate(limb_colours()):
        picture = torch.lerp(picture, picture.new_tensor(colour)[:, None, None], cover[:, number, None])
    return picture


class PoseEncoder(nn.Module):
    """Residuals for the down blocks of a U-Net, one for each level."""

    def __init__(self, unet: UNet2DConditionModel, vae_factor: int, num_res_blocks: int = 2) -> None:
        """For a U-Net whose latents are `vae_factor` times smaller than pictures; it begins without effect."""
        super().__init__()
        widths = list(unet.config.block_out_channels)
        self.adapter = T2IAdapter(CHANNELS, widths, num_res_blocks, vae_factor, "full_adapter")
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        for layer in self.outputs:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, pose: Pose, size: tuple[int, int]) -> Sequence[Float[Tensor, "b _ _ _"]]:
        """What is added at each level for poses in a picture of `size` (height, width)."""
        maps = pose_maps(pose.float(), size).to(self.adapter.dtype)
        return [layer(level) for layer, level in zip(self.outputs, self.adapter(maps), strict=True)]
