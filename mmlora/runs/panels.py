"""Rank the lists that a night would give to a sample of each domain's users, by an unregistered model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, USER_ID, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.judging.lists import Codes, Panel
    from mmlora.models.builder import Model
    from mmlora.models.by_domain import ModelByDomain
    from mmlora.models.calibration import Calibration
    from mmlora.training.dataset import TrainingSet


@dataclass(frozen=True)
class Ranker:
    """A model that ranks panels of users and items on a day; each side is read once for all panels.

    Attributes:
        workspace: the workspace.
        on: the day, as of whose midnight features are read.
        data: the training set, with the model's encoder and features.
        ids: the ids of user and item codes, by ``user`` and ``item``.
        model: the model; where domains have mixtures, that of a panel's domain ranks it.
        calibration: the model's calibration, for rows of any training domain.
    """

    workspace: Workspace
    on: date
    data: TrainingSet
    ids: dict[str, pa.Array]
    model: Model | ModelByDomain
    calibration: Calibration

    def lists(self, panels: Sequence[Panel], length: int) -> list[tuple[Codes, Codes]]:
        """Return per panel the row numbers of users, sorted, and of items, each user's best first."""
        users = self._side(USER_ID, self.ids["user"], [(panel.domain, panel.users) for panel in panels])
        items = self._side(ITEM_ID, self.ids["item"], [(panel.domain, panel.items) for panel in panels])
        domains = self._side(None, None, [(panel.domain, np.zeros(1, np.int64)) for panel in panels])
        sides = zip(panels, users, items, domains, strict=True)
        return [self._ranked(panel, length, *tables) for panel, *tables in sides]

    def _side(self, key: str | None, ids: pa.Array | None, wanted: list[tuple[int, Codes]]) -> list[pa.Table]:
        """Read the features of one kind of entity; return one table per domain."""
        import pyarrow as pa

        if not wanted:
            return []
        names, sizes = self.data.domains, [len(codes) for _, codes in wanted]
        domain = np.repeat([index for index, _ in wanted], sizes)
        table = {DOMAIN_ID: pa.array(names, self.workspace.ids.arrow("domain")).take(pa.array(domain))}
        if key is not None and ids is not None:
            table[key] = ids.take(pa.array(np.concatenate([codes for _, codes in wanted])))
        table[EVENT_TIMESTAMP] = pa.repeat(pa.scalar(midnight(self.on), TIMESTAMP), len(domain))
        features = self.workspace.feature_repo.retrieve(pa.table(table), self.data.manifest.contract)
        ends = np.cumsum(sizes)
        return [features.slice(end - size, size) for size, end in zip(sizes, ends.tolist(), strict=True)]

    def _ranked(
        self, panel: Panel, length: int, users: pa.Table, items: pa.Table, domain: pa.Table
    ) -> tuple[Codes, Codes]:
        import pyarrow as pa
        import pyarrow.compute as pc

        from mmlora.candidates.pairs import Candidates, PairIndex
        from mmlora.models.by_domain import ModelByDomain
        from mmlora.scoring.score import LocalEngine
        from mmlora.scoring.work import Work

        settings = self.workspace.settings
        excluded = PairIndex.from_rows(panel.excluded_user, panel.excluded_item, len(panel.users))
        ids = (users[USER_ID].combine_chunks(), items[ITEM_ID].combine_chunks())
        work = Work(
            model=self.model.of(panel.domain) if isinstance(self.model, ModelByDomain) else self.model,
            encoder=self.data.encoder,
            calibration=self.calibration,
            items=items,
            domain=domain,
            ids=self.workspace.ids,
            domain_id=self.data.domains[panel.domain],
            on=self.on,
            top_k=length,
            block_rows=settings.scoring.block_rows,
        )
        engine = LocalEngine(
            settings.training.threads, settings.scoring.device, settings.scoring.memory_mb << 20
        )
        candidates = Candidates(*ids, excluded)
        tables = list(engine.tables(work, candidates, users, lambda pairs: None, lambda numerics: None))
        if not tables:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        best = pa.concat_tables(tables).sort_by([(USER_ID, "ascending"), ("position", "ascending")])
        user, item = (
            pc.index_in(best[name], value_set=values).to_numpy().astype(np.int64)
            for name, values in zip((USER_ID, ITEM_ID), ids, strict=True)
        )
        order = np.argsort(user, kind="stable")
        return user[order], item[order]
