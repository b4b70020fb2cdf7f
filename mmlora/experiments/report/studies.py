"""Sort an experiment's cells into tables: studies (data, features, split), their rows, columns and seeds.

A *study* is what one table shows. Its rows are backbones, and settings of the *dials*: settings that make
other data (such as a synthetic set's diversity), seen from no data key having two values of it. Its columns
are *variants*: an arm with its experts, gate and further settings.
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
    """A row of a study: the values of the dials, and the backbone."""

    dials: NamedValues
    backbone: str


@dataclass(frozen=True, eq=False)
class Study:
    """The cells of one data set, feature group and split.

    Attributes:
        data: data set.
        features: feature group.
        split: how rows were split.
        dials: names of the settings that make other data here, and vary.
        cells: by row, then by variant, then by seed; variants in the order of the columns.
        variants: all columns, in order.
        evidence: of the experiment.
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
        """Every seed that any cell has."""
        found = {seed for row in self.cells.values() for by_seed in row.values() for seed in by_seed}
        return tuple(sorted(found))

    def all_cells(self, rows: Iterable[RowKey] | None = None) -> list[CellResult]:
        """Return the cells of some rows, or of all."""
        held = self.cells.values() if rows is None else [self.cells[row] for row in rows]
        return [cell for row in held for by_seed in row.values() for cell in by_seed.values()]

    def label(self, variant: Variant) -> str:
        """Name a variant by its arm and by what sets it apart from the arm's other variants."""
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
        """Return wauc over seeds, averaged over rows.

        Args:
            rows: those without the variant are left out; of the others, the seeds that all have are taken.
            variant: an arm's.
        """
        found = [self.cells[row][variant] for row in rows if variant in self.cells[row]]
        if not found:
            return None
        seeds = sorted(set.intersection(*({*by_seed} for by_seed in found)))
        weight = 1.0 / len(found)
        return self.evidence.estimate([Term(by_seed[seed], weight) for seed in seeds for by_seed in found])

    def baseline(self, row: RowKey, candidate: Variant, arm: str) -> Variant | None:
        """Return the variant of ``arm`` in a row most like the candidate; None where there is none."""
        found = [variant for variant in self.cells[row] if variant.arm == arm and variant != candidate]
        return max(found, key=lambda other: _likeness(candidate, other), default=None)

    def difference(
        self, rows: Iterable[RowKey], candidate: Variant, baseline: Variant | str, domain: str | None = None
    ) -> Estimate | None:
        """Return candidate - baseline, averaged over rows, on the seeds that all of them have.

        Args:
            rows: rows; those without both are left out.
            candidate: a variant.
            baseline: another, or an arm, of which the most similar variant is taken.
            domain: of its AUC; None for wauc.
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
        """Return the rows in which the two can be compared."""
        return [row for row in self.cells if self._pair(row, candidate, baseline) is not None]

    def _pair(self, row: RowKey, candidate: Variant, baseline: Variant | str) -> tuple[BySeed, BySeed] | None:
        other = self.baseline(row, candidate, baseline) if isinstance(baseline, str) else baseline
        cells = self.cells[row]
        if other is None or candidate not in cells or other not in cells:
            return None
        a, b = cells[candidate], cells[other]
        return (a, b) if {*a} & {*b} else None

    def main_variants(self) -> list[Variant]:
        """Return one variant an arm.

        Of several, those that most cells have, so that backbones can be compared; of these, the one with the
        best mean wauc on *validation* rows, so that test rows choose nothing.
        """
        best: dict[str, Variant] = {}
        for variant in self.variants:
            held = best.get(variant.arm)
            if held is None or self._standing(variant) > self._standing(held):
                best[variant.arm] = variant
        return list(best.values())

    def _standing(self, variant: Variant) -> tuple[int, float]:
        cells = [cell for row in self.cells.values() for cell in row.get(variant, {}).values()]
        found = [wauc for cell in cells if (wauc := cell.raw.get("validation_wauc")) is not None]
        return len(cells), sum(found) / len(found) if found else -1.0

    def dial_values(self) -> tuple[NamedValues, ...]:
        """Return the settings of the dials, each once, in order."""
        return tuple(dict.fromkeys(row.dials for row in self.cells))

    def domains(self, rows: Iterable[RowKey] | None = None) -> list[Domain]:
        """Return the domains of some rows, or of all, their figures averaged over seeds' splits."""
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
    found: dict[RowKey, dict[Variant, dict[int, CellResult]]] = {}
    for tested in cells:
        cell, settings = tested.cell, dict(tested.cell.settings)
        row = RowKey(tuple((name, settings.pop(name)) for name in dials), cell.backbone)
        variant = Variant(cell.arm, cell.experts_per_domain, cell.gate, _pairs(settings))
        found.setdefault(row, {}).setdefault(variant, {})[cell.seed] = tested
    variants = sorted({variant for row in found.values() for variant in row}, key=_column)
    rows = sorted(found, key=lambda row: (tuple(_sortable(value) for _, value in row.dials), row.backbone))
    ordered = {row: {v: found[row][v] for v in variants if v in found[row]} for row in rows}
    return Study(*key, dials, ordered, tuple(variants), evidence)


def _dials(cells: list[CellResult]) -> tuple[str, ...]:
    """NamedValues of every cell with several values, none of which share a data key."""
    names = set.intersection(*(set(tested.cell.settings) for tested in cells))
    dials = []
    for name in sorted(names):
        held = {(tested.data_key, _freeze(tested.cell.settings[name])) for tested in cells}
        values = {value for _, value in held}
        if len(values) > 1 and len(held) == len({data_key for data_key, _ in held}):
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


def _likeness(one: Variant, other: Variant) -> int:
    same_settings = len({*one.settings} & {*other.settings}) - len({*one.settings} ^ {*other.settings})
    return 4 * (one.experts == other.experts) + 2 * (one.gate == other.gate) + same_settings
