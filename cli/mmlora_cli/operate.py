"""``mmlora read``, ``mmlora status`` and ``mmlora verify``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from mmlora_cli.options import DomainOption, HomeOption, UrlOption, parse_date
from mmlora_cli.output import JsonFlag, note, print_candidates, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.pipeline.status import DomainStatus
    from mmlora.pipeline.verify import Verification


_NOT_IN_A_TABLE = ("load_id", "published_at", "age_days", "is_stale")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(read)
    app.command()(status)
    app.command()(verify)


def read(
    domain: Annotated[str, typer.Option(help="The domain.")],
    date: Annotated[
        str | None, typer.Option(help="The score date; default: the newest published date.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First score date of a range, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last score date of a range, inclusive.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user.")] = None,
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Only these users: Parquet or CSV with a column user_id, or text with one id per line.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None,
    format: Annotated[Literal["table", "csv", "parquet"], typer.Option(help="The output format.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(help="File for csv or parquet; default for csv: standard output."),
    ] = None,
    home: HomeOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Read published scores, sorted by user and position; a table has 20 rows without --limit.

    For a range, the dates without published scores are listed on standard error.

    Example: mmlora read --domain farmer --user 42 --limit 10

    Example: mmlora read --domain farmer --start 2000-12-01 --end 2000-12-31 --users users.csv --format csv
    """
    from mmlora.errors import UsageError
    from mmlora.pipeline.read import read_scores

    if format == "parquet" and output is None:
        raise UsageError("--format parquet needs --output FILE")
    if output is not None and (format == "table" or as_json):
        raise UsageError("--output goes with --format csv or parquet, not with a table or --json")
    if as_json and format != "table":
        raise UsageError(f"--json and --format {format} are two formats: give one of them")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}; create it first")
    on, first, last = (parse_date(text) if text else None for text in (date, start, end))
    if format == "table" and limit is None and not as_json:
        limit = 20
    with read_scores(
        domain, on=on, start=first, end=last, user=user, users=users, limit=limit, home=home, url=url
    ) as reader:
        if as_json:
            _write_json(reader)
        else:
            write_rows(reader, format, output)


def _write_json(reader: Any) -> None:
    """Print the rows as one JSON array, with one batch in memory at a time."""
    import json

    separator = "["
    for batch in reader:
        for row in batch.to_pylist():
            typer.echo(separator + "\n  " + json.dumps(row, default=str), nl=False)
            separator = ","
    typer.echo("[]" if separator == "[" else "\n]")


def write_rows(reader: Any, format: str, output: Path | None) -> None:
    """Write a reader's rows as a table, CSV or Parquet; a file is replaced atomically."""
    if format == "table":
        table = reader.read_all()
        columns = [name for name in table.column_names if name not in _NOT_IN_A_TABLE]
        rows = [
            [row[name] if name in ("score", "position") else str(row[name]) for name in columns]
            for row in table.to_pylist()
        ]
        print_table("published scores", columns, rows)
    elif format == "csv":
        import pyarrow.csv as csv

        with _sink(output) as sink, csv.CSVWriter(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    else:
        import pyarrow.parquet as parquet

        with _sink(output) as sink, parquet.ParquetWriter(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    """Yield standard output, or a temporary file that replaces ``output`` once it is complete."""
    if output is None:
        yield sys.stdout.buffer
        return
    if output.is_symlink() or (output.exists() and not output.is_file()):  # /dev/stdout, a named pipe
        with output.open("wb") as sink:
            yield sink
        return
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("wb") as sink:
            yield sink
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


def status(
    domain: Annotated[
        str | None, typer.Option(help="Show this domain's newest loads and its ledger.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what is published for each domain, the last nights, and loads that are running or failed.

    A night is complete when all of its domains are published; missing domains are shown with the reason.

    Example: mmlora status
    """
    from mmlora.pipeline.status import domain_status
    from mmlora.pipeline.status import status as run

    if domain:
        _print_domain(domain_status(domain), as_json)
        return
    result = run()
    if as_json:
        print_json(result.to_json())
        return
    _print_records("published", result.domains, without="candidates")
    for row in result.domains:
        print_candidates(row.domain_id, row.candidates)
    _print_records("nights", result.nights)
    if result.troubles:
        _print_records("loads not published", result.troubles)
    if (late := result.late) is not None:
        nights = "1 published night" if late.nights == 1 else f"{late.nights:,} published nights"
        typer.echo(
            f"late rows: {nights} from {late.first} to {late.last} were scored before some rows were known "
            f"({late.rows:,} for {late.last}); to see what scoring them again would change: {late.command}"
        )
    _print_records("models", result.models)
    _print_records("decisions", result.decisions, without="evidence")
    if result.shadows:
        _print_records("shadow loads, not for readers", result.shadows)
    typer.echo(f"this machine: {', '.join(vars(result.numerics).values())}")


def _print_domain(result: DomainStatus, as_json: bool) -> None:
    from mmlora.pipeline.status import LOAD_COLUMNS

    if as_json:
        print_json(result.to_json())
        return
    loads = [{name: getattr(load, name) for name in LOAD_COLUMNS} for load in result.loads]
    _print_rows(f"loads of {result.domain_id}", loads)
    _print_records("ledger", result.ledger, without="domain_id")
    if result.quality:
        columns = (
            "score_date",
            "model_version",
            "scored",
            "clicks",
            "auc",
            "logloss",
            "calibration",
            "auc_gain",
        )
        rows = [{name: getattr(night, name) for name in columns} for night in result.quality]
        _print_rows("quality of published nights", rows)


def verify(
    domain: DomainOption = None,
    start: Annotated[str | None, typer.Option(help="First score date, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last score date, inclusive.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify the hashes of published and staged scores and of their models; exit status 1 if any differs.

    This counts and hashes published rows, the files of staged loads, and the manifests and parts of the
    models of loads, champions and challengers. Each fault is shown with the command that repairs it.

    Example: mmlora verify --domain farmer --start 2000-12-01
    """
    from mmlora.pipeline.verify import verify as run

    first, last = (parse_date(text) if text else None for text in (start, end))
    with progress_bar(quiet=as_json) as progress:
        result = run(domain=domain, start=first, end=last, progress=progress)
    if as_json:
        print_json([row.to_json() for row in result.checked])
    else:
        _print_verified(result)
    for row in result.faults:
        load = f"{row.domain_id} {row.score_date}: " if row.load_id else ""
        note(f"mmlora: {load}{row.fault}; to repair it: {row.mend}")
    if result.faults:
        raise typer.Exit(1)


def _print_verified(result: Verification) -> None:
    columns = ("domain_id", "score_date", "load_id", "rows", "fault")
    titles = {
        "publication": "published rows",
        "staged load": "staged loads",
        "shadow load": "shadow loads",
    }
    for kind, title in titles.items():
        rows = [row for row in result.checked if row.kind == kind]
        if rows or kind == "publication":
            _print_rows(title, [{name: getattr(row, name) or None for name in columns} for row in rows])
    typer.echo(f"models: {result.models:,} with {result.parts:,} parts")


def _print_records(title: str, records: Sequence[object], without: str = "") -> None:
    rows = [{name: value for name, value in vars(row).items() if name != without} for row in records]
    _print_rows(title, rows)


def _print_rows(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        print_table(title, tuple(rows[0]), [list(row.values()) for row in rows])
    else:
        typer.echo(f"{title}: none")
