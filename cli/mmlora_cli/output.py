"""Print results as tables or JSON, and progress as bars on a terminal or as plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mmlora.telemetry.logs import json_handler, say

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mmlora.load_checks import CandidateFacts

Progress = Callable[[str, int, int], None]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def print_json(result: object) -> None:
    """Print a JSON-serialisable result on standard output; dates and other values become text."""
    typer.echo(json.dumps(result, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with numbers aligned to the right; into a pipe it is 200 columns wide."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=not rows or numeric)
    for row in rows:
        table.add_row(*(escape(format_value(value)) for value in row))
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table, highlight=False)


def print_candidates(domain: str, candidates: CandidateFacts | None) -> None:
    """Print the pairs that a load's policy removed, its unknown ids, and the recall of its retrieval."""
    if candidates is None:
        return
    if candidates.removed:
        typer.echo(f"{domain}: not candidates: {', '.join(map(str, candidates.removed))}")
    for part in candidates.unknown:
        typer.echo(f"{domain}: not scored: {part.count:,} unknown {part.what} of {part.table}: {part.named}")
    if (recall := candidates.recall) is not None:
        share = format_value(recall.share)
        typer.echo(f"{domain}: recall at {recall.at} of retrieval: {share} ({recall.users} users)")


def format_value(value: object) -> str:
    """Return a value as text for people: 1,234,567; 0.1234; 0.000123; a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"
    return str(value)


def note(text: str) -> None:
    """Print a line on standard error: for people, or as a log line where these are JSON."""
    if (handler := json_handler()) is not None:
        say(handler, text)
    else:
        typer.echo(text, err=True)


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Progress]:
    """Yield ``progress(what, done, total)``, which shows bars on a terminal and plain lines elsewhere."""
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty() and json_handler() is None:
        with _bars() as report:
            yield report
    else:
        yield _plain_lines()


def _plain_lines() -> Progress:
    reported: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if reported.get(what, -1) != tenth and (done >= total or tenth > reported.get(what, -1) + 2):
            reported[what] = tenth
            note(f"{what}: {done:,} of {total:,}")

    return report


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
