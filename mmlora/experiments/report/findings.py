"""What was found, in plain sentences computed from the numbers, and the caution they need."""

from __future__ import annotations

from collections.abc import Iterable

from mmlora.experiments.report.questions import QUESTIONS, Question
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import NamedValues, RowKey, Study, Variant
from mmlora.experiments.report.tables import interval, signed


def findings(study: Study) -> list[str]:
    """Return a sentence or two a comparison, in the order of the questions; Markdown."""
    return [_sentence(study, question, candidate) for question, candidate in _asked(study)]


def caution(every: Iterable[Study]) -> str:
    """Return how many intervals without 0 chance alone would give, and what one seed can't say; Markdown."""
    every = list(every)
    rows = [found for study in every for found in _by_row(study)]
    if not rows:
        return ""
    clear = sum(found.sign != 0 for found in rows)
    said = (
        f"Each comparison is made on the same test rows, row by row of the tables: {len(rows):,} in all, of "
        "which "
        f"{clear:,} have a 95% interval without 0. Were all arms alike, about {len(rows) * 0.05:.1f} would "
        "have: a "
        "single one is a hint, not proof."
    )
    if any(len(study.seeds()) == 1 for study in every):
        said += (
            " Where there is one seed, intervals hold the luck of test rows only, not that of training: "
            "they are "
            "too narrow."
        )
    return said


def nothing_compared(every: Iterable[Study]) -> str:
    """Return why there are no findings, and what would give some; Markdown."""
    arms = dict.fromkeys(variant.arm for study in every for variant in study.main_variants())
    held = ", ".join(f"`{arm}`" for arm in arms) or "no arm"
    return (
        "Nothing is compared: findings need an arm and its baseline on the same test rows, and here "
        f"is {held} alone. Add arms to the grid, such as `pooled_domain`, with which `mlora` is compared."
    )


def left_out(study: Study) -> str:
    """Return which domains have no AUC and so no part in means; empty where all have."""
    held = [cell.raw["test"].get("without_auc") or () for cell in study.all_cells()]
    names = sorted({name for each in held for name in each})
    if not names:
        return ""
    return f"Left out of means where their test rows have one class of label only: {', '.join(names)}."


def spread(study: Study) -> str:
    """Return how far seeds lie apart, of an arm by itself and of paired differences; empty with one seed."""
    variants = study.main_variants()
    own = _spreads(study.mean([row], v) for row in study.rows for v in variants)
    pairs = _spreads(
        study.difference([row], v, "pooled_domain")
        for v in variants
        if v.arm != "pooled_domain"
        for row in study.paired_rows(v, "pooled_domain")
    )
    if not own:
        return ""
    said = f"Between seeds, an arm's wauc has a standard deviation of {_mean(own):.4f} (mean over the table)"
    return f"{said}{f', its paired difference to `pooled_domain` {_mean(pairs):.4f}' if pairs else ''}."


def _asked(study: Study) -> list[tuple[Question, Variant]]:
    """The questions that the study has the arms for, with the candidate's variant."""
    mains = {variant.arm: variant for variant in study.main_variants()}
    return [
        (question, mains[question.candidate])
        for question in QUESTIONS
        if question.candidate in mains and study.paired_rows(mains[question.candidate], question.baseline)
    ]


def _by_row(study: Study) -> list[Estimate]:
    return [
        found
        for question, candidate in _asked(study)
        for row in study.paired_rows(candidate, question.baseline)
        if (found := study.difference([row], candidate, question.baseline)) is not None
    ]


def _sentence(study: Study, question: Question, candidate: Variant) -> str:
    asks = f"{question.asks[0].upper()}{question.asks[1:]}"
    rows = study.paired_rows(candidate, question.baseline)
    whole = study.difference(rows, candidate, question.baseline)
    if whole is None:
        return f"{asks} The rows have no seed in common; see the tables."
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    on = backbones[0] if len(backbones) == 1 else f"the mean of {len(backbones)} backbones"
    seeds = f"{whole.seeds} seed{'s' * (whole.seeds != 1)}"
    verdict = _verdict(f"`{study.label(candidate)}`", f"`{question.baseline}`", whole)
    said = f"{asks} {verdict} on {on}, {study.data}, {seeds}."
    return said if len(rows) == 1 else f"{said} {_row_by_row(study, question, candidate, rows)}"


def _verdict(candidate: str, baseline: str, found: Estimate) -> str:
    if found.value == 0 and found.low == found.high == 0:
        return f"{candidate} and {baseline} score alike, row by row,"
    numbers = f"{signed(found.value)} wauc {interval(found)}"
    if found.sign > 0:
        return f"{candidate} is above {baseline}: {numbers}"
    if found.sign < 0:
        return f"{candidate} is below {baseline}: {numbers}"
    return f"No difference beyond noise between {candidate} and {baseline}: {numbers}"


def _row_by_row(study: Study, question: Question, candidate: Variant, rows: list[RowKey]) -> str:
    each = [(found, row) for row in rows if (found := study.difference([row], candidate, question.baseline))]
    kind = "settings" if study.dials else "backbones"
    signs = [found.sign for found, _ in each]
    counts = [(signs.count(1), "above"), (signs.count(-1), "below"), (signs.count(0), "within noise")]
    said = f"One by one: {', '.join(f'{what} on {n}' for n, what in counts if n)} of {len(each)} {kind}"
    if not study.dials or len(each) < 2:
        return f"{said}."
    low, high = min(each, key=lambda f: f[0].value), max(each, key=lambda f: f[0].value)
    return (
        f"{said}; from {signed(low[0].value)} ({_place(low[1].dials)}) to {signed(high[0].value)} "
        f"({_place(high[1].dials)})."
    )


def _place(dials: NamedValues) -> str:
    return ", ".join(f"{name} {value}" for name, value in dials)


def _spreads(found: Iterable[Estimate | None]) -> list[float]:
    return [each.seed_spread for each in found if each is not None and each.seed_spread is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
