"""The page in a real browser, from disk: nothing is fetched, nothing complains, and every control does what it says."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r2r.metrics import Estimate, protocol
from r2r.reporting.pages import Figure, Finding, Link, Page, Scene, write_page
from r2r.reporting.tables import Column, Table

pytestmark = pytest.mark.e2e

NAMES = ("chromium", "chromium-browser", "google-chrome")
COLUMNS = ["source", "CUT", "r2r", "target"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed, and CHROMIUM names none")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


def colour(scene: int, column: int) -> tuple[int, int, int]:
    return (60 * column, 80 * scene, 40)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of plain colours in four columns, with two tables, a figure and a link."""
    folder = tmp_path_factory.mktemp("page")
    pictures = [[Image.new("RGB", (32, 32), colour(i, c)) for c in range(4)] for i in range(3)]
    columns = [Column("Images"), Column("KID", 3, "lower"), Column("SSIM", 3, "higher")]
    rows = [["CUT", Estimate(0.3, 0.2, 0.4, 3), 0.8], ["r2r", Estimate(0.2, 0.1, 0.3, 3), 0.9]]
    page = Page(
        title="A page",
        lead="Three scenes.",
        columns=COLUMNS,
        scenes=[Scene(f"{i:04d}", f"scene {i}", pictures[i], [""] * 4) for i in range(3)],
        compared=(0, 2),
        findings=[Finding("KID falls.", "−0.1", True)],
        tables=[Table("Comparison", columns, rows), Table("Costs", columns, rows)],
        protocols={"KID": protocol("KID", n=3), "SSIM": protocol("SSIM", n=3)},
        caveats=[],
        commands=["python -m r2r.report"],
        settings={},
        figures=[Figure("Heat map", Image.new("RGB", (64, 16)))],
        links=[Link("r2r", folder / "r2r")],
    )
    write_page(folder / "index.html", page)
    return folder / "index.html"


class Visit:
    """A page that was opened, with all it asked for and complained about."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(path.as_uri())

    def seam(self) -> float:
        """Position of the seam in percent, as the style says."""
        text = self.page.evaluate("getComputedStyle(document.querySelector('.stage')).getPropertyValue('--seam')")
        return float(text.strip().removesuffix("%"))

    def clip(self) -> str:
        """What of the left picture is seen."""
        return self.page.evaluate("getComputedStyle(document.getElementById('before')).clipPath")

    def shown(self, side: str) -> tuple[int, int, int]:
        """Colour of the picture on one side, as the browser decoded it."""
        image = {"left": "before", "right": "after"}[side]
        return tuple(
            self.page.evaluate(
                """async (id) => {
                    const image = document.getElementById(id);
                    await image.decode();
                    const canvas = document.createElement("canvas");
                    canvas.width = canvas.height = 1;
                    const context = canvas.getContext("2d");
                    context.drawImage(image, 0, 0);
                    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
                }""",
                image,
            )
        )


@pytest.fixture(params=["light", "dark"])
def visit(browser: Any, written: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
    visit = Visit(page, written)
    yield visit
    assert visit.complaints == []
    assert {url.split(":")[0] for url in visit.requests} <= {"file", "data"}
    assert [url for url in visit.requests if url.startswith("file:")] == [written.as_uri()]
    page.close()


def test_the_seam_follows_the_mouse_and_the_keys(visit: Visit) -> None:
    box = visit.page.locator(".stage").bounding_box()
    middle, clip = box["y"] + box["height"] / 2, visit.clip()
    assert visit.seam() == 50
    visit.page.mouse.move(box["x"] + box["width"] / 2, middle)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=5)
    visit.page.mouse.up()
    assert 75 < visit.seam() < 85
    assert visit.clip() != clip
    left = visit.page.locator(".seam").bounding_box()["x"]
    assert left == pytest.approx(box["x"] + box["width"] * visit.seam() / 100, abs=3)
    before = visit.seam()
    visit.page.keyboard.press("ArrowLeft")
    assert visit.seam() == before - 1
    visit.page.keyboard.press("Home")
    assert visit.seam() == 0
    assert "100%" in visit.clip()


def test_any_two_columns_can_be_compared(visit: Visit) -> None:
    assert (visit.shown("left"), visit.shown("right")) == (colour(0, 0), colour(0, 2))
    visit.page.locator("input[name=left][value='1']").check()
    visit.page.locator("input[name=right][value='3']").check()
    assert (visit.shown("left"), visit.shown("right")) == (colour(0, 1), colour(0, 3))
    assert visit.page.locator("#tag-left").inner_text() == "CUT"
    assert visit.page.locator("#tag-right").inner_text() == "target"


def test_a_click_on_a_row_and_the_buttons_change_the_scene(visit: Visit) -> None:
    visit.page.locator(".scene").nth(2).click()
    assert (visit.shown("left"), visit.shown("right")) == (colour(2, 0), colour(2, 2))
    assert visit.page.locator("#compare-caption").inner_text() == "scene 2"
    visit.page.locator("#next").click()
    assert visit.shown("left") == colour(0, 0)
    visit.page.locator("#previous").click()
    assert visit.page.locator("#position").inner_text() == "3 / 3"
    visit.page.locator(".scene").nth(1).press("Enter")
    assert visit.shown("right") == colour(1, 2)


def test_tables_show_the_best_in_bold_and_lead_to_their_protocol(visit: Visit) -> None:
    assert visit.page.locator("table.scores").count() == 2
    bold = visit.page.locator("table.scores").first.locator("td strong")
    assert bold.all_inner_texts() == ["0.200", "0.900"]
    assert bold.first.evaluate("each => Number(getComputedStyle(each).fontWeight)") >= 600
    visit.page.locator("a.ref").nth(1).click()
    assert visit.page.locator(":target b").inner_text() == "SSIM"


def test_colours_follow_the_scheme_and_can_be_read(visit: Visit) -> None:
    light = visit.page.evaluate("matchMedia('(prefers-color-scheme: light)').matches")
    text, paper = (
        sum(map(int, visit.page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")))
        for name in ("color", "backgroundColor")
    )
    assert (paper > text + 400) if light else (text > paper + 400)


def test_a_narrow_window_scrolls_only_what_is_wide(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 420, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 420
    gallery = visit.page.locator(".gallery")
    assert gallery.evaluate("each => each.scrollWidth > each.clientWidth")
    gallery.evaluate("each => { each.scrollLeft = 100; }")
    visit.page.wait_for_function("document.querySelector('.gallery-head').scrollLeft === 100")
