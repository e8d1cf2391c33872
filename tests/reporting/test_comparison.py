"""Comparisons on the same scenes: identities, floors, regions, changes, protocols, and images read one by one."""

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r2r.data.images import to_pil
from r2r.data.pictures import Pictures
from r2r.errors import InputError
from r2r.metrics import PSNR, SSIM, Backbone, kid, kid_difference, psnr, ssim
from r2r.metrics.distances import FID, KID
from r2r.metrics.features import FeatureCache
from r2r.reporting import Comparison, Outputs, Scenes
from r2r.reporting.measuring import Quantity

KID_COLUMN, TEXTURE = "KID to photos (moments)", "SSIM to source in garment"
SSIM_SOURCE, SSIM_TWIN, PSNR_TWIN = "SSIM to source", "SSIM to photo twin", "PSNR to photo twin [dB]"


def moments(images: Tensor) -> Tensor:
    return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


def scores(**more: object) -> dict[str, object]:
    return {"kid": KID(Backbone("moments", moments)), "ssim": SSIM(), "psnr": PSNR(), **more}


@pytest.fixture
def rendered() -> Tensor:
    return torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6


@pytest.fixture
def mask() -> Tensor:
    mask = torch.zeros(6, 1, 24, 24, dtype=torch.bool)
    mask[..., 6:18, 6:18] = True
    return mask


@pytest.fixture
def scenes(rendered: Tensor, mask: Tensor) -> Scenes:
    return Scenes(
        [f"{index:04d}" for index in range(6)],
        list(rendered),
        list((rendered + 0.3).clamp(-1, 1)),
        paired=True,
        masks={"garment": list(mask)},
        twin_name="photo twin",
        target_name="photos",
    )


@pytest.fixture
def methods(scenes: Scenes, rendered: Tensor) -> list[Outputs]:
    halfway = Outputs("halfway", list((rendered + 0.15).clamp(-1, 1)), evals=54.0, seconds=0.5, memory_gb=2.0)
    return [halfway, Outputs("twin", scenes.target)]


@pytest.fixture
def comparison(scenes: Scenes, methods: list[Outputs]) -> Comparison:
    return Comparison(scenes, methods, scores(), batch_size=4)


def value(comparison: Comparison, column: str, method: str) -> float:
    estimate = comparison.estimate(column, method)
    assert estimate is not None
    return estimate.value


def test_columns_name_score_reference_and_region(comparison: Comparison) -> None:
    assert list(comparison.columns) == [
        *[KID_COLUMN, SSIM_SOURCE, "PSNR to source [dB]", SSIM_TWIN, PSNR_TWIN],
        *["KID to photos in garment (moments)", TEXTURE, "PSNR to source in garment [dB]"],
        *["SSIM to photo twin in garment", "PSNR to photo twin in garment [dB]"],
        *["KID to photos in background (moments)", "SSIM to source in background"],
        *["PSNR to source in background [dB]", "SSIM to photo twin in background"],
        "PSNR to photo twin in background [dB]",
    ]


def test_identity_and_twin(comparison: Comparison) -> None:
    for column in (SSIM_SOURCE, TEXTURE, "SSIM to source in background"):
        assert comparison.methods["input"].per_image[column] == pytest.approx([1.0] * 6)
    assert comparison.estimate("PSNR to source [dB]", "input").value == math.inf
    assert comparison.methods["twin"].per_image[SSIM_TWIN] == pytest.approx([1.0] * 6)
    assert value(comparison, KID_COLUMN, "twin") == pytest.approx(0.0, abs=1e-6)


def test_halfway_lies_between(comparison: Comparison) -> None:
    kids = [value(comparison, KID_COLUMN, name) for name in ("input", "halfway", "twin")]
    assert kids[0] > kids[1] > kids[2]
    assert comparison.change(KID_COLUMN, "halfway", "input").sign == -1
    assert comparison.change(PSNR_TWIN, "halfway", "input").sign == 1
    assert comparison.change(TEXTURE, "halfway", "input").sign == -1
    assert comparison.change("PSNR to source [dB]", "halfway", "input") is None  # from infinity


def test_scores_are_those_of_the_metrics(
    comparison: Comparison, scenes: Scenes, rendered: Tensor, mask: Tensor
) -> None:
    target, images = torch.stack(list(scenes.target)), torch.stack(list(comparison.methods["halfway"].outputs.images))
    measured = comparison.methods["halfway"].per_image
    assert measured[TEXTURE] == pytest.approx(ssim(images, rendered, mask).tolist())
    assert measured["SSIM to source in background"] == pytest.approx(ssim(images, rendered, ~mask).tolist())
    assert measured[PSNR_TWIN] == pytest.approx(psnr(images, target).tolist())
    new, old, there = (moments(each) for each in (images, rendered, target))
    assert comparison.estimate(KID_COLUMN, "halfway") == kid(new, there, paired=True)
    assert comparison.change(KID_COLUMN, "halfway", "input") == kid_difference(new, old, there, paired=True)


def test_table_has_the_input_costs_and_the_floor(comparison: Comparison) -> None:
    table = comparison.table("title")
    assert [row[0] for row in table.rows] == ["input", "halfway", "twin", "target vs target"]
    assert [column.title for column in table.columns[1:6]] == comparison.titles()
    assert [row[-2:] for row in table.rows[:2]] == [[None, None], [54.0, 0.5]]
    floor = dict(zip([column.title for column in table.columns], table.rows[-1], strict=True))
    assert floor[SSIM_TWIN].value == pytest.approx(1.0)
    assert floor[SSIM_SOURCE] == comparison.estimate(SSIM_SOURCE, "twin")
    assert floor[KID_COLUMN].n == 3
    assert table.references == {0, 3}
    assert table.best(4) == {2}
    assert comparison.costs().rows == [["halfway", 54.0, 0.5, 2.0], ["twin", None, None, None]]


def test_other_pictures_can_be_the_floor(scenes: Scenes, methods: list[Outputs]) -> None:
    others = list(scenes.target)[:3]
    comparison = Comparison(scenes, methods, scores(), identity="render", floor=Outputs("other photos", others))
    table = comparison.table("title", columns=[KID_COLUMN, TEXTURE], costs=False)
    assert [row[0] for row in table.rows] == ["render", "halfway", "twin", "other photos"]
    target = moments(torch.stack(list(scenes.target)))
    assert table.rows[-1][1:] == [kid(target[:3], target), None]


def test_a_target_too_small_for_halves_has_no_floor(rendered: Tensor) -> None:
    scenes = Scenes(["a", "b"], list(rendered[:2]), list(rendered[2:5]))
    comparison = Comparison(scenes, [Outputs("r2r", list(rendered[3:5]))], scores())
    assert [row[0] for row in comparison.table("t").rows] == ["input", "r2r"]
    assert any("too few to be halved" in note for note in comparison.notes())


def test_changes_against_input_and_first_method(comparison: Comparison) -> None:
    against_input = comparison.changes("input")
    assert [row[0] for row in against_input.rows] == ["halfway", "twin"]
    assert [column.title for column in against_input.columns[1:]] == [KID_COLUMN, SSIM_TWIN, PSNR_TWIN]
    assert against_input.texts()[0][1].endswith(" ✓") and "-" in against_input.texts()[0][1]
    against_first = comparison.changes("halfway")
    assert [row[0] for row in against_first.rows] == ["twin"]
    cells = dict(zip([column.title for column in against_first.columns], against_first.texts()[0], strict=True))
    assert cells[SSIM_SOURCE].endswith("✗") and cells[SSIM_TWIN].endswith("✓")


def test_all_tables(comparison: Comparison) -> None:
    tables = comparison.tables("main")
    assert [table.title for table in tables] == [
        *["main", "Change against input", "Change against halfway", "In garment", "Change against halfway in garment"],
        *["In background", "Change against halfway in background", "Costs"],
    ]
    assert [column.title for column in tables[3].columns[1:]] == comparison.titles("garment")


def test_without_twins_or_target_there_is_less_to_say(scenes: Scenes, methods: list[Outputs], rendered: Tensor) -> None:
    unpaired = Comparison(Scenes(scenes.keys, scenes.source, list(rendered[:4])), methods, scores())
    assert unpaired.titles() == ["KID to target (moments)", SSIM_SOURCE, "PSNR to source [dB]"]
    sets = [moments(torch.stack(list(images))) for images in (methods[0].images, rendered[:4])]
    assert unpaired.estimate("KID to target (moments)", "halfway") == kid(*sets)
    assert unpaired.floor(SSIM_SOURCE) is None
    alone = Comparison(Scenes(scenes.keys, scenes.source), methods, scores())
    assert alone.titles() == [SSIM_SOURCE, "PSNR to source [dB]"]
    assert [row[0] for row in alone.table("t").rows] == ["input", "halfway", "twin"]


def test_scenes_without_a_region_are_left_out_of_it(scenes: Scenes, methods: list[Outputs], mask: Tensor) -> None:
    mask[1] = False
    mask[5] = True  # no background
    comparison = Comparison(scenes, methods, scores(), batch_size=2)
    garment = comparison.methods["halfway"].per_image[TEXTURE]
    assert [math.isnan(each) for each in garment] == [False, True, False, False, False, False]
    assert comparison.estimate(TEXTURE, "halfway").n == 5
    assert comparison.change(TEXTURE, "halfway", "input").n == 5
    assert comparison.protocols()[TEXTURE]["n"] == 5
    notes = {table.title: table.notes for table in comparison.tables("main")}
    assert notes["In garment"] == ["1 of 6 scenes have no garment and are left out."]
    nowhere = Scenes(scenes.keys, scenes.source, masks={"hat": [torch.zeros_like(each) for each in mask]})
    assert Comparison(nowhere, methods, scores()).estimate("SSIM to source in hat", "halfway") is None


def test_protocols_tell_columns_apart(comparison: Comparison) -> None:
    protocols = comparison.protocols()
    assert list(protocols) == list(comparison.columns)
    assert protocols[TEXTURE]["region"] == "garment" and protocols[TEXTURE]["reference"] == "source"
    assert protocols[KID_COLUMN]["same-scene pairs"] == "left out" and protocols[KID_COLUMN]["num_target"] == 6
    assert protocols[SSIM_TWIN]["size"] == "24x24" and protocols[SSIM_TWIN]["n"] == 6
    assert len({tuple(protocol.items()) for protocol in protocols.values()}) == len(protocols)


def test_other_pictures_make_another_protocol(rendered: Tensor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, image in zip(paths, rendered, strict=True):
        to_pil(image).save(path)
    outputs, protocols = [Outputs("r2r", list(rendered[:2]))], []
    for target in (paths[2:4], paths[2:4], paths[4:]):
        scenes = Scenes(["a", "b"], Pictures(paths[:2]), Pictures(target), paired=True)
        protocols.append(Comparison(scenes, outputs, scores()).protocols())
    assert protocols[0] == protocols[1]
    for column in ("KID to target (moments)", "SSIM to target"):
        assert protocols[0][column] != protocols[2][column]
    assert protocols[0][SSIM_SOURCE] == protocols[2][SSIM_SOURCE]


class Watched(Sequence[Tensor]):
    """Makes its images as they are read, and knows how many were held at once."""

    def __init__(self, count: int, value: float) -> None:
        self.count, self.value, self.most = count, value, 0
        self.held: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index)) * 0.5 + self.value
        self.held.add(image)
        self.most = max(self.most, len(self.held))
        return image

    def __iter__(self) -> Iterator[Tensor]:
        raise AssertionError("read as a whole")


def test_images_are_read_as_a_stream_and_features_once() -> None:
    source, target, outputs = (Watched(60, value) for value in (-0.5, 0.0, 0.5))
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return moments(images)

    seen: list[tuple[str, int, int]] = []
    backbone = Backbone("moments", counted)
    measured = {"kid": KID(backbone), "fid": FID(backbone), "ssim": SSIM()}
    Comparison(
        Scenes([str(index) for index in range(60)], source, target, paired=True),
        [Outputs("a", outputs), Outputs("b", outputs)],
        measured,
        cache=FeatureCache(batch_size=4),
        progress=lambda *now: seen.append(now),
        batch_size=4,
    )
    assert max(each.most for each in (source, target, outputs)) <= 16
    assert sum(calls) == 4 * 60  # target, input, a, b: both scores share the features
    done = [now[1] for now in seen]
    assert done == sorted(done)
    assert seen[-1][1:] == (seen[0][2], seen[0][2])
    assert list(dict.fromkeys(name for name, *_ in seen)) == ["target", "input", "a", "b", "target vs target"]


def test_known_features_are_not_computed_again(rendered: Tensor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, image in zip(paths, rendered, strict=True):
        to_pil(image).save(path)
    scenes = Scenes([str(index) for index in range(3)], Pictures(paths[:3]), Pictures(paths[3:]))
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return moments(images)

    tables = []
    for _ in range(2):
        measured = {"kid": KID(Backbone("moments", counted))}
        outputs = [Outputs("r2r", Pictures(paths[1:4]))]
        tables.append(Comparison(scenes, outputs, measured, cache=FeatureCache(tmp_path / "cache")).table("t"))
    assert sum(calls) == 9
    assert tables[0].rows == tables[1].rows


def test_images_of_several_sizes(rendered: Tensor) -> None:
    source = [rendered[0], rendered[1, :, :16], rendered[2, :, :16], rendered[3]]
    scenes = Scenes(["a", "b", "c", "d"], source)
    comparison = Comparison(scenes, [Outputs("r2r", [image * 0.9 for image in source])], {"ssim": SSIM()})
    singly = [SSIM().measure(0.9 * image[None], image[None], None).item() for image in source]
    assert comparison.methods["r2r"].per_image[SSIM_SOURCE] == pytest.approx(singly)
    assert comparison.protocols()[SSIM_SOURCE]["size"] == "2 sizes, 16x24 to 24x24"
    narrow = Outputs("narrow", [image[:, :, :20] for image in source])
    with pytest.raises(InputError, match="narrow, a: the image and its source differ in size, 20x24 and 24x24"):
        Comparison(scenes, [narrow], {"ssim": SSIM()})


def test_per_image_rows(comparison: Comparison) -> None:
    rows = comparison.per_image_rows()
    assert len(rows) == 6 * 3
    assert (rows[1]["key"], rows[1]["method"]) == ("0000", "halfway")
    assert rows[1][TEXTURE] == comparison.methods["halfway"].per_image[TEXTURE][0]


def test_what_does_not_fit_is_refused_before_any_image_is_scored() -> None:
    wrong, five = Watched(6, 7.0), Watched(5, 7.0)  # out of range: scoring them would be another error
    keys = [str(index) for index in range(6)]
    cases = {
        "halfway: 5 images for 6 scenes": [Outputs("halfway", five)],
        "two rows named input": [Outputs("input", wrong)],
        "two rows named a": [Outputs("a", wrong), Outputs("a", wrong)],
    }
    for message, methods in cases.items():
        with pytest.raises(InputError, match=message):
            Comparison(Scenes(keys, wrong, wrong), methods, scores())
    with pytest.raises(InputError, match="subsets of 1000"):
        Comparison(Scenes(keys, wrong, wrong), [], {"kid": KID(Backbone("m", moments), backend="torch-fidelity")})
    with pytest.raises(InputError, match=r"KID \(moments\) needs two images"):
        Comparison(Scenes(["a"], Watched(1, 7.0), wrong), [], scores())
    with pytest.raises(InputError, match="values in"):
        Comparison(Scenes(keys, wrong, wrong), [], scores())
    for broken in ({"target": five, "paired": True}, {"masks": {"garment": []}}, {"paired": True}):
        with pytest.raises(InputError):
            Scenes(keys, wrong, **broken)


def test_set_scores_inside_a_region_see_nothing_else(scenes: Scenes, rendered: Tensor, mask: Tensor) -> None:
    """Grey outside the mask in all sets: equal to masking by hand, and blind to what changes outside."""
    inside, outside = KID_COLUMN.replace(" (", " in garment ("), KID_COLUMN.replace(" (", " in background (")
    changed = [Outputs("changed", list(torch.where(mask, rendered, -rendered)))]
    comparison = Comparison(scenes, changed, scores())
    features = [moments(images * mask) for images in (rendered, torch.stack(list(scenes.target or [])))]
    assert comparison.estimate(inside, "input") == kid(*features, paired=True)
    assert value(comparison, inside, "changed") == pytest.approx(value(comparison, inside, "input"), abs=1e-9)
    assert value(comparison, outside, "changed") != pytest.approx(value(comparison, outside, "input"), abs=1e-3)
    change = comparison.change(inside, "changed", "input")
    assert change is not None and change.value == pytest.approx(0, abs=1e-9)
    assert comparison.protocols()[inside]["inside the region"] == "mid-grey outside the mask"
    assert comparison.floor(inside) is not None


def test_a_full_mask_gives_the_set_score_of_the_whole(scenes: Scenes, mask: Tensor) -> None:
    comparison = Comparison(replace(scenes, masks={"all": list(torch.ones_like(mask))}), [], scores())
    whole, region = (value(comparison, KID_COLUMN.replace(" (", f"{where} ("), "input") for where in ("", " in all"))
    assert whole == region
    assert comparison.estimate("KID to photos in background (moments)", "input") is None  # nothing is left of it


def test_set_scores_leave_out_scenes_without_the_region(scenes: Scenes, mask: Tensor) -> None:
    some = mask.clone()
    some[:2] = False
    comparison = Comparison(replace(scenes, masks={"face": list(some)}), [], scores())
    estimate = comparison.estimate("KID to photos in face (moments)", "input")
    assert estimate is not None and estimate.n == 4
    assert comparison.protocols()["KID to photos in face (moments)"]["num_target"] == 4


def test_masks_do_not_fit_a_target_of_other_scenes(scenes: Scenes) -> None:
    comparison = Comparison(replace(scenes, paired=False), [], scores())
    assert [column for column in comparison.columns if column.startswith("KID")] == [KID_COLUMN]


def test_runs_of_a_method_are_averaged_scene_by_scene(scenes: Scenes, rendered: Tensor) -> None:
    noise = torch.randn(3, *rendered.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    runs = [Outputs("seeds", list((rendered + each).clamp(-1, 1)), evals=10.0 + i) for i, each in enumerate(noise)]
    together = Comparison(scenes, [runs, replace(runs[0], name="one")], scores(), batch_size=4)
    apart = [Comparison(scenes, [run], scores(), batch_size=4) for run in runs]
    each = np.array([comparison.methods["seeds"].per_image[TEXTURE] for comparison in apart])
    assert together.methods["seeds"].per_image[TEXTURE] == pytest.approx(each.mean(0).tolist())
    assert value(together, TEXTURE, "seeds") == pytest.approx(each.mean())
    assert [found.value for found in together.spread(TEXTURE, "seeds")] == pytest.approx(each.mean(1).tolist())
    kids = [value(comparison, KID_COLUMN, "seeds") for comparison in apart]
    assert value(together, KID_COLUMN, "seeds") == pytest.approx(np.mean(kids))
    assert together.estimate(KID_COLUMN, "seeds").n == 6
    expected = np.mean(kids) - value(together, KID_COLUMN, "input")
    assert together.change(KID_COLUMN, "seeds", "input").value == pytest.approx(expected)
    assert together.change(TEXTURE, "one", "seeds").value == pytest.approx((each[0] - each.mean(0)).mean())
    assert together.spread(TEXTURE, "one") == []
    assert together.methods["seeds"].outputs.evals == 11.0


def test_a_part_of_the_scenes_is_not_measured_anew(
    comparison: Comparison, scenes: Scenes, methods: list[Outputs]
) -> None:
    part, places = comparison.only([1, 4, 5]), [1, 4, 5]
    fewer = [Outputs(each.name, [each.images[place] for place in places]) for each in methods]
    anew = Comparison(scenes.only(places), fewer, scores())
    for column in (KID_COLUMN, TEXTURE, PSNR_TWIN):
        assert part.estimate(column, "halfway") == anew.estimate(column, "halfway")
        assert part.change(column, "twin", "halfway") == anew.change(column, "twin", "halfway")
    assert part.scenes.keys == ["0001", "0004", "0005"]
    assert len(comparison.scenes.keys) == 6 and comparison.estimate(TEXTURE, "halfway").n == 6


def test_a_quantity_is_one_column(scenes: Scenes, methods: list[Outputs], comparison: Comparison) -> None:
    wanted = {"a": Quantity(SSIM(), "source", "garment"), "b": Quantity(PSNR(), "target")}
    few = Comparison(scenes, methods, wanted)
    assert list(few.columns) == [TEXTURE, PSNR_TWIN]
    assert few.estimate(TEXTURE, "halfway") == comparison.estimate(TEXTURE, "halfway")
    assert few.methods["halfway"].features == {}
