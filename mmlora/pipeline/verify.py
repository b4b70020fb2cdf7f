"""``mmlora verify``: check that published rows are the audited ones, and that their models are intact.

Every reference is followed: from a publication to its load and rows, from a staged load to its files, and
from loads, champions and challengers to their model's manifest and its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

from mmlora.errors import UsageError
from mmlora.pipeline.mending import ModelUse, mend_of
from mmlora.records import Record
from mmlora.registry.verify import BundleVerifier
from mmlora.scoring.staging import part_files
from mmlora.settings import load_settings
from mmlora.workspace import Progress, Workspace, silent

if TYPE_CHECKING:
    from mmlora.schema import Id
    from mmlora.warehouse.verify import Verified
    from mmlora.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Checked(Record):
    """What was verified, and what is wrong with it.

    Attributes:
        domain_id: the domain; empty for a model.
        score_date: the score date; empty for a model.
        load_id: the load; empty for a model.
        rows: how many rows were read.
        fault: what is wrong, a sentence; empty when nothing is.
        mend: the command that mends it.
        kind: what it is.
        model_version: the model, or the one that scored the rows.
    """

    domain_id: str = ""
    score_date: str = ""
    load_id: str = ""
    rows: int = 0
    fault: str = ""
    mend: str = ""
    kind: Literal["publication", "staged load", "shadow load", "model"] = "publication"
    model_version: str = ""


@dataclass(frozen=True)
class Verification(Record):
    """What `mmlora verify` saw.

    Attributes:
        checked: a row for each publication and staged load, and for each fault of a model.
        models: how many models were verified.
        parts: how many of their parts, each once.
    """

    checked: tuple[Checked, ...]
    models: int
    parts: int

    @property
    def faults(self) -> tuple[Checked, ...]:
        """The rows with a fault."""
        return tuple(row for row in self.checked if row.fault)


def verify(
    *,
    domain: str | None = None,
    start: date | None = None,
    end: date | None = None,
    progress: Progress = silent,
) -> Verification:
    """Hash published and staged rows, and the models that they, champions and challengers refer to.

    Args:
        domain: this domain only, and its models.
        start: the first score date, included.
        end: the last score date, included.
        progress: called after each publication and model.

    Raises:
        UsageError: the warehouse does not exist, or the dates are in the wrong order.
    """
    from mmlora.warehouse.warehouse import Warehouse

    if start and end and start > end:
        raise UsageError(f"--start {start} is after --end {end}: give the earlier date first")
    workspace = Workspace(load_settings())
    with Warehouse.open(workspace.warehouse_url, identity=workspace.warehouse_identity) as warehouse:
        try:
            target = None if domain is None else warehouse.ids.parse("domain", domain)
        except ValueError:
            raise UsageError(f"domain {domain!r}: domain ids are whole numbers here") from None
        rows = [
            *_publications(warehouse, target, start, end, progress),
            *_staged(workspace, warehouse, target, start, end),
            *_shadows(workspace, warehouse, target, start, end),
        ]
        verifier = BundleVerifier(workspace.bundles)
        uses = _uses(warehouse, rows, target)
        faults = list(_models(workspace, warehouse, verifier, uses, progress))
    return Verification((*rows, *faults), len(uses), verifier.parts)


def _publications(
    warehouse: Warehouse, domain: Id | None, start: date | None, end: date | None, progress: Progress
) -> Iterator[Checked]:
    total = len(warehouse.publications(domain=domain, start=start, end=end))
    for number, verified in enumerate(warehouse.verify(domain=domain, start=start, end=end), 1):
        yield _checked(verified, "publication")
        progress("verify", min(number, total), total)


def _staged(
    workspace: Workspace, warehouse: Warehouse, domain: Id | None, start: date | None, end: date | None
) -> Iterator[Checked]:
    for load in warehouse.loads(domain=domain, states=("staged",)):
        if (start or load.score_date) <= load.score_date <= (end or load.score_date):
            files = part_files(workspace.staging_folder(load.load_id))
            if verified := warehouse.verify_staged(load, files):
                yield _checked(verified, "staged load")


def _shadows(
    workspace: Workspace, warehouse: Warehouse, domain: Id | None, start: date | None, end: date | None
) -> Iterator[Checked]:
    from mmlora.warehouse.shadows import shadows
    from mmlora.warehouse.verify import verify_shadow

    for load in shadows(warehouse.database, warehouse.tables, domain=domain):
        if (start or load.score_date) <= load.score_date <= (end or load.score_date):
            files = part_files(workspace.staging_folder(load.load_id))
            yield _checked(verify_shadow(warehouse.ids, load, files), "shadow load")


def _checked(verified: Verified, kind: Literal["publication", "staged load", "shadow load"]) -> Checked:
    return Checked(
        domain_id=str(verified.domain_id),
        score_date=verified.score_date.isoformat(),
        load_id=verified.load_id,
        rows=verified.rows,
        fault=verified.fault,
        mend=verified.mend,
        kind=kind,
        model_version=verified.model_version,
    )


def _uses(warehouse: Warehouse, rows: list[Checked], domain: Id | None) -> dict[str, ModelUse]:
    """Return who needs each model version: champions and challengers first, then loads."""
    uses: dict[str, ModelUse] = {}
    for decision in warehouse.standing():
        if domain is None or decision.domain_id in (None, domain):
            use = uses.setdefault(decision.model_version, ModelUse(decision.model_version))
            use.decisions.append(decision)
    for row in rows:
        if row.kind == "shadow load":  # its rows are compared without the model
            continue
        use = uses.setdefault(row.model_version, ModelUse(row.model_version))
        use.loads.append((row.domain_id, date.fromisoformat(row.score_date)))
    return uses


def _models(
    workspace: Workspace,
    warehouse: Warehouse,
    verifier: BundleVerifier,
    uses: dict[str, ModelUse],
    progress: Progress,
) -> Iterator[Checked]:
    for number, use in enumerate(uses.values(), 1):
        for fault in verifier.faults(use.model_version):
            yield Checked(
                fault=f"{use}: {fault}",
                mend=mend_of(workspace, warehouse, verifier, use),
                kind="model",
                model_version=use.model_version,
            )
        progress("verify models", number, len(uses))
