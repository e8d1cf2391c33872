"""Pose transfer of folders: photos of persons with label maps, and keypoint files, in; persons in those poses out.

With a second folder of photos some regions come from there instead, such as the clothes: editing without training, by
choosing which regions' keys are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from r2r.data.images import EXTENSIONS, fit_to_multiple, load_image, to_pil, to_tensor
from r2r.data.keypoints import fitted_pose
from r2r.data.samples import FilePart
from r2r.errors import DataError, InputError
from r2r.models.pose_denoiser import needs_parsing, read_settings
from r2r.models.region_crops import CROPS
from r2r.parsing import REGIONS
from r2r.tasks.label_maps import LabelMaps, resized_labels
from r2r.tasks.pose_sampler import PoseSampler, PoseSettings

CLOTHES = CROPS["clothes"]


@dataclass(frozen=True)
class Source:
    """A photo and what it shows."""

    image: Image.Image
    regions: UInt8[np.ndarray, "h w"] | None


@dataclass(frozen=True)
class PosedPerson:
    """Whom to draw: the source, perhaps a donor of some regions, and the pose in the frame of the source."""

    source: Source
    donor: Source | None
    pose: Float[np.ndarray, "18 3"]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the source."""
        return self.source.image.size


class Donors:
    """Photos that lend regions to the sources: one for all, or those of the same relative name in a folder.

    Raises InputError for a place that is not there, without label maps, or for unknown regions.
    """

    def __init__(
        self,
        root: Path,
        folder: str | Path,
        parsing: str | Path | None,
        label_set: str = "ATR_18",
        regions: Sequence[str] = CLOTHES,
    ) -> None:
        """`root` is the folder of the sources; `regions` are those that are lent, names of `r2r.parsing.REGIONS`."""
        if strange := [name for name in regions if name not in REGIONS]:
            raise InputError(f"task.lent={strange} is none of {', '.join(REGIONS)}")
        self.root, self.place = root, Path(folder)
        if not self.place.exists():
            raise InputError(f"task.donors={folder}: no such file or folder")
        if parsing is None:
            raise InputError("task.donors needs task.donor_parsing=FOLDER of label maps, named as the donors")
        self.maps = LabelMaps(folder, parsing, label_set)
        self.lent: Bool[np.ndarray, " regions"] = np.isin(REGIONS, list(regions))

    def __call__(self, source: Path) -> Source:
        """The donor of a source. Raises DataError when there is none, or it can't be read."""
        path = self.place
        if path.is_dir():
            stem = path / source.relative_to(self.root).with_suffix("")
            found = [stem.with_name(stem.name + suffix) for suffix in EXTENSIONS]
            path = next((each for each in found if each.is_file()), stem.with_suffix(source.suffix))
        image = load_image(path)
        return Source(image, self.maps(path, image))


class PoseTranslator:
    """Draw each person in a pose.

    >>> pipe = PoseTranslator("logs/truepose/export", "photos", "parsing")  # doctest: +SKIP
    >>> pictures = pipe([pipe.load((photo, pose)) for photo, pose in pairs])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str,
        input: str | Path,
        parsing: str | Path | None = None,
        label_set: str = "ATR_18",
        donors: str | Path | None = None,
        donor_parsing: str | Path | None = None,
        lent: Sequence[str] = CLOTHES,
        sampling: PoseSettings | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        """Check what is given, then load an export of `experiment=truepose`, or a shipped one.

        Args:
            model: the export.
            input: folder of the photos, or one of them.
            parsing: folder of label maps with the photos' relative names, `.png`, for models that need them.
            label_set: that of all label maps.
            donors, donor_parsing, lent: what is taken from other photos; see `Donors`.
            sampling: defaults if None.
            device, dtype: where and how the model runs.

        Raises:
            InputError: a setting is unfit, there is no export, or it needs label maps and there are none.
            MissingWeightsError: the base model or the image encoder is not at hand.
        """
        if parsing is None and (donors is not None or needs_parsing(read_settings(model))):
            raise InputError("task.parsing is missing: give a folder of label maps, named as the photos (r2r.prepare)")
        self.maps = None if parsing is None else LabelMaps(input, parsing, label_set)
        root = Path(input) if Path(input).is_dir() else Path(input).parent
        self.donors = None if donors is None else Donors(root, donors, donor_parsing, label_set, lent)
        self.sampler = PoseSampler.from_pretrained(model, device=device, dtype=dtype)
        self.sampling, self.device = sampling or PoseSettings(), device

    def load(self, pair: tuple[Path, Path]) -> PosedPerson:
        """A photo and a keypoint file. Raises DataError, naming the file, for what is missing, broken or empty."""
        photo, pose = pair
        image = load_image(photo)
        regions = None if self.maps is None else self.maps(photo, image)
        if regions is not None and not regions.any():
            raise DataError(f"{photo}: its label map shows no person")
        keypoints = fitted_pose(FilePart(str(pose)), image.size)
        if not (keypoints[:, 2] > 0).any():
            raise DataError(f"{pose}: none of its keypoints is known inside of the picture")
        return PosedPerson(Source(image, regions), None if self.donors is None else self.donors(photo), keypoints)

    @torch.no_grad()
    def __call__(
        self, persons: Sequence[PosedPerson], *, seed: int = 0, resolution: int | None = None
    ) -> list[Image.Image]:
        """The persons in the sizes of their photos, which must be equal; `resolution` is the short side to work at."""
        fitted = [fit_to_multiple(each.source.image, self.sampler.model.size_multiple, resolution) for each in persons]
        size = fitted[0][0].size
        sources = [person.source for person in persons]
        if self.donors is not None:
            sources += [person.donor for person in persons if person.donor is not None]
        pixels = torch.stack([to_tensor(source.image.resize(size, Image.Resampling.LANCZOS)) for source in sources])
        maps = [resized_labels(source.regions, size) for source in sources if source.regions is not None]
        scale = [after / before for after, before in zip(size, persons[0].size, strict=True)]
        poses = torch.from_numpy(np.stack([person.pose for person in persons]) * [*scale, 1.0]).float()
        found = self.sampler(
            pixels.to(self.device),
            torch.stack(maps).to(self.device) if maps else None,
            poses.to(self.device),
            visible=self._visible(len(persons)),
            seed=seed,
            settings=self.sampling,
        )
        return [back(to_pil(picture)) for picture, (_, back) in zip(found, fitted, strict=True)]

    def work(self) -> dict[str, int]:
        """U-Net evaluations so far: of TargetNet, and of SourceNet."""
        denoiser = self.sampler.denoiser
        looked = denoiser.source.sample_evals if denoiser.source is not None else 0
        return {"unet_sample_evals": denoiser.model.sample_evals, "source_sample_evals": looked}

    def _visible(self, count: int) -> Bool[torch.Tensor, "b regions"] | None:
        """Sources lend all regions but those of the donors, and these lend them."""
        if self.donors is None:
            return None
        lent = torch.from_numpy(self.donors.lent).to(self.device)
        return torch.cat([(~lent).expand(count, -1), lent.expand(count, -1)])
