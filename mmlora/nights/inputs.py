"""What a night's features and candidates are computed from, in a few numbers, stored and compared later.

Late rows don't count: a night is scored on what was known then. Rows that are imported afterwards change it
only if they count as known then (a domain's day that arrives late as a whole, ``--history``, ``known_at``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from mmlora.records import Record
from mmlora.schema import ENTITY_KEYS, Entity, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.data.known_rows import KnownRows
    from mmlora.features.plan import Recipe


@dataclass(frozen=True)
class Inputs(Record):
    """What a night was computed from.

    Attributes:
        definition: hash of the settings and queries of computed features; None before the first build.
        rows: versions known then, of interactions and of each entity's profiles.
    """

    definition: str | None
    rows: Mapping[str, int]

    def changes(self, now: Inputs, *, computed: bool) -> list[str]:
        """Return what has changed since, in clauses.

        Fewer rows than before are no change, because they were erased. They hide as many rows added since.

        Args:
            now: the same night's inputs now.
            computed: whether the model reads computed features.
        """
        more = {name: now.rows.get(name, 0) - rows for name, rows in self.rows.items()}
        changes = [
            f"{count:,} {name} that count as known then were imported since"
            for name, count in more.items()
            if count > 0
        ]
        if computed and now.definition != self.definition:
            changes.append("settings or queries of computed features have changed")
        return changes


@dataclass(frozen=True)
class Data:
    """The stored data, counted once for all nights.

    Attributes:
        recipe: settings and queries of computed features; None before the first build.
        interactions: when they became known.
        profiles: likewise, by entity.
    """

    recipe: Recipe | None
    interactions: KnownRows
    profiles: Mapping[Entity, KnownRows]

    @classmethod
    def of(cls, workspace: Workspace) -> Data:
        """Count the rows of a workspace."""
        from mmlora.data.known_rows import known_interactions, known_profiles
        from mmlora.features.plan import kept_recipe

        offline, settings = workspace.offline, workspace.settings.features
        return cls(
            kept_recipe(offline, prior_ctr=settings.prior_ctr, prior_weight=settings.prior_weight),
            known_interactions(offline),
            {entity: known_profiles(offline, entity) for entity in ENTITY_KEYS},
        )

    def inputs(self, on: date, known_as_of: datetime | None = None) -> Inputs:
        """Return what a night is computed from, on what was known by a moment, or by its 00:00 UTC."""
        tables = {"interactions": self.interactions}
        tables |= {f"{entity} profiles": rows for entity, rows in self.profiles.items()}
        by = known_as_of or midnight(on)
        definition = None if self.recipe is None else self.recipe.hash
        return Inputs(definition, {name: rows.count(before=on, by=by) for name, rows in tables.items()})
