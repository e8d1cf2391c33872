"""The page is one file: nothing fetched, every picture embedded by one rule, text escaped, controls complete."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from r2r.metrics import Estimate, protocol
from r2r.reporting import Column, Finding, Page, Scene, Table, write_page
from r2r.reporting.pages import FIGURE_WIDTH, MOST_PIXELS, Embedding, Figure, Link, address, embed_figure, whiskers
from r2r.reporting.tables import Span

COLUMNS = ["input", "without TAC", "r2r", "photo twin"]
VOID = {"meta", "link", "img", "input"}


class Elements(HTMLParser):
    """All start tags with their attributes, in order; remembers what is left open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def elements(html: str) -> Elements:
    found = Elements()
    found.feed(html)
    assert found.open == []
    return found


@pytest.fixture
def page() -> Page:
    pictures = [Image.new("RGB", (8, 8), (60 * index, 0, 0)) for index in range(4)]
    rows = [
        ["input", Estimate(0.1, 0.05, 0.2, 2), 1.0],
        ["without TAC", Estimate(0.3, 0.2, 0.4, 2), 2.0],
        ["r2r", Estimate(0.2, 0.1, 0.3, 2), None],
    ]
    columns = [Column("Images"), Column("KID", 3, "lower"), Column("Seconds", 1, "lower")]
    return Page(
        title="Rendered to real",
        lead="Two scenes.",
        columns=COLUMNS,
        scenes=[Scene(f"{i:04d}", "a <red> shirt", pictures, ["", "SSIM 0.5", "SSIM 0.6", ""]) for i in range(2)],
        compared=(0, 2),
        findings=[Finding("KID falls.", "−0.1 [−0.2, −0.05]", True), Finding("PSNR falls.", "−1", False)],
        tables=[Table("2 scenes", columns, rows, ["A note."], references=frozenset({0}))],
        protocols={"KID": protocol("KID", n=2)},
        caveats=["A tiny model."],
        commands=["python -m r2r.demo"],
        settings={"translation.strength": 0.3},
        record={"seed": 0},
    )


def written(page: Page, folder: Path) -> str:
    write_page(folder / "index.html", page)
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def html(page: Page, tmp_path: Path) -> str:
    return written(page, tmp_path)


def test_self_contained(html: str) -> None:
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "data:", html)
    assert "http" not in without_pictures
    assert "@import" not in without_pictures
    assert "url(" not in without_pictures
    found = elements(html)
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in found.named("img"))
    assert [link["href"] for link in found.named("link")] == ["data:,"]
    assert all("src" not in script for script in found.named("script"))


def test_ids_are_unique_and_references_lead_somewhere(html: str) -> None:
    found = elements(html)
    ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = {(link["href"] or "")[1:] for link in found.named("a") if (link["href"] or "").startswith("#")}
    labels = {attributes["aria-labelledby"] for _, attributes in found.found if "aria-labelledby" in attributes}
    sections = {"compare-title", "findings-title", "gallery-title", "protocols-title", "details-title"}
    assert inner == {"protocol-1"} | sections
    assert inner | labels <= set(ids)


def test_every_picture_is_there(html: str) -> None:
    sources = [image["src"] or "" for image in elements(html).named("img")]
    assert len(sources) == 2 + 2 * 4
    decoded = Image.open(io.BytesIO(base64.b64decode(sources[2 + 3].split(",")[1])))
    assert decoded.getpixel((0, 0)) == (180, 0, 0)


def test_slider_and_choices(html: str) -> None:
    inputs = elements(html).named("input")
    assert [entry["id"] for entry in inputs if entry["type"] == "range"] == ["slider"]
    chosen = [(entry["name"], entry["value"]) for entry in inputs if "checked" in entry]
    assert chosen == [("left", "0"), ("right", "2")]


def test_text_is_escaped_and_complete(html: str) -> None:
    assert "a &lt;red&gt; shirt" in html
    assert "<red>" not in html
    for part in ("[0.100, 0.300]", "A note.", "A tiny model.", "python -m r2r.demo", "translation.strength"):
        assert part in html
    assert 'class="holds"' in html
    assert 'class="fails"' in html
    assert "prefers-color-scheme: dark" in html


def test_the_best_that_competes_is_bold(html: str) -> None:
    assert re.findall(r"<td><strong>([^<]*)</strong>", html) == ["0.200"]
    assert html.count('class="reference"') == 1


def test_changes_are_drawn_about_zero() -> None:
    columns = [Column("Run"), Column("KID", 2, "lower", changes=True), Column("SSIM", 2, "higher")]
    better, worse = Estimate(-3.0, -4.0, -2.0, 9), Estimate(1.0, -1.0, 4.0, 9)
    table = Table("Changes", columns, [["a", better, worse], ["b", worse, worse], ["c", None, None]])
    changes, values = whiskers(table, 1), whiskers(table, 2)
    assert changes.zero == 50
    assert changes.spans == [Span(0.0, 12.5, 25.0), Span(37.5, 62.5, 100.0), None]
    assert (values.zero, values.spans) == (None, table.spans(2))
    assert whiskers(replace(table, rows=[["c", None, None]]), 1).spans == [None]


def test_changes_show_their_verdict(page: Page, tmp_path: Path) -> None:
    column = Column("KID", 2, "lower", changes=True)
    table = Table(
        "Changes", [Column("Run"), column], [["a", Estimate(-3.0, -4.0, -2.0, 9)], ["b", Estimate(3.0, 2.0, 4.0, 9)]]
    )
    html = written(replace(page, tables=[table]), tmp_path)
    assert re.findall(r'<td class="(gain|loss)">([^<]*)', html) == [("gain", "-3.00"), ("loss", "+3.00")]


def test_several_tables_figures_and_links(page: Page, tmp_path: Path) -> None:
    (tmp_path / "r2r").mkdir()
    [table] = page.tables
    figure = Figure("Heat map", Image.new("RGB", (3000, 20)), "TAC × strength")
    links = [
        Link("r2r", tmp_path / "r2r", "pictures"),
        Link("without TAC", tmp_path.parent),
        Link("w", "https://w/run"),
    ]
    html = written(replace(page, tables=[table, table], figures=[figure], links=links), tmp_path)
    found = elements(html)
    assert len(found.named("table")) == 2
    hrefs = [link["href"] for link in found.named("a") if not (link["href"] or "").startswith("#")]
    assert hrefs[-3:] == ["r2r/", tmp_path.parent.as_uri(), "https://w/run"]
    assert hrefs[:-3] == [tmp_path.parent.as_uri(), "r2r/"] * 2  # rows of the tables lead there too
    assert [image["alt"] for image in found.named("img")].count("Heat map") == 1


def test_a_page_without_pictures_or_findings(page: Page, tmp_path: Path) -> None:
    html = written(replace(page, scenes=[], findings=[], caveats=[], protocols={}), tmp_path)
    assert elements(html).named("img") == []


def test_one_rule_embeds_all_pictures_and_bounds_the_page() -> None:
    def page_of(count: int, side: int) -> Embedding:
        picture = Image.new("RGB", (side, side))
        return Embedding.of([Scene("s", "s", [picture] * 4, [""] * 4)] * count)

    assert page_of(24, 128) == Embedding(lossless=True)
    assert page_of(10, 512) == Embedding(lossless=False)
    many = page_of(60, 1024)
    assert 60 * 4 * 1024**2 * many.scale**2 == pytest.approx(MOST_PIXELS)
    header, data = many(Image.new("RGB", (1024, 512))).split(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert header == "data:image/jpeg;base64" and small.size == (round(1024 * many.scale), round(512 * many.scale))
    assert "JPEG" in many.rule and f"{many.scale:.0%}" in many.rule


def test_figures_are_never_too_wide() -> None:
    header, data = embed_figure(Image.new("RGB", (2 * FIGURE_WIDTH, 100))).split(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as figure:
        assert header == "data:image/png;base64" and figure.size == (FIGURE_WIDTH, 50)


def test_addresses_move_with_the_page(tmp_path: Path) -> None:
    assert address(tmp_path / "a b" / "c#1", tmp_path) == "a%20b/c%231/"
    assert address(tmp_path, tmp_path) == tmp_path.as_uri()
    assert address("https://wandb.ai/x", tmp_path) == "https://wandb.ai/x"
