"""``mmlora promote`` and ``rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora.errors import UsageError
from mmlora_cli.options import AcceptBelowBaseline, DomainOption
from mmlora_cli.output import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from mmlora.judging.promotion import Compared, Evidence
    from mmlora.pipeline.promote import PromotionOutcome

BY_HAND = "promoted by hand"


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(promote)
    app.command()(rollback)


def promote(
    version: Annotated[str, typer.Argument(help="The model version, see `mmlora status`.")],
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, stored with the promotion.")] = BY_HAND,
    accept_below_baseline: AcceptBelowBaseline = False,
    accept_worse: Annotated[
        bool, typer.Option("--accept-worse", help="Accept a model that is worse than the champion.")
    ] = False,
    by_policy: Annotated[
        bool,
        typer.Option("--by-policy", help="Promote the challenger where the settings [promotion] allow it."),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the comparison and what the policy says; promote nothing."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a model version the champion, for all domains or one.

    It is compared with the champion by domain, on rows that neither has seen; the comparison is stored with
    the decision. A version that is worse in a domain that matters is refused without --accept-worse, and one
    below its best baseline without --accept-below-baseline.

    Example: mmlora promote 20001230-3fa9c1d2 --why "wauc +0.004 on the last week"

    Example: mmlora promote 20001230-3fa9c1d2 --explain
    """
    from mmlora.pipeline.promote import promote as run

    if by_policy or explain:
        if by_policy and explain:
            raise UsageError("--explain decides nothing: give it without --by-policy")
        if domain or accept_worse or accept_below_baseline or why != BY_HAND:
            raise UsageError("--by-policy and --explain take the version only: the settings decide the rest")
        _by_policy(version, explain, as_json)
        return
    result = run(
        version,
        domain=domain,
        why=why,
        accept_below_baseline=accept_below_baseline,
        accept_worse=accept_worse,
    )
    _print_promotion(result, as_json)


def _by_policy(version: str, explain: bool, as_json: bool) -> None:
    from mmlora.pipeline import promote_by_policy as policy

    result = policy.explain(version) if explain else policy.promote_by_policy(version)
    if as_json:
        print_json(result.to_json())
        return
    if result.evidence:
        print_evidence(result.evidence)
    prefix = "by the policy " if explain else ""
    typer.echo(f"{prefix}{version} {policy.described(result.ruling)}")


def rollback(
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, stored with the promotion.")] = "rolled back by hand",
    as_json: JsonFlag = False,
) -> None:
    """Make the previous champion the champion again.

    Example: mmlora rollback --domain farmer --why "constant scores"
    """
    from mmlora.pipeline.promote import rollback as run

    _print_promotion(run(domain=domain, why=why), as_json)


def _print_promotion(result: PromotionOutcome, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
        return
    if result.evidence:
        print_evidence(result.evidence)
    whose, before = result.domain or "all domains", result.before or "none"
    typer.echo(f"{result.model_version} is the champion of {whose} (was {before})")
    for name, version in result.own_before.items():
        typer.echo(f"{name} had a champion of its own: {version}")


def print_evidence(evidence: Evidence) -> None:
    """Print the comparison of a challenger with the champions, by domain."""
    columns = (
        *("domain", "champion", "rows", "clicks", "auc", "champion's"),
        *("difference", f"{evidence.level:.2%} interval", "challenger is", "note"),
    )
    when = (
        f"of {evidence.first:%Y-%m-%d} to {evidence.last:%Y-%m-%d}"
        if evidence.first and evidence.last
        else ""
    )
    print_table(
        f"{evidence.challenger} and the champion on rows {when} that neither has seen (all domains: wauc)",
        columns,
        [_row(each) for each in (*evidence.domains, evidence.pooled)],
    )


def _row(each: Compared) -> list[object]:
    interval = None if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}"
    return [
        *(each.domain, each.champion, each.rows, each.clicks, each.auc, each.champion_auc),
        *(each.difference, interval, each.standing, each.note or None),
    ]
