"""Group an experiment's cells into studies (data, features, split) with rows, columns and seeds.

A *study* is the content of one table. Its rows are the backbones and the values of the *dials*, i.e. settings
that change the data (such as the diversity of synthetic data), so that each data key has one value of them.
Its columns are *variants*: an arm with its experts, gate and other settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmlora.experiments.arms import ARMS, ArmName
from mmlora.experiments.report.reading import CellResult, Domain, Results
from mmlora.experiments.report.statistics import Estimate, Evidence, Term

NamedValues = tuple[tuple[str, Any], ...]
"""Names and values, hashable."""
BySeed = Mapping[int, CellResult]


@dataclass(frozen=True)
class Variant:
    """An arm with its experts, gate and other settings."""

    arm: ArmName
    experts: int
    gate: str | None
    settings: NamedValues


@dataclass(frozen=True)
class RowKey:
    """A row of a study: values of the dials, and a backbone."""

    dials: NamedValues
    backbone: str


@dataclass(frozen=True, eq=False)
class Study:
    """The cells of one data set, feature group and split.

    Attributes:
        data: the data set.
        features: the feature group.
        split: how rows are held out.
        dials: names of the settings that vary and change the data.
        cells: cells by row, variant and seed; variants in the order of the columns.
        variants: the columns, in order.
        evidence: the AUCs of the experiment.
    """

    data: str
    features: str
    split: str
    dials: tuple[str, ...]
    cells: Mapping[RowKey, Mapping[Variant, BySeed]]
    variants: tuple[Variant, ...]
    evidence: Evidence

    @property
    def title(self) -> str:
        """Name of the study."""
        return f"{self.data}, {self.features} features, {self.split} split"

    @property
    def slug(self) -> str:
        """Name of the study for anchors and files."""
        return "-".join(part.replace("_", "-") for part in (self.data, self.features, self.split))

    @property
    def rows(self) -> tuple[RowKey, ...]:
        """The rows, in order."""
        return tuple(self.cells)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones, in order."""
        return tuple(dict.fromkeys(row.backbone for row in self.cells))

    def seeds(self) -> tuple[int, ...]:
        """The seeds of all cells, sorted."""
        seeds = {seed for row in self.cells.values() for by_seed in row.values() for seed in by_seed}
        return tuple(sorted(seeds))

    def all_cells(self, rows: Iterable[RowKey] | None = None) -> list[CellResult]:
        """Return the cells of some rows, or of all."""
        by_row = self.cells.values() if rows is None else [self.cells[row] for row in rows]
        return [cell for row in by_row for by_seed in row.values() for cell in by_seed.values()]

    def label(self, variant: Variant) -> str:
        """Return the name of a variant: its arm, and how it differs from the arm's other variants."""
        others = [other for other in self.variants if other.arm == variant.arm]
        parts = []
        if len({other.experts for other in others}) > 1:
            parts.append(f"{variant.experts} expert{'s' * (variant.experts != 1)}")
        if len({other.gate for other in others}) > 1 and variant.gate:
            parts.append(f"gate {variant.gate}")
        own = dict(variant.settings)
        names = sorted({name for other in others for name, _ in other.settings})
        varied = [name for name in names if len({dict(other.settings).get(name) for other in others}) > 1]
        parts += [f"{name} {own[name]}" for name in varied if name in own]
        return ", ".join([variant.arm, *parts])

    def mean(self, rows: Iterable[RowKey], variant: Variant) -> Estimate | None:
        """Return the mean wauc of a variant over rows and seeds.

        Args:
            rows: the rows; those without the variant are left out.
            variant: the variant. Only the seeds that it has in all rows are used.
        """
        cells = [self.cells[row][variant] for row in rows if variant in self.cells[row]]
        if not cells:
            return None
        seeds = sorted(set.intersection(*({*by_seed} for by_seed in cells)))
        weight = 1.0 / len(cells)
        return self.evidence.estimate([Term(by_seed[seed], weight) for seed in seeds for by_seed in cells])

    def baseline(self, row: RowKey, candidate: Variant, arm: str) -> Variant | None:
        """Return the row's variant of ``arm`` most similar to the candidate; None if there is none."""
        variants = [variant for variant in self.cells[row] if variant.arm == arm and variant != candidate]
        return max(variants, key=lambda other: _similarity(candidate, other), default=None)

    def difference(
        self, rows: Iterable[RowKey], candidate: Variant, baseline: Variant | str, domain: str | None = None
    ) -> Estimate | None:
        """Return candidate - baseline, averaged over rows, on the seeds that all rows have.

        Args:
            rows: the rows; those without both variants are left out.
            candidate: a variant.
            baseline: another variant, or an arm, of which the most similar variant is used.
            domain: the domain whose AUC is compared; None for wauc.
        """
        pairs = [pair for row in rows if (pair := self._pair(row, candidate, baseline)) is not None]
        if not pairs:
            return None
        seeds = set.intersection(*({*a} & {*b} for a, b in pairs))
        weight = 1.0 / len(pairs)
        terms = [
            term
            for a, b in pairs
            for seed in sorted(seeds)
            for term in (Term(a[seed], weight), Term(b[seed], -weight))
        ]
        return self.evidence.estimate(terms, domain)

    def paired_rows(self, candidate: Variant, baseline: Variant | str) -> list[RowKey]:
        """Return the rows in which the two can be compared, i.e. have a seed in common."""
        return [row for row in self.cells if self._pair(row, candidate, baseline) is not None]

    def _pair(self, row: RowKey, candidate: Variant, baseline: Variant | str) -> tuple[BySeed, BySeed] | None:
        other = self.baseline(row, candidate, baseline) if isinstance(baseline, str) else baseline
        cells = self.cells[row]
        if other is None or candidate not in cells or other not in cells:
            return None
        a, b = cells[candidate], cells[other]
        return (a, b) if {*a} & {*b} else None

    def main_variants(self) -> list[Variant]:
        """Return one variant per arm.

        It is the variant with most cells, so that backbones can be compared; of equals, the one with the best
        mean wauc on *validation* rows, so that test rows do not influence the choice.
        """
        best: dict[str, Variant] = {}
        for variant in self.variants:
            other = best.get(variant.arm)
            if other is None or self._preference(variant) > self._preference(other):
                best[variant.arm] = variant
        return list(best.values())

    def _preference(self, variant: Variant) -> tuple[int, float]:
        cells = [cell for row in self.cells.values() for cell in row.get(variant, {}).values()]
        waucs = [wauc for cell in cells if (wauc := cell.raw.get("validation_wauc")) is not None]
        return len(cells), sum(waucs) / len(waucs) if waucs else -1.0

    def dial_values(self) -> tuple[NamedValues, ...]:
        """Return the distinct values of the dials, in order."""
        return tuple(dict.fromkeys(row.dials for row in self.cells))

    def domains(self, rows: Iterable[RowKey] | None = None) -> list[Domain]:
        """Return the domains of some rows, or of all, with figures averaged over the splits of the seeds."""
        return self.evidence.domains({cell.data_key for cell in self.all_cells(rows)})


def studies(results: Results, evidence: Evidence) -> list[Study]:
    """Return the studies of an experiment."""
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for tested in results.cells:
        cell = tested.cell
        groups.setdefault((cell.data, cell.features, cell.split), []).append(tested)
    return [_study(key, cells, evidence) for key, cells in sorted(groups.items())]


def _study(key: tuple[str, str, str], cells: list[CellResult], evidence: Evidence) -> Study:
    dials = _dials(cells)
    table: dict[RowKey, dict[Variant, dict[int, CellResult]]] = {}
    for tested in cells:
        cell, settings = tested.cell, dict(tested.cell.settings)
        row = RowKey(tuple((name, settings.pop(name)) for name in dials), cell.backbone)
        variant = Variant(cell.arm, cell.experts_per_domain, cell.gate, _pairs(settings))
        table.setdefault(row, {}).setdefault(variant, {})[cell.seed] = tested
    variants = sorted({variant for row in table.values() for variant in row}, key=_column)
    rows = sorted(table, key=lambda row: (tuple(_sortable(value) for _, value in row.dials), row.backbone))
    ordered = {row: {v: table[row][v] for v in variants if v in table[row]} for row in rows}
    return Study(*key, dials, ordered, tuple(variants), evidence)


def _dials(cells: list[CellResult]) -> tuple[str, ...]:
    """Return the settings of all cells that have several values and one value per data key."""
    names = set.intersection(*(set(tested.cell.settings) for tested in cells))
    dials = []
    for name in sorted(names):
        pairs = {(tested.data_key, _freeze(tested.cell.settings[name])) for tested in cells}
        values = {value for _, value in pairs}
        if len(values) > 1 and len(pairs) == len({data_key for data_key, _ in pairs}):
            dials.append(name)
    return tuple(dials)


def _pairs(settings: Mapping[str, Any]) -> NamedValues:
    return tuple((name, _freeze(value)) for name, value in sorted(settings.items()))


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _column(variant: Variant) -> tuple[Any, ...]:
    settings = tuple((name, _sortable(value)) for name, value in variant.settings)
    return (list(ARMS).index(variant.arm), variant.experts, variant.gate or "", settings)


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _similarity(a: Variant, b: Variant) -> int:
    same_settings = len({*a.settings} & {*b.settings}) - len({*a.settings} ^ {*b.settings})
    return 4 * (a.experts == b.experts) + 2 * (a.gate == b.gate) + same_settings
