"""Print a judgement: the model beside its baselines, and the lists that each would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from mmlora_cli.output import format_value, print_table

if TYPE_CHECKING:
    from mmlora.judgement import Coldness, Judgement, ListRow, Shown
    from mmlora.metrics import Interval

_MODEL = "model"


def print_judgement(judgement: Judgement) -> None:
    """Print the tables of a judgement, then its sentence."""
    if judgement.compared:
        _print_contenders(judgement)
        _print_domains(judgement)
        _print_shown(judgement.shown)
        _print_lists(judgement.lists)
        _print_cold(judgement.cold)
    if judgement.refit:
        typer.echo(
            "these figures are of the model before its final training on all rows, which is registered"
        )
    typer.echo(judgement.sentence)


def _print_contenders(judgement: Judgement) -> None:
    rows = []
    for row in judgement.contenders:
        gap = _gap(row.difference.wauc if row.difference else None)
        figures = [row.auc, row.logloss, row.calibration]
        rows.append([row.name, row.wauc, *gap, *figures, round(row.seconds), row.note])
    columns = (
        "contender",
        "wauc",
        "model minus it",
        "95%",
        "auc",
        "logloss",
        "calibration",
        "seconds",
        "note",
    )
    of = "" if judgement.rows == judgement.test_rows else f" (a sample of {judgement.test_rows:,})"
    title = f"the model beside its baselines, on the same {judgement.rows:,} test rows{of}"
    print_table(title, columns, rows)


def _print_domains(judgement: Judgement) -> None:
    """Print AUC and calibration by domain, and the difference from the best baseline."""
    tables = {row.name: row.by_domain for row in judgement.compared if row.by_domain is not None}
    names = list(tables)
    aucs, calibrations = [], []
    for domain, model in tables[_MODEL].items():
        own = [table[domain] for table in tables.values()]
        gap = _gap(judgement.best.by_domain[domain] if judgement.best else None)
        aucs.append([domain, model.rows, model.clicks, *(figures.auc for figures in own), *gap])
        calibrations.append([domain, model.clicks, *(figures.calibration for figures in own)])
    columns = ("domain", "rows", "clicks", *names, "model minus the best", "95%")
    print_table("test rows: auc by domain", columns, aucs)
    print_table("test rows: sum of scores over clicks, by domain", ("domain", "clicks", *names), calibrations)


def _print_shown(shown: Shown) -> None:
    columns = ("name", "ctr_at_1", "ctr_at_5", "ndcg_at_5", "calibration")
    when = f"on {shown.day}" if shown.day else "in all test rows"
    title = (
        f"the items shown {when} ({shown.rows:,} rows, {shown.lists:,} lists), as ranked by each contender"
    )
    print_table(title, columns, [[getattr(row, name) for name in columns] for row in shown.contenders])


def _print_lists(lists: Sequence[ListRow]) -> None:
    """Print one row per domain: how similar its users' lists are, for the model and its baseline."""
    names = list(dict.fromkeys(row.name for row in lists))
    by_domain: dict[str, list[ListRow]] = {}
    for row in lists:
        by_domain.setdefault(row.domain, []).append(row)
    rows = [
        [
            *(domain, own[0].users, own[0].items),
            *(row.most_common_first for row in own),
            *(row.coverage for row in own),
        ]
        for domain, own in by_domain.items()
    ]
    columns = (*(f"same first, {name}" for name in names), *(f"coverage, {name}" for name in names))
    print_table("a night's lists of a sample of users", ("domain", "users", "items", *columns), rows)


def _print_cold(cold: Coldness) -> None:
    """Print AUC and log loss by the number of training rows of the user, and of the item."""
    rows, names = [], [_MODEL]
    for entity, bands in (("user", cold.user), ("item", cold.item)):
        for band in bands:
            names = list(band.by)
            figures = [*(own.auc for own in band.by.values()), *(own.logloss for own in band.by.values())]
            rows.append([entity, band.training_rows, band.rows, band.clicks, *figures])
    columns = (*(f"auc, {name}" for name in names), *(f"logloss, {name}" for name in names))
    print_table(
        "test rows by the number of training rows of the user, and of the item",
        ("entity", "training rows", "rows", "clicks", *columns),
        rows,
    )


def _gap(difference: Interval | None) -> tuple[float | None, str | None]:
    """Return the value and the interval of a difference, as two cells."""
    if difference is None:
        return None, None
    if difference.low is None:
        return difference.value, None
    return difference.value, f"{format_value(difference.low)} to {format_value(difference.high)}"
