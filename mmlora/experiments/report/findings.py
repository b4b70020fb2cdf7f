"""The findings of a report as sentences computed from the figures, with the cautions that they need."""

from __future__ import annotations

from collections.abc import Iterable

from mmlora.experiments.report.questions import QUESTIONS, Question
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import NamedValues, RowKey, Study, Variant
from mmlora.pages.measured import interval, signed


def findings(study: Study) -> list[str]:
    """Return one or two sentences per comparison, in the order of the questions; Markdown."""
    return [_sentence(study, question, candidate) for question, candidate in _asked(study)]


def caution(every: Iterable[Study]) -> str:
    """Return how many clear differences chance alone would give, and the limits of one seed; Markdown."""
    every = list(every)
    differences = [difference for study in every for difference in _by_row(study)]
    if not differences:
        return ""
    count, clear = len(differences), sum(difference.sign != 0 for difference in differences)
    text = (
        "Each comparison uses the same test rows and is made per row of a table. Comparisons with a 95% "
        f"interval without 0: {clear:,} of {count:,}. If all arms were equal, about {count * 0.05:.1f} would "
        "have one by chance: a single one is a hint, not proof."
    )
    if any(len(study.seeds()) == 1 for study in every):
        text += (
            " With one seed, intervals cover the variation of test users only, not that of training, so they "
            "are too narrow."
        )
    return text


def nothing_compared(every: Iterable[Study]) -> str:
    """Return why there are no findings, and what would give some; Markdown."""
    arms = dict.fromkeys(variant.arm for study in every for variant in study.main_variants())
    names = ", ".join(f"`{arm}`" for arm in arms) or "no arm"
    return (
        "Nothing is compared: findings need an arm and its baseline on the same test rows, and there is only "
        f"{names}. Add arms to the grid, such as `pooled_domain`, with which `mlora` is compared."
    )


def left_out(study: Study) -> str:
    """Return which domains have no AUC and so are not in the means; empty if there are none."""
    without_auc = [cell.raw["test"].get("without_auc") or () for cell in study.all_cells()]
    names = sorted({name for domains in without_auc for name in domains})
    if not names:
        return ""
    return f"Left out of means because all of their test rows have the same label: {', '.join(names)}."


def spread(study: Study) -> str:
    """Return the standard deviation over seeds of wauc and of paired differences; empty with one seed."""
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
    text = f"Over seeds, an arm's wauc has a standard deviation of {_mean(own):.4f} (mean over the table)"
    return f"{text}{f', its paired difference to `pooled_domain` {_mean(pairs):.4f}' if pairs else ''}."


def _asked(study: Study) -> list[tuple[Question, Variant]]:
    """Return the questions whose arms the study has, with the candidate's variant."""
    mains = {variant.arm: variant for variant in study.main_variants()}
    return [
        (question, mains[question.candidate])
        for question in QUESTIONS
        if question.candidate in mains and study.paired_rows(mains[question.candidate], question.baseline)
    ]


def _by_row(study: Study) -> list[Estimate]:
    return [
        difference
        for question, candidate in _asked(study)
        for row in study.paired_rows(candidate, question.baseline)
        if (difference := study.difference([row], candidate, question.baseline)) is not None
    ]


def _sentence(study: Study, question: Question, candidate: Variant) -> str:
    asks = f"{question.asks[0].upper()}{question.asks[1:]}"
    rows = study.paired_rows(candidate, question.baseline)
    overall = study.difference(rows, candidate, question.baseline)
    if overall is None:
        return f"{asks} The rows have no seed in common; see the tables."
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    on = backbones[0] if len(backbones) == 1 else f"the mean of {len(backbones)} backbones"
    seeds = f"{overall.seeds} seed{'s' * (overall.seeds != 1)}"
    verdict = _verdict(f"`{study.label(candidate)}`", f"`{question.baseline}`", overall)
    text = f"{asks} {verdict} on {on}, {study.data}, {seeds}."
    return text if len(rows) == 1 else f"{text} {_row_by_row(study, question, candidate, rows)}"


def _verdict(candidate: str, baseline: str, difference: Estimate) -> str:
    if difference.value == 0 and difference.low == difference.high == 0:
        return f"{candidate} and {baseline} have equal scores for every row"
    figures = f"{signed(difference.value)} wauc {interval(difference)}"
    if difference.sign > 0:
        return f"{candidate} is above {baseline}: {figures}"
    if difference.sign < 0:
        return f"{candidate} is below {baseline}: {figures}"
    return f"No difference beyond noise between {candidate} and {baseline}: {figures}"


def _row_by_row(study: Study, question: Question, candidate: Variant, rows: list[RowKey]) -> str:
    by_row = [
        (difference, row)
        for row in rows
        if (difference := study.difference([row], candidate, question.baseline))
    ]
    kind = "settings" if study.dials else "backbones"
    signs = [difference.sign for difference, _ in by_row]
    counts = [(signs.count(1), "above"), (signs.count(-1), "below"), (signs.count(0), "within noise")]
    text = f"Individually: {', '.join(f'{side} on {n}' for n, side in counts if n)} of {len(by_row)} {kind}"
    if not study.dials or len(by_row) < 2:
        return f"{text}."
    low, high = min(by_row, key=lambda pair: pair[0].value), max(by_row, key=lambda pair: pair[0].value)
    return (
        f"{text}; from {signed(low[0].value)} ({_dial_text(low[1].dials)}) to {signed(high[0].value)} "
        f"({_dial_text(high[1].dials)})."
    )


def _dial_text(dials: NamedValues) -> str:
    return ", ".join(f"{name} {value}" for name, value in dials)


def _spreads(estimates: Iterable[Estimate | None]) -> list[float]:
    spreads = [estimate.seed_spread for estimate in estimates if estimate is not None]
    return [spread for spread in spreads if spread is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
