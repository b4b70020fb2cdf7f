"""``mmlora train``, ``promote`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.options import AsOfText, DomainOption, parse_date
from cli.output import JsonFlag, print_json, print_table, progress_bar
from mmlora.names import Adaptation, BackboneName, FeatureGroup, GateInput, SplitName


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(train)
    app.command()(promote)
    app.command()(rollback)


def train(
    as_of: AsOfText,
    phase: Annotated[
        Literal["backbone", "experts", "gate", "all"],
        typer.Argument(help="How far to go; phases already trained are kept."),
    ] = "all",
    backbone: Annotated[BackboneName | None, typer.Option(help="The shared network.")] = None,
    adaptation: Annotated[Adaptation | None, typer.Option(help="How domains adapt it.")] = None,
    features: Annotated[FeatureGroup | None, typer.Option(help="The model's input.")] = None,
    split: Annotated[SplitName | None, typer.Option(help="How rows are held out.")] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="For --split file: user_id, item_id, event_timestamp, split.")
    ] = None,
    experts_per_domain: Annotated[int | None, typer.Option(min=1, help="Experts a domain.")] = None,
    gate: Annotated[GateInput | None, typer.Option(help="What the gate sees.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split and the weights.")] = None,
    domain: DomainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train backbone, experts and gate on what was known at a day, and register the model.

    The first model becomes the champion; a later one is the challenger until `mmlora promote`.

    Example: mmlora train all --as-of 2000-12-30 --backbone wdl --adaptation moe_mlora
    """
    from mmlora.pipeline.training import train as run

    choices: dict[str, Any] = {
        "backbone": backbone,
        "adaptation": adaptation,
        "features": features,
        "split": split,
        "split_file": split_file,
        "experts_per_domain": experts_per_domain,
        "gate": gate,
        "seed": seed,
    }
    with progress_bar(quiet=as_json) as progress:
        result = run(parse_date(as_of), phase=phase, domain=domain, progress=progress, **choices)
    if as_json:
        print_json(result)
    else:
        print_training(result)


def print_training(result: dict[str, Any]) -> None:
    """Print what each phase did, and the test metrics by phase and domain."""
    phases = result["phases"]
    if phases:
        columns = ("phase", "domain", "metric", "start", "best", "epochs", "helped", "seconds")
        print_table(
            f"training run {result['run_id']}", columns, [[row[c] for c in columns] for row in phases]
        )
    if result.get("test"):
        columns = tuple(result["test"][0])
        print_table(
            "test split: auc by phase and domain", columns, [list(row.values()) for row in result["test"]]
        )
    if result.get("model_version"):
        typer.echo(f"model version {result['model_version']} is the {result['alias']}")


def promote(
    version: Annotated[str, typer.Argument(help="The model version, see `mmlora status`.")],
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the promotion.")] = "promoted by hand",
    as_json: JsonFlag = False,
) -> None:
    """Make a model version the champion, for all domains or one.

    Example: mmlora promote 20001230-3fa9c1d2 --why "wauc +0.004 on the last week"
    """
    from mmlora.pipeline.promotion import promote as run

    _print_promotion(run(version, domain=domain, why=why), as_json)


def rollback(
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the promotion.")] = "rolled back by hand",
    as_json: JsonFlag = False,
) -> None:
    """Make the champion before this one the champion again.

    Example: mmlora rollback --domain farmer --why "constant scores"
    """
    from mmlora.pipeline.promotion import rollback as run

    _print_promotion(run(domain=domain, why=why), as_json)


def _print_promotion(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        whose, before = result["domain"] or "all domains", result["before"] or "none"
        typer.echo(f"{result['model_version']} is the champion of {whose} (was {before})")
