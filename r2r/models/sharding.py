"""A U-Net shared out over ranks: each holds a part of every weight, gradient and optimizer state (FSDP2)."""

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard


def shard(unet: UNet2DConditionModel, mesh: Any) -> None:
    """In place, block by block, so that one block at a time is whole on a device."""
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            fully_shard(module, mesh=mesh)
    fully_shard(unet, mesh=mesh)


def whole(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same network with its weights put together, on rank 0; elsewhere a random one. All ranks must call this."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(unet, options=options)
    found: Any = UNet2DConditionModel.from_config(unet.config)
    if state:
        found.load_state_dict(state)
    return found
