"""How a judgement is printed: the model beside its baselines, and the lists that it would give."""

from __future__ import annotations

from typing import Any

import typer

from mmlora_cli.output import format_value, print_table

_MODEL = "model"


def print_judgement(judgement: dict[str, Any]) -> None:
    """Print every table of a judgement, and the sentence last."""
    if compared := [row for row in judgement["contenders"] if "wauc" in row]:
        _print_contenders(judgement)
        _print_domains(judgement, compared)
        _print_shown(judgement["shown"])
        _print_lists(judgement["lists"])
        _print_cold(judgement)
    if judgement.get("refit"):
        typer.echo(
            "these figures are of the model before it was trained on all rows, which is what is registered"
        )
    typer.echo(judgement["sentence"])


def _print_contenders(judgement: dict[str, Any]) -> None:
    rows = []
    for row in judgement["contenders"]:
        difference = row.get("difference", {}).get("wauc", {})
        figures = [row.get(name) for name in ("auc", "logloss", "calibration")]
        gap = [difference.get("value"), _interval(difference)]
        rows.append([row["name"], row.get("wauc"), *gap, *figures, round(row["seconds"]), row["note"]])
    columns = (
        "contender",
        "wauc",
        "model less it",
        "95%",
        "auc",
        "logloss",
        "calibration",
        "seconds",
        "note",
    )
    of = "" if judgement["rows"] == judgement["test_rows"] else f" (a sample of {judgement['test_rows']:,})"
    title = f"the model beside its baselines, on the same {judgement['rows']:,} test rows{of}"
    print_table(title, columns, rows)


def _print_domains(judgement: dict[str, Any], compared: list[dict[str, Any]]) -> None:
    """Print auc and calibration by domain, and the difference to the best baseline."""
    names = [row["name"] for row in compared]
    best = next((row for row in compared if row["name"] == judgement["best_baseline"]), None)
    aucs, calibrations = [], []
    for domain, model in compared[0]["by_domain"].items():
        own = [row["by_domain"][domain] for row in compared]
        difference = {} if best is None else best["difference"]["by_domain"][domain]
        gap = [difference.get("value"), _interval(difference)]
        aucs.append([domain, model["rows"], model["clicks"], *(figures["auc"] for figures in own), *gap])
        calibrations.append([domain, model["clicks"], *(figures["calibration"] for figures in own)])
    columns = ("domain", "rows", "clicks", *names, "model less the best", "95%")
    print_table("test rows: auc by domain", columns, aucs)
    print_table("test rows: sum of scores over clicks, by domain", ("domain", "clicks", *names), calibrations)


def _print_shown(shown: dict[str, Any]) -> None:
    columns = tuple(shown["contenders"][0])
    when = f"on {shown['day']}" if shown["day"] else "in all test rows"
    title = f"what was shown {when} ({shown['rows']:,} rows, {shown['lists']:,} lists), as each would rank it"
    print_table(title, columns, [list(row.values()) for row in shown["contenders"]])


def _print_lists(lists: list[dict[str, Any]]) -> None:
    """Print a row a domain: how alike the lists of its users are, by the model and by its baseline."""
    names = list(dict.fromkeys(row["name"] for row in lists))
    by_domain: dict[str, list[dict[str, Any]]] = {}
    for row in lists:
        by_domain.setdefault(row["domain"], []).append(row)
    figures = ("most_common_first", "coverage")
    rows = [
        [domain, own[0]["users"], own[0]["items"], *(row[figure] for figure in figures for row in own)]
        for domain, own in by_domain.items()
    ]
    columns = (*(f"same first, {name}" for name in names), *(f"coverage, {name}" for name in names))
    print_table("a night's lists of a sample of users", ("domain", "users", "items", *columns), rows)


def _print_cold(judgement: dict[str, Any]) -> None:
    """Print auc and log loss by the training rows of the user and of the item."""
    rows, names = [], [_MODEL]
    for entity, table in judgement["cold"].items():
        for row in table:
            names = list(row["by"])
            figures = [row["by"][name][figure] for figure in ("auc", "logloss") for name in names]
            rows.append([entity, row["training_rows"], row["rows"], row["clicks"], *figures])
    columns = (*(f"auc, {name}" for name in names), *(f"logloss, {name}" for name in names))
    print_table(
        "test rows by training rows of the user, and of the item",
        ("of the", "seen", "rows", "clicks", *columns),
        rows,
    )


def _interval(difference: dict[str, Any]) -> str | None:
    low = difference.get("low")
    return None if low is None else f"{format_value(low)} to {format_value(difference['high'])}"
