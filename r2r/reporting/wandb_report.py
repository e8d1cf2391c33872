"""The page as a W&B Report: the same words and tables, with panels over a project's runs.

W&B makes no report from what was logged offline (wandb/wandb#7256), so the report is a spec on disk first, complete
without an account; publishing saves it. A spec holds text and panels, pictures must lie on W&B's servers: publishing
logs them in a run of their own (job type "report"), and the report shows that run's media.

`wandb_workspaces`, which knows the format, is a public preview: everything that touches it is in this file.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from r2r.errors import InputError
from r2r.reporting.pages import Page

MEDIA = "report/"  # prefix of the pictures' keys in the run that holds them
TITLE_LENGTH = 128  # W&B takes no more
_LOGIN = 'log in first: run "wandb login", or set WANDB_API_KEY'


@dataclass(frozen=True)
class Board:
    """Where the runs are: a project, its owner (None: the account's own), and which of their curves to draw."""

    project: str | None = None
    entity: str | None = None
    curves: Sequence[str] = ()


def report_spec(page: Page, board: Board, media: Sequence[str] = ()) -> dict[str, Any]:
    """What W&B would be sent, made without an account or a network; `media` are the names of pictures.

    Raises InputError when `wandb_workspaces` is not installed.
    """
    offline = Board(board.project, None, board.curves)  # the library looks a project with an owner up on the server
    return _report(page, offline, media)._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def check_publishable(board: Board) -> None:
    """Raise InputError unless a report could be saved: library, account, project, and W&B not told to stay offline."""
    _library()
    import wandb
    from wandb.errors import UsageError

    if board.project is None:
        raise InputError("wandb=publish needs to know where: give wandb_project=NAME, and wandb_entity=TEAM for a team")
    if (mode := os.environ.get("WANDB_MODE", "online")) != "online":
        raise InputError(f"wandb=publish with WANDB_MODE={mode}: unset it, or leave wandb=publish out")
    try:
        wandb.Api()
    except UsageError as error:
        raise InputError(f"wandb=publish without a W&B account on this machine; {_LOGIN}") from error


def publish(page: Page, board: Board, pictures: Mapping[str, Image.Image]) -> str:
    """Log the pictures, save the report, return its address.

    Raises InputError when there is no account, or when W&B refuses; what lies on disk is complete all the same.
    """
    check_publishable(board)
    import wandb
    from wandb.errors import Error

    try:
        with wandb.init(
            project=board.project, entity=board.entity, job_type="report", name=page.title[:TITLE_LENGTH]
        ) as run:
            run.log({MEDIA + name: wandb.Image(picture) for name, picture in pictures.items()})
            where = Board(run.project, run.entity, board.curves)
        report = _report(page, where, list(pictures), run.id)
        report.save()
    except (Error, ValueError, OSError) as error:
        raise InputError(f"W&B did not take the report: {error}; the local one is complete, try again") from error
    return report.url


def _report(page: Page, board: Board, media: Sequence[str], media_run: str | None = None) -> Any:
    library = _library()
    blocks = [*_words(library, page), *_panels(library, board, media, media_run)]
    return library.Report(
        project=board.project or "",
        entity=board.entity or "",
        title=page.title[:TITLE_LENGTH],
        description=page.lead,
        blocks=[*blocks, *_details(library, page)],
        width="fluid",
    )


def _words(library: Any, page: Page) -> list[Any]:
    marks = {True: "✓", False: "✗", None: "•"}
    blocks = [library.UnorderedList([f"{marks[f.holds]} {f.text} {f.numbers}" for f in page.findings])]
    blocks = blocks if page.findings else []
    for table in page.tables:
        blocks += [library.H2(table.title), library.MarkdownBlock(table.to_markdown())]
    return blocks


def _panels(library: Any, board: Board, media: Sequence[str], media_run: str | None) -> list[Any]:
    runs = {"project": board.project or "", "entity": board.entity or ""}
    blocks: list[Any] = []
    if media:
        only = f"Metric('ID') == '{media_run}'" if media_run else "Metric('JobType') == 'report'"
        browsers = [
            library.MediaBrowser(title=name, media_keys=[MEDIA + name], layout=library.Layout(w=24, h=14, y=14 * row))
            for row, name in enumerate(media)
        ]
        pictures = library.Runset(**runs, name="Pictures of this report", filters=only)
        blocks += [library.H2("Pictures"), library.PanelGrid(runsets=[pictures], panels=browsers)]
    if board.project:
        curves = [library.LinePlot(title=name, x="Step", y=[name]) for name in board.curves]
        training = library.Runset(**runs, name="Training runs", filters="Metric('JobType') != 'report'")
        panels = [library.RunComparer(diff_only="split", layout=library.Layout(w=24, h=10)), *curves]
        blocks += [library.H2("Runs"), library.PanelGrid(runsets=[training], panels=panels)]
    return blocks


def _details(library: Any, page: Page) -> list[Any]:
    blocks: list[Any] = []
    if page.caveats:
        blocks += [library.H2("How to read this"), library.UnorderedList(list(page.caveats))]
    if page.protocols:
        lines = [
            f"{number}. **{name}**: " + ", ".join(f"{key} {value}" for key, value in protocol.items())
            for number, (name, protocol) in enumerate(page.protocols.items(), start=1)
        ]
        blocks += [library.H2("How each column is measured"), library.MarkdownBlock("\n".join(lines))]
    hosted = [link for link in page.links if isinstance(link.target, str)]
    if hosted:
        urls = [library.interface.GalleryURL(str(link.target), link.name, link.note, "") for link in hosted]
        blocks += [library.H2("Where it lies"), library.Gallery(urls)]
    commands = "```\n" + "\n".join(page.commands) + "\n```"
    return [*blocks, library.H2("Commands"), library.MarkdownBlock(commands)]


def _library() -> Any:
    """`wandb_workspaces.reports.v2`, without the deprecation notices it gives of itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as library
    except ImportError as error:
        raise InputError('a W&B report needs one more package: pip install "r2r[wandb-reports]"') from error
    return library
