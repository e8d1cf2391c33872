"""A self-contained HTML page: pictures embedded, plain CSS and JavaScript, opens from disk without a network."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from r2r.metrics import Estimate, Protocol
from r2r.reporting.tables import Cell, Span, Table

LOSSLESS_PIXELS = 8_000_000  # up to here all pictures of a page together are PNG: at most 24 MB before base64
MOST_PIXELS = 80_000_000  # beyond, pictures are scaled down: at about 0.4 bytes a pixel, 32 MB of JPEG
FIGURE_WIDTH = 2400  # pixels; wider figures are scaled down
QUALITY = 90


@dataclass(frozen=True)
class Finding:
    """One sentence a score supports, with the numbers behind it; `holds` None = stated without a verdict."""

    text: str
    numbers: str
    holds: bool | None = None


@dataclass(frozen=True)
class Scene:
    """One row of the gallery: a picture per column of the page, and short remarks below the pictures.

    `pictures` may decode as it is read: the page goes through it once, and once more for the first scene.
    """

    name: str
    caption: str
    pictures: Sequence[Image.Image]
    remarks: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """A picture of its own, such as a sweep's grid or a heat map."""

    title: str
    picture: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Link:
    """Where the row called `name` in the tables comes from: a folder or an address; `note` says what lies there."""

    name: str
    target: Path | str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """All that the page shows, top to bottom; `compared` are the columns the slider starts with.

    `protocols` belong to the table columns of the same title, which refer to them by number.
    """

    title: str
    lead: str
    columns: Sequence[str]
    scenes: Sequence[Scene]
    compared: tuple[int, int]
    findings: Sequence[Finding]
    tables: Sequence[Table]
    protocols: Mapping[str, Protocol]
    caveats: Sequence[str]
    commands: Sequence[str]
    settings: Mapping[str, object]
    record: Mapping[str, object] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    links: Sequence[Link] = ()
    gallery_title: str = "All held-out scenes"
    gallery_note: str = ""


def write_page(path: Path, page: Page) -> None:
    """Render `page` into one HTML file."""
    html = render(
        "page.html.j2",
        page=page,
        embedding=Embedding.of(page.scenes),
        embed_figure=embed_figure,
        numbers={title: number for number, title in enumerate(page.protocols, start=1)},
        whiskers=lambda table: [whiskers(table, index) for index in range(len(table.columns))],
        common=common_settings(page.protocols),
        addresses={link.name: address(link.target, path.parent) for link in page.links},
    )
    path.write_text(html, encoding="utf-8")


def render(template: str, **content: Any) -> str:
    """One of the package's templates, filled in; text is escaped, and what a template names must be given."""
    templates = Environment(
        loader=PackageLoader("r2r.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(**content)


@dataclass(frozen=True)
class Whiskers:
    """Where the estimates of a column lie, row by row, in percent; and where zero lies, in a column of changes."""

    spans: Sequence[Span | None]
    zero: float | None = None


def whiskers(table: Table, index: int) -> Whiskers:
    """The whiskers of a column: between its lowest and highest bound; among changes, zero belongs to the range too."""
    spans = table.spans(index)
    if not table.columns[index].changes:
        return Whiskers(spans)
    cells = [row[index] if span else None for row, span in zip(table.rows, spans, strict=True)]
    bounds = [0.0, *(bound for cell in cells if isinstance(cell, Estimate) for bound in (cell.low, cell.high))]
    low, scale = min(bounds), 100 / (max(bounds) - min(bounds) or 1.0)

    def place(cell: Cell) -> Span | None:
        known = isinstance(cell, Estimate)
        return Span(*((at - low) * scale for at in (cell.low, cell.value, cell.high))) if known else None

    return Whiskers([place(cell) for cell in cells], -low * scale)


def common_settings(protocols: Mapping[str, Protocol]) -> Protocol:
    """What several protocols have in common, to be told once; nothing for a single one."""
    first, *others = protocols.values() or [{}]
    same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    return same if others else {}


@dataclass(frozen=True)
class Embedding:
    """How all pictures of a page are embedded: one rule for every column, so that none is favoured."""

    lossless: bool
    scale: float = 1.0

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> "Embedding":
        """PNG up to 8 megapixels in all, then JPEG, scaled to 80 megapixels in all; as counted on the first scene."""
        pixels = len(scenes) * sum(picture.width * picture.height for picture in scenes[0].pictures) if scenes else 0
        return cls(pixels <= LOSSLESS_PIXELS, min(1.0, (MOST_PIXELS / max(pixels, 1)) ** 0.5))

    @property
    def rule(self) -> str:
        """What a reader should know about the pictures before judging them."""
        if self.lossless:
            return "Pictures are embedded losslessly (PNG), pixel for pixel."
        size = "at full size" if self.scale == 1 else f"at {self.scale:.0%} of their size"
        return f"Pictures are embedded as JPEG (quality {QUALITY}, {size}) to keep this page small; scores are not."

    def __call__(self, picture: Image.Image) -> str:
        """The picture as a data URI."""
        return _data_uri(_scaled(picture, self.scale), self.lossless)


def embed_figure(picture: Image.Image) -> str:
    """A figure as a data URI: at most 2400 pixels wide, PNG up to two megapixels, else JPEG."""
    fitted = _scaled(picture, min(1.0, FIGURE_WIDTH / picture.width))
    return _data_uri(fitted, fitted.width * fitted.height <= LOSSLESS_PIXELS // 4)


def thumbnail(picture: Image.Image) -> str:
    """A small picture among many as a data URI."""
    return _data_uri(picture, lossless=False)


def address(target: Path | str, folder: Path) -> str:
    """What a page in `folder` links to: relative below the folder, so that both can move; else a full address."""
    if isinstance(target, str):
        return target
    full, base = target.absolute(), folder.absolute()
    below = full.is_relative_to(base) and full != base
    return quote(full.relative_to(base).as_posix()) + "/" if below else full.as_uri()


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    if scale == 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _data_uri(picture: Image.Image, lossless: bool) -> str:
    buffer, kind = io.BytesIO(), "png" if lossless else "jpeg"
    if lossless:
        picture.convert("RGB").save(buffer, "PNG", optimize=True)
    else:
        picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
