"""A grid of strengths x TAC ratios as one descending walk: what cells have in common is computed once.

FashionR2R (arXiv:2410.14429) shows TAC ratio x denoising strength as a grid of pictures. Cell by cell, every picture
costs an inversion, a source row and a target; here an image is inverted once, to the largest strength (a smaller one
starts from a point of the same trajectory); at each timestep one source row serves all cells; cells of equal strength
share their walk until the first of them stops injecting. With T steps, n_i = int(T s_i) and k_ij = int(T s_i r_j)

    evaluations <= 2 n_max + 2 sum_i (max_j k_ij + sum_j (n_i - k_ij)),     j over distinct k_ij

against 6 M sum_i n_i of the released code for M ratios: 586 against 2,250 for 5 x 5, 3,010 against 14,850 for 9 x 11.
The evaluations that cannot change a result (see `image_translation`) are left out here too: 517 and 2,753 are done.

Deviations
- `inversion_order="released"` is refused: its trajectories of different strengths have no common prefix.
- Batches grow and shrink along the walk, so a compiled U-Net compiles once for each size it meets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from r2r.attention import AttentionBank, Inject, Record, RowMap, Sites, attention_control, restore
from r2r.diffusion import active_timesteps, classifier_free_guidance, ddim_step, injected_steps
from r2r.errors import InputError
from r2r.models.stable_diffusion import TextConditioning
from r2r.tasks.image_translation import RenderedToReal
from r2r.tasks.trajectory import Step, Trajectory, noised
from r2r.tasks.translation_settings import TranslationSettings
from r2r.types import Latents

Cell = tuple[float, float]  # strength, TAC ratio


@dataclass(frozen=True, order=True)
class Path:
    """The way of one or more cells: its number of steps, and the step (from its own start) that no longer injects."""

    steps: int
    injected: int


@dataclass(frozen=True)
class SweepPlan:
    """Which path each cell takes, which paths still walk together at a timestep, and who injects."""

    paths: dict[Cell, Path]
    settings: TranslationSettings  # of the largest strength and TAC ratio; the rest is common to all cells
    first_injection: int

    @classmethod
    def of(
        cls,
        strengths: Sequence[float],
        tac_ratios: Sequence[float],
        settings: TranslationSettings,
        source_is_prompt: bool = True,
    ) -> "SweepPlan":
        """The plan of a grid; `strength` and `tac_ratio` of `settings` are replaced.

        Raises InputError for an empty axis, a value outside [0, 1], or the released inversion order.
        """
        if not strengths or not tac_ratios:
            raise InputError(f"strength={list(strengths)} tac_ratio={list(tac_ratios)}: give at least one of each")
        if settings.inversion_order != "ascending":
            raise InputError("inversion_order='released' cannot be shared between strengths; sweep with 'ascending'")
        settings = replace(settings, strength=max(strengths), tac_ratio=max(tac_ratios))
        total, first, paths = settings.num_inference_steps, settings.first_injection(source_is_prompt), {}
        for strength, ratio in product(strengths, tac_ratios):
            steps = len(active_timesteps(total, total, strength))  # their number depends on T and the strength alone
            # Injecting before `first`, or in the last step (an identity, at t = 0), changes nothing.
            injected = min(injected_steps(total, strength, ratio), steps - 1)
            paths[strength, ratio] = Path(steps, max(first, injected))
        return cls(paths, settings, first)

    def walks(self, position: int) -> dict[Path, list[Path]]:
        """The distinct walks in step number `position` (0 is the cleanest), each with the paths that share it."""
        walks: dict[Path, list[Path]] = {}
        for path in sorted(set(self.paths.values())):
            index = path.steps - 1 - position
            if index >= 0:
                walks.setdefault(replace(path, injected=min(path.injected, index + 1)), []).append(path)
        return walks

    def injects(self, walk: Path, position: int) -> bool:
        """Whether a walk takes queries and keys from the source in step number `position`."""
        return self.first_injection <= walk.steps - 1 - position < walk.injected

    def injecting(self, position: int) -> bool:
        """Whether any walk does."""
        return any(self.injects(walk, position) for walk in self.walks(position))

    @property
    def num_steps(self) -> int:
        """Steps of the longest path."""
        return max(path.steps for path in self.paths.values())

    def images_at_once(self, max_rows: int) -> int:
        """How many images fit into one U-Net call with all their rows; at least one."""
        halves = len(self.settings.halves)
        rows = [halves * len(self.walks(position)) + self.injecting(position) for position in range(self.num_steps)]
        return max(1, max_rows // max(rows, default=1))


@dataclass(frozen=True)
class _Block:
    """Rows of one role: the latents of all images on one walk, told one thing."""

    latents: Latents
    condition: TextConditioning
    receives: bool = False


class _Calls:
    """Runs the blocks of one timestep through the U-Net, at most `max_rows` rows at once."""

    def __init__(self, pipe: RenderedToReal, settings: TranslationSettings, count: int, max_rows: int) -> None:
        where = Sites("self", settings.max_stride)
        self.pipe, self.count, self.limit = pipe, count, max(1, max_rows // count)
        self.bank = AttentionBank()
        self.record = Record(self.bank, where, enabled=False)
        self.inject = Inject(where, RowMap(()), enabled=False)

    def noise(self, step: Step, blocks: Sequence[_Block], source: _Block | None) -> list[Latents]:
        """Predicted noise of each block; receivers take queries and keys of `source`, or of the bank without one."""
        if source is not None and len(blocks) < self.limit:  # the donor rides in the same call
            self.inject.bank = None
            return self._call(step, [source, *blocks])[1:]
        if source is not None:
            self.bank.clear()
            self.record.enabled = True
            self._call(step, [source])
            self.record.enabled = False
        self.inject.bank = self.bank
        chunks = [blocks[first : first + self.limit] for first in range(0, len(blocks), self.limit)]
        return [noise for chunk in chunks for noise in self._call(step, chunk)]

    def _call(self, step: Step, blocks: Sequence[_Block]) -> list[Latents]:
        count, donors = self.count, slice(0, self.count)
        receivers = [slice(i * count, (i + 1) * count) for i, block in enumerate(blocks) if block.receives]
        self.inject.rows = RowMap(tuple((receiver, donors) for receiver in receivers))
        self.inject.enabled = bool(receivers)
        batch = torch.cat([block.latents for block in blocks])
        condition = TextConditioning.cat([block.condition for block in blocks])
        return list(self.pipe.predict_noise(batch, step.timestep, step.signal, condition).split(count))


@torch.no_grad()
def sweep_latents(
    pipe: RenderedToReal,
    plan: SweepPlan,
    latents: Latents,
    prompt: TextConditioning,
    negative: TextConditioning,
    source: TextConditioning,
    *,
    noise: Latents,
    max_rows: int = 64,
) -> dict[Path, Latents]:
    """Translated latents of every path, shape (b, c, h, w) each; conditions have one row each.

    Equal to `RenderedToReal.translate_latents` with the settings of each cell, up to rounding in larger batches.
    """
    settings, count = plan.settings, len(latents)
    told = {"prompt": prompt.repeat(count), "negative": negative.repeat(count), "source": source.repeat(count)}
    steps, calls = pipe.steps(settings), _Calls(pipe, settings, count, max_rows)
    inverted = settings.start == "inversion"
    needed = inverted or any(plan.injecting(position) for position in range(len(steps)))
    trajectory = pipe.invert(latents, source, settings) if needed else Trajectory([latents], {})
    state: dict[Path, Latents] = {}
    with attention_control(pipe.unet, calls.record, calls.inject):
        for position, step in reversed(list(enumerate(steps))):
            walks = plan.walks(position)
            start = trajectory.latents[position + 1] if inverted else noised(latents, noise, step)
            state |= {path: start for paths in walks.values() for path in paths if path.steps == position + 1}
            if not step.is_identity:
                moved = _move(
                    calls, plan, position, step, {w: state[paths[0]] for w, paths in walks.items()}, trajectory, told
                )
                state |= {path: moved[walk] for walk, paths in walks.items() for path in paths}
    return {path: state.get(path, latents) for path in set(plan.paths.values())}


def _move(
    calls: _Calls,
    plan: SweepPlan,
    position: int,
    step: Step,
    state: dict[Path, Latents],
    trajectory: Trajectory,
    told: dict[str, TextConditioning],
) -> dict[Path, Latents]:
    """Every walk one step down, all guidance halves and the source in as few U-Net calls as fit."""
    settings, source = plan.settings, None
    if plan.injecting(position) and settings.source == "row":
        source = _Block(trajectory.latents[position + 1], told["source"])
    elif plan.injecting(position):
        restore(calls.bank, trajectory.attention[step.timestep])
    blocks = [
        _Block(latents, told[half], half in settings.receivers and plan.injects(walk, position))
        for walk, latents in state.items()
        for half in settings.halves
    ]
    noise = iter(calls.noise(step, blocks, source))
    moved: dict[Path, Latents] = {}
    for walk, latents in state.items():
        halves = {half: next(noise) for half in settings.halves}
        guided = halves["prompt"]
        if "negative" in halves:
            guided = classifier_free_guidance(halves["negative"], guided, settings.guidance_scale)
        moved[walk] = ddim_step(latents, guided, step.signal, step.signal_before)
    return moved
