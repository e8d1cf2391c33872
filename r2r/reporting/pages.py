"""A self-contained HTML page: pictures embedded, plain CSS and JavaScript, opens from disk without a network."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from r2r.metrics import Protocol
from r2r.reporting.tables import Table


@dataclass(frozen=True)
class Finding:
    """One sentence a score supports, with the numbers behind it; `holds` None = stated without a verdict."""

    text: str
    numbers: str
    holds: bool | None = None


@dataclass(frozen=True)
class Scene:
    """One row of the gallery: a picture per column of the page, and short remarks below the pictures."""

    name: str
    caption: str
    pictures: Sequence[Image.Image]
    remarks: Sequence[str]


@dataclass(frozen=True)
class Page:
    """All that the page shows, top to bottom; `compared` are the columns the slider starts with."""

    title: str
    lead: str
    columns: Sequence[str]
    scenes: Sequence[Scene]
    compared: tuple[int, int]
    findings: Sequence[Finding]
    table: Table
    protocols: Mapping[str, Protocol]
    caveats: Sequence[str]
    commands: Sequence[str]
    settings: Mapping[str, object]
    record: Mapping[str, object] = field(default_factory=dict)


def write_page(path: Path, page: Page) -> None:
    """Render `page` into one HTML file."""
    templates = Environment(
        loader=PackageLoader("r2r.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = templates.get_template("page.html.j2").render(page=page, embed=embed)
    path.write_text(html, encoding="utf-8")


def embed(picture: Image.Image) -> str:
    """The picture as a PNG data URI."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
