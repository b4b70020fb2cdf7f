"""``mmlora metrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlora.errors import UsageError
from mmlora_cli.options import HomeOption, UrlOption
from mmlora_cli.output import JsonFlag, note, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(metrics)


def metrics(
    serve: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Serve them on this port; 0 takes a free one."),
    ] = None,
    address: Annotated[str, typer.Option(help="The address that --serve listens on.")] = "127.0.0.1",
    textfile: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Replace this file of node_exporter's textfile collector (*.prom)."
        ),
    ] = None,
    home: HomeOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the state of nights, loads, checks and champions as metrics for Prometheus.

    They are computed from the warehouse. With --serve they are computed whenever they are scraped, until the
    command is interrupted. Nobody has to log in, so listen on other addresses only behind a firewall.

    Example: mmlora metrics

    Example: mmlora metrics --serve 9464

    Example: mmlora metrics --textfile /var/lib/node_exporter/mmlora.prom
    """
    from mmlora.pipeline.metrics import metrics as run
    from mmlora.telemetry.prometheus import as_text, write_textfile

    if sum([serve is not None, textfile is not None, as_json]) > 1:
        raise UsageError("--serve, --textfile and --json are three ways to get the metrics: give one of them")
    if serve is not None:
        _serve(serve, address, home, url)
        return
    figures = run(home=home, url=url)
    if as_json:
        rows = [{"name": f.metric.name, **f.named_labels, "value": f.value} for f in figures]
        print_json(rows)
    elif textfile is None:
        typer.echo(as_text(figures), nl=False)
    elif not textfile.parent.is_dir():
        raise UsageError(f"--textfile {textfile}: there is no folder {textfile.parent}; create it first")
    else:
        write_textfile(textfile, figures)


def _serve(port: int, address: str, home: Path | None, url: str | None) -> None:
    from mmlora.pipeline.metrics import metrics as run
    from mmlora.telemetry.prometheus import serve

    try:
        port, thread = serve(lambda: run(home=home, url=url), port=port, address=address)
    except OSError as error:
        raise UsageError(
            f"can't listen on {address} port {port}: {error.strerror or error}; give another --serve PORT"
        ) from None
    note(f"serving http://{address}:{port}/metrics")
    try:
        thread.join()
    except KeyboardInterrupt:
        note("stopped")
