"""The embedded tiny model: Stable Diffusion's layout and shapes at 128 px, small enough for two CPU cores.

Architecture after Stable Diffusion 1.x (arXiv:2112.10752). Everything here starts from random weights; the recipes of
the shipped ones are `conf/experiment/tiny_vae.yaml`, `tiny_base.yaml` and `tiny_features.yaml`.

Deviations from Stable Diffusion 1.x:
- VAE factor 4 and eight latent channels instead of 8 and four, and no attention inside it: texture survives at 128 px
  and decoding stays cheap.
- v-prediction (arXiv:2202.00512), and a noise schedule that ends in noise (beta_end 0.03 instead of 0.012). The tone of
  a picture is the mean of all its latents: over 32 x 32 of them noise averages out, and at Stable Diffusion's last
  timesteps the tone is still plain to see, so guidance hardly changes it ("Common Diffusion Noise Schedules and Sample
  Steps are Flawed", arXiv:2305.08891; "simple diffusion", arXiv:2301.11093, shifts schedules by picture size).
- U-Net of three levels (strides 1, 2, 4) with attention on every level and one residual block each; the shallow sites
  of texture-preserving attention control (stride <= 2) are a true subset, as in the four-level original.
- Text encoder of two layers, width 128, 32 positions; its byte-pair vocabulary is learned from `LEXICON`.
"""

from collections import Counter
from itertools import pairwise
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from r2r.models.stable_diffusion import PRETRAINED, StableDiffusion

RESOLUTION = 128
LATENT_CHANNELS = 8
TEXT_WIDTH = 128
MAX_TOKENS = 32
WORD_END = "</w>"
LEXICON = """
a an the of in on with and or to for from by at as is are this that it its no not very style look one two three
photo photograph photography picture image shot snapshot portrait close up closeup detail view front back side top down
3d 2d render rendered rendering cg cgi computer generated graphics graphic digital virtual synthetic simulated studio
real realistic realism natural fake art artwork drawing painting sketch illustration cartoon
cloth clothes clothing garment fashion wear outfit product catalog fabric textile texture material pattern
t shirt tshirt tee blouse top polo sweater hoodie jumper cardigan jacket coat blazer vest undershirt bodysuit body
trousers pants jeans shorts leggings skirt dress gown suit outwear sleeve sleeved sleeveless long short longsleeve
collar button pocket hem waist neck cuff belt zip hood pleat pleated fold folded wrinkle wrinkled crease draped
plain striped stripes stripe plaid tartan check checked checkered dots dotted dot polka print printed lettering letters
letter logo floral flower knit knitted ribbed solid gingham herringbone camouflage pattern patterned
cotton wool silk linen denim leather velvet satin lace polyester nylon jersey fleece
white cream beige grey gray charcoal black navy blue teal green olive mint yellow mustard orange red burgundy pink
purple lavender brown gold silver cyan magenta violet maroon khaki tan turquoise light dark bright pale deep soft
man woman men women boy girl person people model human face hand hands hair skin child wearing standing sitting hanging
lying laying flat lay floor wall table bed wood wooden rug sheet room indoor outdoor background backdrop white house
light lighting lit shadow shadows sun sunlight daylight lamp flash warm cool camera lens focus blur blurred blurry grain
noise high low quality resolution detailed sharp smooth hd beautiful good bad best old new small large big
"""


def build_tokenizer(lexicon: str = LEXICON) -> CLIPTokenizer:
    """CLIP tokenizer whose merges make every word of `lexicon` one token; any other text falls back to its bytes."""
    merges = learn_merges(lexicon.split())
    characters = sorted(ByteLevel.alphabet())
    pieces = [*characters, *(character + WORD_END for character in characters), *("".join(pair) for pair in merges)]
    entries = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=cast(Any, merges), model_max_length=MAX_TOKENS)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (arXiv:1508.07909), most frequent pair first, ties in alphabetical order, until none is left."""
    counts = Counter((*word[:-1], word[-1] + WORD_END) for word in words)
    merges: list[tuple[str, str]] = []
    while pairs := _count_pairs(counts):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        counts = Counter({_merge(symbols, best): count for symbols, count in counts.items()})
        merges.append(best)
    return merges


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP text encoder for the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=cast(int, tokenizer.bos_token_id),
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """Three cross-attention levels on 32 x 32 latents."""
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 4,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(32, 96, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=cast(Any, (1, 2, 2)),  # heads, not widths: diffusers keeps SD 1.x's misnomer
        norm_num_groups=4,
    )


def build_vae() -> AutoencoderKL:
    """Autoencoder of factor 4 with eight latent channels; the recipe sets `scaling_factor` once it is trained."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 48, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,  # few: a group of one channel would normalise its mean, the colour, away
        sample_size=RESOLUTION,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    _start_as_colour_codec(vae)
    return vae


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, drawn out until the tone of a picture is lost in noise too."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.03,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_tiny(vae: str | None = None, resolution: int = RESOLUTION, seed: int = 0) -> StableDiffusion:
    """Random text encoder and U-Net around a trained autoencoder: the start of `experiment=tiny_base`.

    `vae` is a folder with a `vae` subfolder (an export of `experiment=tiny_vae`, any diffusers pipeline), "tiny" for
    the shipped one, None for random weights; `resolution` in pixels is that of the training images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        parts = {"text_encoder": build_text_encoder(tokenizer), "unet": build_unet(), "vae": build_vae()}
    if vae is not None:
        parts["vae"] = AutoencoderKL.from_pretrained(PRETRAINED.get(vae, vae), subfolder="vae")
    pipe = StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=cast(Any, None),
        feature_extractor=cast(Any, None),
        requires_safety_checker=False,
    )
    return StableDiffusion(pipe, resolution)


def _count_pairs(counts: Counter[tuple[str, ...]]) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for symbols, count in counts.items():
        for pair in pairwise(symbols):
            pairs[pair] += count
    return pairs


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in symbols:
        joined = bool(merged) and (merged[-1], symbol) == pair
        merged[-1:] = [merged[-1] + symbol] if joined else [*merged[-1:], symbol]
    return tuple(merged)


@torch.no_grad()
def _start_as_colour_codec(vae: AutoencoderKL, constant: float = 4.0) -> None:
    """Let the untrained autoencoder carry the mean colour of every 4 x 4 block, so that training starts at detail.

    Eight channels hold x, -x and two constants through all layers: silu(x) - silu(-x) = x undoes the activation, and
    the constants fix what the group norm divides by. Residual branches start at zero, posteriors narrow.
    """
    encoder, decoder = cast(Any, vae.encoder), cast(Any, vae.decoder)
    keep, signs = torch.eye(8), torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(2, 3)])
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(cast(Tensor, module.conv2.bias))
            if module.conv_shortcut is not None:
                _carry(module.conv_shortcut, keep)
    for layer in (encoder.conv_in, decoder.conv_in):
        _carry(layer, signs)
        layer.bias[6:8] = constant * torch.tensor([1.0, -1.0])
    for block in encoder.down_blocks[:-1]:
        _carry(block.downsamplers[0].conv, keep)
        block.downsamplers[0].conv.weight[:8, :8] = keep[..., None, None] * F.pad(
            torch.full((2, 2), 0.25), (0, 1, 0, 1)
        )
    for block in decoder.up_blocks[:-1]:
        _carry(block.upsamplers[0].conv, keep)
    for end in (encoder, decoder):
        channels_per_group = end.conv_norm_out.num_channels // end.conv_norm_out.num_groups
        _carry(end.conv_out, signs.T * constant * (2 / channels_per_group) ** 0.5)
    _carry(vae.quant_conv, torch.eye(2 * LATENT_CHANNELS) * (torch.arange(2 * LATENT_CHANNELS) < LATENT_CHANNELS))
    _carry(vae.post_quant_conv, torch.eye(LATENT_CHANNELS))
    cast(Tensor, cast(Any, vae.quant_conv).bias)[LATENT_CHANNELS:] = -6.0


def _carry(layer: Any, matrix: Tensor) -> None:
    """Make the first outputs of a convolution the given combinations of its first inputs, pixel by pixel."""
    rows, columns = matrix.shape
    middle = layer.kernel_size[0] // 2
    layer.weight[:rows], layer.bias[:rows] = 0.0, 0.0
    layer.weight[:rows, :columns, middle, middle] = matrix
