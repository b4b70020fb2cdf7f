"""``mmlora read``, ``mmlora status`` and ``mmlora verify``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from mmlora_cli.options import DomainOption, parse_date
from mmlora_cli.output import JsonFlag, note, print_candidates, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.pipeline.status import DomainStatus
    from mmlora.pipeline.verify import Verification


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(read)
    app.command()(status)
    app.command()(verify)


def read(
    domain: Annotated[str, typer.Option(help="The domain.")],
    date: Annotated[
        str | None, typer.Option(help="The score date; the latest published when left out.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="This user only.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    format: Annotated[Literal["table", "csv", "parquet"], typer.Option(help="What to write.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(help="File for csv and parquet; without it csv goes to standard output."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="The workspace, else the setting; its data folder isn't needed.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The warehouse itself, instead of a workspace's.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read published scores, by user and position; a table shows 20 rows unless --limit says otherwise.

    Example: mmlora read --domain farmer --user 42 --limit 10
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
        raise UsageError(f"--output {output}: there is no folder {output.parent}; make it first")
    on = parse_date(date) if date else None
    if format == "table" and limit is None and not as_json:
        limit = 20
    with read_scores(domain, on=on, user=user, limit=limit, home=home, url=url) as reader:
        if as_json:
            _write_json(reader)
        else:
            write_rows(reader, format, output)


def _write_json(reader: Any) -> None:
    """Print the rows as one array, a batch in memory at a time."""
    import json

    separator = "["
    for batch in reader:
        for row in batch.to_pylist():
            typer.echo(separator + "\n  " + json.dumps(row, default=str), nl=False)
            separator = ","
    typer.echo("[]" if separator == "[" else "\n]")


def write_rows(reader: Any, format: str, output: Path | None) -> None:
    """Write a reader's rows as a table, CSV or Parquet; a file is replaced whole, or not at all."""
    if format == "table":
        table = reader.read_all()
        columns = [name for name in table.column_names if name not in ("load_id", "published_at")]
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
    """Give standard output, or a file that takes its name when it is whole, so one there stays until then."""
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
        str | None, typer.Option(help="The newest loads of this domain, and what people did to them.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what is published for each domain, the last nights, and loads that are under way or went wrong.

    A night is complete when readers have all of its domains; what is missing is said with the reason.

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
            f"late rows: {nights} from {late.first} to {late.last} did not know rows that are known now "
            f"({late.rows:,} for {late.last}); see what restating them would do: {late.command}"
        )
    _print_records("models", result.models)
    typer.echo(f"this machine: {', '.join(vars(result.numerics).values())}")


def _print_domain(result: DomainStatus, as_json: bool) -> None:
    from mmlora.pipeline.status import LOAD_COLUMNS

    if as_json:
        print_json(result.to_json())
        return
    loads = [{name: getattr(load, name) for name in LOAD_COLUMNS} for load in result.loads]
    _print_rows(f"loads of {result.domain_id}", loads)
    _print_records("ledger", result.ledger, without="domain_id")


def verify(
    domain: DomainOption = None,
    start: Annotated[str | None, typer.Option(help="First score date, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last score date, verified as well.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hash what is published or staged, and the models behind it: any fault ends with exit status 1.

    Rows are counted and hashed, and so are the files of loads that wait for publication, and the manifests
    and parts of the models that loads, champions and challengers name. Each fault is named with the command
    that mends it.

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
        place = f"{row.domain_id} {row.score_date}: " if row.load_id else ""
        note(f"mmlora: {place}{row.fault}; to mend it: {row.mend}")
    if result.faults:
        raise typer.Exit(1)


def _print_verified(result: Verification) -> None:
    columns = ("domain_id", "score_date", "load_id", "rows", "fault")
    for title, kind in (("published rows", "publication"), ("staged loads", "staged load")):
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
