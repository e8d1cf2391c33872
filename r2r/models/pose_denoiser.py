"""A denoiser that draws a person in another pose: TargetNet, SourceNet, parsing-guided fusion, image tokens of crops.

TruePose, *Human-Parsing-guided Attention Diffusion for Full-ID Preserving Pose Transfer* (arXiv:2502.03426): two
identical U-Nets, TargetNet that denoises and SourceNet that embeds the source picture; HPFA, fusion attention guided by
human parsing; CAA, alignment by CLIP, of face and clothes.

Deviations
- Of the paper only the abstract could be read; no formula of it is known. The parts are r2r's construction: SourceNet
  is `ReferenceNet` told the parsing by a convolution, HPFA is `ParsingFusion`, CAA decoupled cross-attention over
  tokens of crops (`ImagePrompt`) and, if wanted, a loss; poses come by `PoseEncoder`.
- HPFA begins as plain fusion, as both nets begin with the same weights; pose, parsing and CAA begin without effect.
- Several sources can be seen at once, each by some of its regions: editing without training, as the abstract names it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from r2r.attention import (
    AttentionBank,
    AttentionInputs,
    Fuse,
    KeyValue,
    Record,
    RowMap,
    Sites,
    attention_sites,
    install,
)
from r2r.errors import InputError
from r2r.models.exported_parts import base_settings, load_parts, read_content, save_parts
from r2r.models.image_encoder import ImageEncoder
from r2r.models.image_prompt import ImagePrompt
from r2r.models.parsing_fusion import ParsingEmbedding, ParsingFusion, Visible, one_hot, side_by_side
from r2r.models.pose_encoder import PoseEncoder
from r2r.models.reference_net import ReferenceNet
from r2r.models.region_crops import CROPS, region_crop
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.parsing import REGIONS
from r2r.types import Images, Latents, Parsing

SETTINGS = "pose.json"
EXPORTS = {"tiny": Path(__file__).parents[1] / "assets" / "pose"}  # shipped; any other name is a folder
PARTS = ("unet", "pose", "source", "embedding", "fusion", "prompts", "heads")  # what an export may hold


@dataclass(frozen=True)
class Seen:
    """What was seen of the sources of some persons, once; the rest lies in the bank."""

    count: int  # of persons
    tokens: dict[str, Float[Tensor, "b k d"]]  # by crop; zeros where it shows nothing
    misalignment: Float[Tensor, ""] | None = None


class PoseDenoiser(nn.Module):
    """The U-Net of `model` as TargetNet, with all that tells it of source and pose; controls are installed for good.

    Parameters of the module are those that may train. VAE, text encoder and image encoder stay frozen outside.
    """

    def __init__(
        self,
        model: StableDiffusion,
        encoder: ImageEncoder | None = None,
        image_prompt: dict[str, Any] | None = None,
        *,
        crops: Sequence[str] = ("face", "clothes"),
        use_source: bool = True,
        share_weights: bool = False,
        use_parsing: bool = True,
        use_fusion_bias: bool = True,
        align: bool = False,
        min_stride: int = 1,
    ) -> None:
        """Build on a pretrained model.

        Args:
            model: its U-Net becomes TargetNet, and SourceNet begins as a copy of it.
            encoder: of the crops (CAA); None leaves CAA out.
            image_prompt: settings of `ImagePrompt`, the same for every crop.
            crops: names of `CROPS`; without parsing only "picture" is possible.
            use_source: False leaves SourceNet out.
            share_weights: SourceNet is TargetNet itself, at t = 0.
            use_parsing: False tells SourceNet nothing of the parsing and needs none.
            use_fusion_bias: HPFA's learned biases; False is plain fusion.
            align: SourceNet's values of a crop are to tell what the image encoder says of it; see `Seen.misalignment`.
            min_stride: self-attentions from this stride on are fused.

        Raises InputError when settings do not fit each other or the U-Net.
        """
        super().__init__()
        crops = _known(crops) if use_parsing else ["picture"]
        if align and not (use_source and use_parsing and encoder is not None):
            raise InputError("task.alignment_weight compares SourceNet and encoder, by crop: leave none of them out")
        self.model, self.unet, self._encoder = model, model.unet, [encoder]  # in a list: not a module of this one
        self.read: Callable[[Images], Tensor] | None = None if encoder is None else encoder.__call__
        where, prompts = Sites("self", min_stride=min_stride), {} if encoder is None else dict.fromkeys(crops, encoder)
        try:
            self.source = _source_net(model, where, share_weights) if use_source else None
            settings = image_prompt or {}
            prompt = {crop: ImagePrompt(model.unet, each.width, **settings) for crop, each in prompts.items()}
        except ValueError as error:
            raise InputError(str(error)) from error
        self.pose = PoseEncoder(model.unet, model.vae_factor)
        self.prompts = nn.ModuleDict(prompt) if prompt else None
        told = use_parsing and self.source is not None
        self.embedding = ParsingEmbedding(self._source_unet) if told else None
        sites = self.source.sites if self.source is not None else []
        self.fusion = ParsingFusion(sites, learned=told and use_fusion_bias)
        self.heads = _heads(self._source_unet, encoder.width, crops) if align and encoder is not None else None
        origin = encoder.origin if encoder is not None else None
        self.settings = {**base_settings(model), "encoder": origin, "image_prompt": settings, "crops": crops}
        self.settings |= {"use_source": use_source, "share_weights": share_weights, "use_parsing": use_parsing}
        self.settings |= {"use_fusion_bias": use_fusion_bias, "align": align, "min_stride": min_stride}
        self.source_is_base = True
        self.fuse = Fuse(self.source.bank, where, self.fusion) if self.source is not None else None
        own = [self.source.record] if isinstance(self.source, SharedSource) else []
        install(model.unet, *own, *([self.fuse] if self.fuse else []), *prompt.values())

    @property
    def encoder(self) -> ImageEncoder | None:
        """The frozen image encoder."""
        return self._encoder[0]

    @property
    def _source_unet(self) -> Any:
        return self.source.unet if isinstance(self.source, ReferenceNet) else self.unet

    def to_device(self, device: torch.device | str) -> "PoseDenoiser":
        """Move everything, also what is frozen."""
        self.model.to(device)
        if self.encoder is not None:
            self.encoder.to(device)
        return self.to(device)

    def look(
        self,
        sources: Images,
        parsing: Parsing | None,
        condition: TextConditioning,
        latents: Latents | None = None,
        visible: Visible | None = None,
    ) -> Seen:
        """Look at sources once, for any number of predictions.

        `condition` has a row for each person. There may be k sources for each: all first ones, then all second ones
        and so on; `visible` says which regions of each are seen, all if None. `latents` are the sources' own, where
        they are known already. What SourceNet saw is kept until the next call.

        Raises InputError when there is no parsing and the denoiser needs one.
        """
        if parsing is None and needs_parsing({"parts": self.parts, **self.settings}):
            raise InputError("the parsing of the source is missing: prepare it, or train with task.use_parsing=false")
        count = len(condition.prompt_embeds)
        latents = self.model.encode(sources) if latents is None else latents
        if self.source is not None:
            self._record(latents, parsing, condition, visible, count)
        tokens, encoded = {}, {}
        for crop, prompt in (self.prompts or nn.ModuleDict()).items():
            encoded[crop], shown = self._encode(sources, parsing, crop)
            shown = shown if visible is None else shown & visible[:, _places(crop, visible.device)].any(1)
            tokens[crop] = _mean_of_shown(prompt.read(encoded[crop]), shown, count)  # pyright: ignore[reportCallIssue]
        return Seen(count, tokens, self._misalignment(parsing, encoded))

    def predict(
        self,
        latents: Latents,
        timesteps: Tensor,
        condition: TextConditioning,
        seen: Seen,
        residuals: Sequence[Tensor],
        looking: Bool[Tensor, " b"] | None = None,
        posed: Bool[Tensor, " b"] | None = None,
    ) -> Latents:
        """One call of TargetNet on k groups of as many rows as persons were looked at, in their order.

        `residuals` are the poses' (`self.pose`), one row for each person. `looking` and `posed` say which rows see the
        source and the pose; None: all of them.
        """
        groups = len(latents) // seen.count
        self.fusion.looking, self.fusion.groups = looking, groups
        if self.fuse is not None:
            self.fuse.rows = RowMap.every_group(groups, seen.count)
        for crop, tokens in seen.tokens.items():
            rows = tokens.repeat(groups, 1, 1)
            self._prompt(crop).tokens = rows if looking is None else rows * looking[:, None, None].to(rows)
        added = [each.repeat(groups, 1, 1, 1) for each in residuals]
        if posed is not None:
            added = [each * posed[:, None, None, None].to(each) for each in added]
        return self.model.predict(latents, timesteps, condition, added)

    def _prompt(self, crop: str) -> Any:
        return (self.prompts or {})[crop]

    def _encode(self, sources: Images, parsing: Parsing | None, crop: str) -> tuple[Tensor, Tensor]:
        assert self.read is not None and self.encoder is not None
        pictures, shown = region_crop(sources, parsing, crop, self.encoder.size)
        return self.read(pictures), shown

    def _record(
        self,
        latents: Latents,
        parsing: Parsing | None,
        condition: TextConditioning,
        visible: Visible | None,
        count: int,
    ) -> None:
        """Fill the bank: one pass over all sources, joined for each person."""
        assert self.source is not None
        runs = len(latents) // count
        told = self.model.told(latents, TextConditioning.cat([condition] * runs))
        self._tell(parsing, fused=False)
        bank = self.source(latents, **told)
        self._tell(None, fused=True)
        self.fusion.look(parsing, (latents.shape[2], latents.shape[3]), visible)
        if runs > 1:
            _join(bank, count)
            self.fusion.join(count)

    def _tell(self, parsing: Parsing | None, fused: bool) -> None:
        """What SourceNet is told, and whether TargetNet, which may be the same network, fuses."""
        if self.embedding is not None:
            self.embedding.parsing = parsing
        if self.fuse is not None:
            self.fuse.enabled = fused
        for prompt in (self.prompts or {}).values():
            prompt.tokens = None

    def _misalignment(self, parsing: Parsing | None, encoded: dict[str, Tensor]) -> Tensor | None:
        """1 - cosine of what SourceNet's deepest values and the image encoder say of each crop, if asked for."""
        if self.heads is None or parsing is None or self.source is None or not torch.is_grad_enabled():
            return None
        site = max(self.source.sites, key=lambda each: each.stride)
        value = self.source.bank[site.name].sources[0].value.transpose(1, 2).flatten(2)
        found = []
        for crop, target in encoded.items():
            grid = F.adaptive_avg_pool2d(one_hot(parsing), site.token_grid(*self.fusion.size)).flatten(2)
            share = grid[:, _places(crop, grid.device)].sum(1)[:, :, None]
            pooled = (share * value).sum(1) / share.sum(1).clamp_min(1e-6)
            likeness = F.cosine_similarity(self.heads[crop](pooled).float(), target.mean(1).float())
            found.append((1 - likeness) * (share.sum((1, 2)) > 0))
        return torch.stack(found).mean()

    @property
    def parts(self) -> list[str]:
        """Which of `PARTS` there are, with weights of their own."""
        return [name for name in PARTS if (part := getattr(self, name)) is not None and len(part.state_dict())]

    def save(self, folder: Path, dtype: torch.dtype = torch.float32, **about: Any) -> None:
        """Write how it is put together, and what differs from the base model (SourceNet only if it is trained).

        `about` is kept beside the settings.
        """
        trained = any(p.requires_grad for p in self.source.parameters()) if self.source is not None else False
        changed = trained or not self.source_is_base
        parts = {name: getattr(self, name) for name in self.parts if name != "source" or changed}
        save_parts(folder, SETTINGS, {"parts": self.parts, **self.settings, **about}, parts, dtype)

    def load(self, folder: str | Path) -> None:
        """Take up the weights of an export. Raises InputError for one that was put together differently."""
        own, parts = {"parts": self.parts, **self.settings}, {name: getattr(self, name) for name in self.parts}
        found = load_parts(export_folder(folder), read_settings(folder), own, parts)
        self.source_is_base &= "source" not in found


class SharedSource(nn.Module):
    """TargetNet as its own SourceNet: a pass at t = 0 whose keys and values are recorded."""

    def __init__(self, unet: UNet2DConditionModel, where: Sites) -> None:
        super().__init__()
        self._unet, self.bank, self.sample_evals = [unet], AttentionBank(), 0
        self.sites = [site for site in attention_sites(unet) if where(site)]
        if not self.sites:
            raise ValueError(f"{where} selects no self-attention to fuse")
        self.record = Record(self.bank, where, enabled=False, query=False)

    def forward(self, latents: Tensor, **told: Any) -> AttentionBank:
        """As of `ReferenceNet`; other controls must be off."""
        self.bank.clear()
        self.sample_evals += len(latents)
        self.record.enabled = True
        self._unet[0](latents, torch.zeros((), dtype=torch.long, device=latents.device), return_dict=False, **told)
        self.record.enabled = False
        return self.bank


def export_folder(name: str | Path) -> Path:
    """An export by the name of a shipped one, or by its folder."""
    return EXPORTS.get(str(name), Path(name))


def read_settings(name: str | Path) -> dict[str, Any]:
    """What an export says of itself. Raises InputError for a folder that is none."""
    return read_content(export_folder(name), SETTINGS, "truepose")


def needs_parsing(settings: Mapping[str, Any]) -> bool:
    """Whether a denoiser that says this of itself must be given the parsing of its sources."""
    return settings["use_parsing"] and (settings["use_source"] or "prompts" in settings["parts"])


def _known(crops: Sequence[str]) -> list[str]:
    if strange := [crop for crop in crops if crop not in CROPS]:
        raise InputError(f"task.crops={strange} is none of {', '.join(CROPS)}")
    return list(crops)


def _source_net(model: StableDiffusion, where: Sites, share_weights: bool) -> "ReferenceNet | SharedSource":
    return SharedSource(model.unet, where) if share_weights else ReferenceNet(model.unet, where)


def _heads(unet: Any, width: int, crops: Sequence[str]) -> nn.ModuleDict:
    """From SourceNet's deepest values to what the image encoder says, for each crop."""
    return nn.ModuleDict({crop: nn.Linear(unet.config.block_out_channels[-1], width) for crop in crops})


def _places(crop: str, device: torch.device) -> Tensor:
    """Indices of a crop's regions."""
    return torch.tensor([REGIONS.index(name) for name in CROPS[crop] or REGIONS], device=device)


def _join(bank: AttentionBank, count: int) -> None:
    """Several sources of each person as one: their keys and values side by side."""
    for name, inputs in bank.items():
        key, value = (side_by_side(inputs.part(part), count, dim=2) for part in ("key", "value"))
        bank[name] = AttentionInputs(inputs.query[:count], (KeyValue(key, value),))


def _mean_of_shown(tokens: Float[Tensor, "kb n d"], shown: Bool[Tensor, " kb"], count: int) -> Float[Tensor, "b n d"]:
    """Tokens of each person's crop, from those of their sources that show it; zeros where none does."""
    weights = shown[:, None, None].to(tokens)
    summed = (tokens * weights).unflatten(0, (-1, count)).sum(0)
    return summed / weights.unflatten(0, (-1, count)).sum(0).clamp_min(1)
