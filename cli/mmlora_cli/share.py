"""``mmlora share``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import AsOfText, parse_date
from mmlora_cli.output import JsonFlag, note, print_json, print_table

if TYPE_CHECKING:
    from mmlora.pipeline.share import SharedDomain


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(share)


def share(
    as_of: AsOfText,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Only this domain (repeatable); default: all without an expert of their own."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, but change no champion.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give domains without an expert those of similar domains, or one of their own, where that helps.

    For domains that are new since the champion was trained, or that were too small for an expert. Only rows
    that the champion wasn't trained on decide, and what gains no more than noise is not used. No other
    domain's scores change; `mmlora rollback --domain NAME` undoes it. Without --domain, a domain that fails
    does not stop the others; the exit status is then 1 (75 if a retry may help).

    Example: mmlora share --as-of 2001-01-07

    Example: mmlora share --as-of 2001-01-07 --domain farmer --dry-run
    """
    from mmlora.pipeline.share import share_experts

    results = share_experts(parse_date(as_of), domains=domain or (), dry_run=dry_run)
    if as_json:
        print_json([result.to_json() for result in results])
    elif results:
        columns = ("domain", "experts", "from", "rows", "gain", "reason", "champion")
        print_table("experts of domains without their own", columns, [_row(result) for result in results])
    else:
        typer.echo(
            "nothing to do: each domain has an expert of its own, a champion without any, or no champion"
        )
    failed = [result for result in results if result.exit_code]
    for result in failed:
        note(f"mmlora: {result.domain_id}: {result.reason}")
    if codes := {result.exit_code for result in failed}:
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _row(result: SharedDomain) -> list[object]:
    mixture = ", ".join(f"{name} {weight:.2f}" for name, weight in result.experts.items())
    gain = ""
    if result.gain is not None:
        value, low, high = result.gain
        gain = f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
    version = result.model_version
    champion = version if version != result.before else f"{version} (as before)"
    return [result.domain_id, result.policy, mixture, result.rows, gain, result.reason, champion]
