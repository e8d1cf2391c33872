"""The page is one file: nothing fetched, every picture embedded, text escaped, controls complete."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from r2r.metrics import Estimate, kid_protocol
from r2r.reporting import Column, Finding, Page, Scene, Table, write_page

COLUMNS = ["input", "without TAC", "r2r", "photo twin"]


class Elements(HTMLParser):
    """All start tags with their attributes, in order; remembers what is left open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def html(tmp_path: Path) -> str:
    pictures = [Image.new("RGB", (8, 8), (60 * index, 0, 0)) for index in range(4)]
    table = Table(
        "2 scenes", [Column("Images"), Column("KID", 3, "lower")], [["r2r", Estimate(0.2, 0.1, 0.3, 2)]], ["A note."]
    )
    page = Page(
        title="Rendered to real",
        lead="Two scenes.",
        columns=COLUMNS,
        scenes=[Scene(f"{i:04d}", "a <red> shirt", pictures, ["", "SSIM 0.5", "SSIM 0.6", ""]) for i in range(2)],
        compared=(0, 2),
        findings=[Finding("KID falls.", "−0.1 [−0.2, −0.05]", True), Finding("PSNR falls.", "−1", False)],
        table=table,
        protocols={"KID": kid_protocol("r2r-features", 2, 2, paired=True)},
        caveats=["A tiny model."],
        commands=["python -m r2r.demo"],
        settings={"translation.strength": 0.3},
        record={"seed": 0},
    )
    write_page(tmp_path / "index.html", page)
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def test_self_contained(html: str) -> None:
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "data:", html)
    assert "http" not in without_pictures
    assert "@import" not in without_pictures
    assert "url(" not in without_pictures
    elements = Elements()
    elements.feed(html)
    assert elements.open == []
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in elements.named("img"))
    assert [link["href"] for link in elements.named("link")] == ["data:,"]
    assert all("src" not in script for script in elements.named("script"))


def test_every_picture_is_there(html: str) -> None:
    elements = Elements()
    elements.feed(html)
    sources = [image["src"] or "" for image in elements.named("img")]
    assert len(sources) == 2 + 2 * 4
    decoded = Image.open(io.BytesIO(base64.b64decode(sources[2 + 3].split(",")[1])))
    assert decoded.getpixel((0, 0)) == (180, 0, 0)


def test_slider_and_choices(html: str) -> None:
    elements = Elements()
    elements.feed(html)
    inputs = elements.named("input")
    assert [entry["id"] for entry in inputs if entry["type"] == "range"] == ["slider"]
    chosen = [(entry["name"], entry["value"]) for entry in inputs if "checked" in entry]
    assert chosen == [("left", "0"), ("right", "2")]


def test_text_is_escaped_and_complete(html: str) -> None:
    assert "a &lt;red&gt; shirt" in html
    assert "<red>" not in html
    for part in (
        "<strong>0.200</strong>",
        "[0.100, 0.300]",
        "A note.",
        "A tiny model.",
        "python -m r2r.demo",
        "translation.strength",
        "r2r-features",
    ):
        assert part in html
    assert 'class="holds"' in html
    assert 'class="fails"' in html
    assert "prefers-color-scheme: dark" in html
