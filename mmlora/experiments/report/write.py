"""Write the report of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmlora.experiments.arms import ARMS
from mmlora.experiments.cell import Cell
from mmlora.experiments.report.findings import caution, findings, left_out, nothing_compared, spread
from mmlora.experiments.report.plots import plots
from mmlora.experiments.report.reading import CellResult, Results, read_results
from mmlora.experiments.report.statistics import Evidence
from mmlora.experiments.report.studies import Study, studies
from mmlora.experiments.report.tables import difference_tables, question_table, result_table
from mmlora.files import write_atomically
from mmlora.pages.page import Page, Section
from mmlora.pages.tables import Entry, ReportTable

_PICTURES = "plots"
_TOLERANCE = 1e-4
_DATA_COLUMNS = (
    "domains",
    "training rows",
    "test rows",
    "test clicks",
    "test users",
    "density of domains",
    "best reachable wauc",
    "seeds",
    "code",
)
_METHOD = (
    "`wauc` is the mean of the domains' AUCs, weighted by test rows; a domain whose test rows all have the "
    "same label has no AUC and is left out. Calibration and early stopping use validation rows; test rows "
    "are scored once.",
    "Intervals are 95%: mean ∓ t(0.975, v) · √T, with T = V + s²/S. V is the variance due to the choice of "
    "test users: users are resampled with all their rows, paired over arms and over seeds, in the closed "
    "form that a paired bootstrap of users converges to (infinitesimal jackknife of the AUC's placements): "
    "V = G/(G-1) · Σ over G users of (Σ of their rows' influences)². s² is the variance of the values of the "
    "S seeds, i.e. due to the split and the initial weights. v = T² / (V²/(G-1) + (s²/S)²/(S-1)), after "
    "Satterthwaite.",
    "s² also contains the variation of each seed's test rows, so intervals tend to be too wide: in "
    "simulations with normal errors, those of 3 seeds cover the truth in 94 to 99% of cases. With one seed "
    "they cover the variation of test users only. Neither says anything about other data, and intervals are "
    "not corrected for their number: the findings say how many chance alone would give.",
)


def write_report(
    folder: Path,
    title: str,
    description: str,
    output: Path,
    planned: Mapping[str, Cell] | None = None,
) -> list[Path]:
    """Write ``report.md``, its ``plots/*.svg``, and ``report.html``, which contains everything.

    The same cells give the same bytes.

    Args:
        folder: the experiment's folder, with ``cells/`` and ``data/``.
        title: title of the report.
        description: description of the experiment: paragraphs separated by empty lines, code in backquotes.
        output: folder to write to, which is created if necessary.
        planned: every cell of the grid by key, so that cells that have not been run are listed.

    Returns:
        The files, ``report.md`` and ``report.html`` first.

    Raises:
        UsageError: the folder has no finished cell.
    """
    results = read_results(folder, planned)
    page = _page(results, title, description)
    files = {output / "report.md": page.to_markdown(_PICTURES), output / "report.html": page.to_html()}
    for plot in (plot for section in page.sections for plot in section.plots):
        files |= {output / _PICTURES / name: drawing for name, drawing in plot.files().items()}
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)


def _page(results: Results, title: str, description: str) -> Page:
    evidence = Evidence(results)
    every = studies(results, evidence)
    sections = [_findings(every)]
    for study in every:
        asked = question_table(study)
        tables = [result_table(study), *difference_tables(study), *([asked] if asked else [])]
        notes = [note for note in (left_out(study), spread(study)) if note]
        sections.append(Section(study.title, notes, (), tables, plots(study)))
    sections += [
        _what_was_run(every, results),
        _arms(results),
        _missing(results, _contradictions(results, evidence)),
    ]
    sections.append(Section("How figures are computed", _METHOD))
    return Page(title, description, _facts(results), sections)


def _facts(results: Results) -> list[tuple[str, str]]:
    cells = results.cells
    by_cell = [cell.raw.get("seconds") or {} for cell in cells]
    seconds = sum(times.get("cell") or times.get("total") or 0.0 for times in by_cell)
    facts = [
        ("cells trained and tested", f"{len(cells):,}"),
        ("data sets", f"{len({cell.cell.data for cell in cells})}"),
        ("backbones", f"{len({cell.cell.backbone for cell in cells})}"),
        ("arms", f"{len({cell.cell.arm for cell in cells})}"),
        ("seeds", f"{len({cell.cell.seed for cell in cells})}"),
        (
            "computing time of all cells",
            f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min",
        ),
    ]
    return [*facts, ("cells missing", f"{len(results.problems):,}")] if results.problems else facts


def _findings(every: list[Study]) -> Section:
    lists = [
        (study.title if len(every) > 1 else "", sentences)
        for study in every
        if (sentences := findings(study))
    ]
    return Section("Findings", [caution(every) or nothing_compared(every)], lists)


def _what_was_run(every: list[Study], results: Results) -> Section:
    rows: list[tuple[Entry, ...]] = []
    tables = [_domain_table(study) for study in every if not study.dials]
    for study in every:
        for dials in study.dial_values():
            of_dials = [row for row in study.rows if row.dials == dials]
            name = ", ".join([study.title, *(f"{dial} {value}" for dial, value in dials)])
            rows.append((Entry(name), *_data_row(study, study.all_cells(of_dials), results)))
    note = (
        "Means over the splits of the seeds. Density: a domain's training rows over its users times its "
        "items. Best reachable: the wauc of the true probability of synthetic data on the test rows."
    )
    summary = ReportTable("Data sets", note, ("data", *_DATA_COLUMNS), rows)
    return Section("What was run", (), [("", [_grid(study) for study in every])], [summary, *tables])


def _grid(study: Study) -> str:
    arms = ", ".join(f"`{study.label(variant)}`" for variant in study.variants)
    dials = "".join(
        f" {name} {', '.join(dict.fromkeys(str(dict(row.dials)[name]) for row in study.rows))};"
        for name in study.dials
    )
    return (
        f"{study.title}: {len(study.all_cells())} cells; backbones {', '.join(study.backbones)};{dials} arms "
        f"{arms}; seeds {', '.join(map(str, study.seeds()))}."
    )


def _data_row(study: Study, cells: list[CellResult], results: Results) -> tuple[Entry, ...]:
    keys = sorted({cell.data_key for cell in cells})
    tested = [results.rows[key] for key in keys]
    domains = study.evidence.domains(keys)
    densities = sorted({f"{domain.density:.2%}" for domain in domains}, key=lambda text: float(text[:-1]))
    clicks = sum(int(rows.label.sum()) for rows in tested) / max(sum(len(rows.label) for rows in tested), 1)
    users = sum(len(np.unique(rows.user)) for rows in tested) / len(tested)
    return (
        Entry(f"{len(domains)}"),
        Entry(f"{sum(domain.train_rows for domain in domains):,}"),
        Entry(f"{sum(domain.test_rows for domain in domains):,}"),
        Entry(f"{clicks:.1%}"),
        Entry(f"{users:,.0f}"),
        Entry(" – ".join([densities[0], densities[-1]][: len(densities)])),
        Entry(_best_reachable(cells)),
        Entry(f"{len({cell.cell.seed for cell in cells})}"),
        Entry(", ".join(sorted({_code(cell) for cell in cells}))),
    )


def _best_reachable(cells: list[CellResult]) -> str:
    by_data = {cell.data_key: cell.best_reachable for cell in cells}
    waucs = [wauc for wauc in by_data.values() if wauc is not None]
    return f"{sum(waucs) / len(waucs):.4f}" if waucs else "unknown"


def _code(cell: CellResult) -> str:
    version, revision = (cell.raw.get(name, "?") for name in ("code_version", "training_revision"))
    return f"{version}, training revision {revision}"


def _domain_table(study: Study) -> ReportTable:
    rows = [
        (
            Entry(domain.name),
            Entry(f"{domain.train_rows:,}"),
            Entry(f"{domain.test_rows:,}"),
            Entry(f"{domain.users:,}"),
            Entry(f"{domain.items:,}"),
            Entry(f"{domain.density:.2%}"),
        )
        for domain in study.domains()
    ]
    head = ("domain", "training rows", "test rows", "users", "items", "density")
    note = "Means over the splits of the seeds."
    return ReportTable(f"Domains of {study.title}", note, head, rows, folded=True)


def _arms(results: Results) -> Section:
    run = {cell.cell.arm for cell in results.cells}
    bullets = [f"`{name}`: {arm.description}." for name, arm in ARMS.items() if name in run]
    return Section("Arms", (), [("", bullets)])


def _missing(results: Results, contradictions: list[str]) -> Section:
    if not results.problems and not contradictions:
        return Section("Missing cells", ["None."])
    count = len(results.problems)
    text = (
        f"{count:,} cell{'s' * (count != 1)} of the grid {'is' if count == 1 else 'are'} not in this report; "
        "its means are of the others."
        if count
        else "None, but these cells have a result that does not agree with their scores:"
    )
    bullets = [f"{problem.cell}: {problem.why}" for problem in results.problems]
    return Section("Missing cells", [text], [("", bullets + contradictions)])


def _contradictions(results: Results, evidence: Evidence) -> list[str]:
    """Return the cells whose result has another wauc than their scores, which are kept in float32."""
    contradictions = []
    for cell in results.cells:
        stored, computed = cell.raw["test"].get("wauc"), evidence.wauc(cell)
        differs = (stored is None) != (computed is None)
        if differs or (stored is not None and abs(stored - (computed or 0)) > _TOLERANCE):
            contradictions.append(
                f"{cell.cell}: its result has wauc {stored}, its scores give {computed}, which is used here"
            )
    return contradictions
