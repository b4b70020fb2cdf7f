"""Write the report of an experiment's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmlora.experiments.arms import ARMS
from mmlora.experiments.cell import Cell
from mmlora.experiments.report.findings import caution, findings, left_out, nothing_compared, spread
from mmlora.experiments.report.page import Page, Section
from mmlora.experiments.report.plots import plots
from mmlora.experiments.report.reading import CellResult, Results, read_results
from mmlora.experiments.report.statistics import Evidence
from mmlora.experiments.report.studies import Study, studies
from mmlora.experiments.report.tables import (
    Entry,
    ReportTable,
    difference_tables,
    question_table,
    result_table,
)
from mmlora.files import write_atomically

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
    "`wauc` is the mean of the domains' AUCs, weighted by test rows; a domain whose test rows have one "
    "class of label only has no AUC and is left out. Calibration and early stopping see validation rows; "
    "test rows are scored, once.",
    "Intervals are 95%: mean ∓ t(0.975, v) · √T, with T = V + s²/S. V is the variance from who is among the "
    "test users: users are resampled with all their rows, paired over arms and over seeds, in the closed "
    "form that a paired bootstrap of users converges to (infinitesimal jackknife of the AUC's placements): "
    "V = G/(G-1) · Σ over G users of (Σ of what their rows add)². s² is the variance of the S seeds' "
    "values: another split, other initial weights. v = T² / (V²/(G-1) + (s²/S)²/(S-1)), after Satterthwaite.",
    "s² sees each seed's own test rows too, so intervals err towards being wide: simulated with normal "
    "luck, those of 3 seeds cover the truth in 94 to 99% of cases. With one seed they hold the luck of test "
    "users only. Neither speaks for other data, and none is corrected for how many intervals there are: the "
    "findings say how many chance alone would show.",
)


def write_report(
    folder: Path,
    title: str,
    description: str,
    output: Path,
    planned: Mapping[str, Cell] | None = None,
) -> list[Path]:
    """Write ``report.md``, its ``plots/*.svg``, and ``report.html``, which holds all in one file.

    Equal cells give equal bytes.

    Args:
        folder: the experiment's, with ``cells/`` and ``data/``.
        title: of the report.
        description: what the experiment is about: paragraphs between empty lines, code between backquotes.
        output: folder to write to; made where missing.
        planned: every cell of the grid by its key, so that those not yet run are listed.

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
        _missing(results, _doubts(results, evidence)),
    ]
    sections.append(Section("How figures are computed", _METHOD))
    return Page(title, description, _facts(results), sections)


def _facts(results: Results) -> list[tuple[str, str]]:
    cells = results.cells
    spent = [cell.raw.get("seconds") or {} for cell in cells]
    seconds = sum(each.get("cell") or each.get("total") or 0.0 for each in spent)
    facts = [
        ("cells trained and tested", f"{len(cells):,}"),
        ("data sets", f"{len({cell.cell.data for cell in cells})}"),
        ("backbones", f"{len({cell.cell.backbone for cell in cells})}"),
        ("arms", f"{len({cell.cell.arm for cell in cells})}"),
        ("seeds", f"{len({cell.cell.seed for cell in cells})}"),
        (
            "of computing, all cells",
            f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min",
        ),
    ]
    return [*facts, ("cells missing", f"{len(results.problems):,}")] if results.problems else facts


def _findings(every: list[Study]) -> Section:
    lists = [(study.title if len(every) > 1 else "", found) for study in every if (found := findings(study))]
    return Section("Findings", [caution(every) or nothing_compared(every)], lists)


def _what_was_run(every: list[Study], results: Results) -> Section:
    rows: list[tuple[Entry, ...]] = []
    tables = [_domain_table(study) for study in every if not study.dials]
    for study in every:
        for dials in study.dial_values():
            held = [row for row in study.rows if row.dials == dials]
            name = ", ".join([study.title, *(f"{dial} {value}" for dial, value in dials)])
            rows.append((Entry(name), *_data_row(study, study.all_cells(held), results)))
    note = (
        "Means over the seeds' splits. Density: share of a domain's pairs of user and item that have a row. "
        "Best reachable: what the true probability of made-up data scores on the test rows."
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
        f"{arms}; "
        f"seeds {', '.join(map(str, study.seeds()))}."
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
    found = [wauc for wauc in by_data.values() if wauc is not None]
    return f"{sum(found) / len(found):.4f}" if found else "unknown"


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
    return ReportTable(f"Domains of {study.title}", "Means over the seeds' splits.", head, rows, folded=True)


def _arms(results: Results) -> Section:
    run = {cell.cell.arm for cell in results.cells}
    bullets = [f"`{name}`: {arm.what}." for name, arm in ARMS.items() if name in run]
    return Section("Arms", (), [("", bullets)])


def _missing(results: Results, doubts: list[str]) -> Section:
    if not results.problems and not doubts:
        return Section("Missing cells", ["None."])
    count = len(results.problems)
    said = (
        f"{count:,} cell{'s' * (count != 1)} of the grid {'is' if count == 1 else 'are'} not in this report; "
        "its means are of the cells that are."
        if count
        else "None. Of these, the result and the scores don't agree:"
    )
    bullets = [f"{problem.cell}: {problem.why}" for problem in results.problems]
    return Section("Missing cells", [said], [("", bullets + doubts)])


def _doubts(results: Results, evidence: Evidence) -> list[str]:
    """Cells whose scores don't give the wauc that their result says; scores are kept in float32."""
    doubts = []
    for cell in results.cells:
        said, found = cell.raw["test"].get("wauc"), evidence.wauc(cell)
        if (said is None) != (found is None) or (said is not None and abs(said - (found or 0)) > _TOLERANCE):
            doubts.append(
                f"{cell.cell}: its result says wauc {said}, its scores give {found}, which is used here"
            )
    return doubts
