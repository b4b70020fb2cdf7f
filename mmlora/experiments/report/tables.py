"""The tables of a report."""

from __future__ import annotations

from mmlora.experiments.report.questions import BASELINES, QUESTIONS
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import RowKey, Study, Variant
from mmlora.pages.measured import interval, signed
from mmlora.pages.tables import Entry, Mark, ReportTable


def result_table(study: Study) -> ReportTable:
    """Return the main table: wauc of every arm."""
    rows = []
    for row in study.rows:
        means = {variant: study.mean([row], variant) for variant in study.variants}
        best = _best(study, row, means)
        entries = [_wauc(study, means[variant], variant == best) for variant in study.variants]
        rows.append((_name(row), *entries))
    note = (
        f"Mean over {_seeds(study)} ± half of its 95% interval. The best arm for a {_row_kind(study)} is in "
        "bold only if its paired difference to every other arm has an interval without 0. These intervals "
        "include variation that arms share (easy and hard test users), so compare arms by the tables of "
        "differences, not by whether the intervals overlap."
    )
    labels = [study.label(variant) for variant in study.variants]
    return _narrow(ReportTable("Test wauc", note, (_row_kind(study), *labels), rows))


def difference_tables(study: Study) -> list[ReportTable]:
    """Return a table of paired differences for each baseline arm that the study has."""
    tables = []
    for arm in BASELINES:
        columns = [v for v in study.variants if v.arm != arm and study.paired_rows(v, arm)]
        if not columns:
            continue
        rows: list[tuple[Entry, ...]] = [
            (_name(row), *(_difference(study, study.difference([row], v, arm)) for v in columns))
            for row in study.rows
        ]
        if len(study.rows) > 1:
            means = [_difference(study, study.difference(study.rows, v, arm)) for v in columns]
            rows.append((Entry("mean"), *means))
        note = (
            f"Paired on the same test rows: an arm's wauc minus that of `{arm}`, mean over {_seeds(study)}, "
            "with its 95% interval. ▲ above and ▼ below mark intervals without 0."
        )
        head = (_row_kind(study), *(study.label(v) for v in columns))
        tables.append(_narrow(ReportTable(f"Difference to {arm}", note, head, rows)))
    return tables


def question_table(study: Study) -> ReportTable | None:
    """Return a table of the questions' comparisons, by backbone and overall; None if there are none."""
    mains = {variant.arm: variant for variant in study.main_variants()}
    groups = [[row for row in study.rows if row.backbone == name] for name in study.backbones]
    over_all = [list(study.rows)] if len(groups) > 1 else []
    rows: list[tuple[Entry, ...]] = []
    for question in QUESTIONS:
        candidate = mains.get(question.candidate)
        if candidate is None or not study.paired_rows(candidate, question.baseline):
            continue
        asked = Entry(f"{study.label(candidate)} - {question.baseline}", question.asks)
        differences = [
            study.difference(group, candidate, question.baseline) for group in [*groups, *over_all]
        ]
        rows.append((asked, *(_difference(study, difference) for difference in differences)))
    if not rows:
        return None
    over = f", averaged over {' and '.join(study.dials)}" if study.dials else ""
    note = (
        f"Paired differences of test wauc{over}, mean over {_seeds(study)}, with 95% intervals. An arm with "
        "several variants is represented by the one that most backbones have and, of equals, by the one with "
        "the best wauc on validation rows."
    )
    head = ("comparison", *study.backbones, *("all backbones" for _ in over_all))
    return ReportTable("What each part contributes", note, head, rows)


def _narrow(table: ReportTable) -> ReportTable:
    """Transpose a table that is wider than a page, if that makes it narrower."""
    columns = len(table.head) - 1
    if columns <= 8 or columns <= len(table.rows):
        return table
    head = ("arm", *(row[0].main for row in table.rows))
    rows = [
        (Entry(label), *(row[i] for row in table.rows)) for i, label in enumerate(table.head[1:], start=1)
    ]
    return ReportTable(table.title, table.note, head, rows, table.folded)


def _best(study: Study, row: RowKey, means: dict[Variant, Estimate | None]) -> Variant | None:
    known = {variant: mean.value for variant, mean in means.items() if mean is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda variant: known[variant])
    for other in known:
        if other != best:
            difference = study.difference([row], best, other)
            if difference is None or difference.sign <= 0:
                return None
    return best


def _wauc(study: Study, mean: Estimate | None, best: bool) -> Entry:
    if mean is None:
        return Entry("–", mark="soft")
    width = "" if mean.half is None else f"± {mean.half:.4f}"
    return Entry(f"{mean.value:.4f}", width + _other_seeds(study, mean), "best" if best else "")


def _difference(study: Study, estimate: Estimate | None) -> Entry:
    if estimate is None:
        return Entry("–", mark="soft")
    if estimate.value == 0 and estimate.low == estimate.high == 0:
        return Entry("0", "same scores", "soft")
    mark: Mark = "up" if estimate.sign > 0 else "down" if estimate.sign < 0 else ""
    return Entry(signed(estimate.value), interval(estimate) + _other_seeds(study, estimate), mark)


def _other_seeds(study: Study, estimate: Estimate) -> str:
    """Return the number of seeds of an estimate if it does not have all of the study's."""
    if estimate.seeds == len(study.seeds()):
        return ""
    return f" · {estimate.seeds} seed{'s' * (estimate.seeds != 1)}"


def _seeds(study: Study) -> str:
    count = len(study.seeds())
    return f"{count} seeds" if count > 1 else "1 seed (so intervals cover the variation of test users only)"


def _name(row: RowKey) -> Entry:
    return Entry(", ".join([*(f"{name} {value}" for name, value in row.dials), row.backbone]))


def _row_kind(study: Study) -> str:
    return "setting" if study.dials else "backbone"
