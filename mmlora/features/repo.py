"""The package's only interface to Feast: apply definitions, resolve the feature contract, retrieve features.

The registry is an SQL registry (SQLite under ``<home>/feast`` by default); only ``apply`` writes to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import mmlora
from mmlora.duck import in_memory
from mmlora.errors import UsageError
from mmlora.features.affinity import Affinity, choose_affinity
from mmlora.features.age import newest_row
from mmlora.features.columns import Column, analyse
from mmlora.features.contract import check_projection, contract_field
from mmlora.features.derived import Derived, decide, refresh
from mmlora.features.feast_config import feast_config, write_yaml
from mmlora.features.feast_import import import_feast
from mmlora.features.inputs import source_state
from mmlora.features.own_views import load_module, own_views
from mmlora.features.plan import BuildState
from mmlora.features.retrieval import (
    contract_errors,
    entity_rows,
    fields_of,
    input_column,
    rechunked,
    references,
)
from mmlora.features.source_times import SourceTime, source_times
from mmlora.features.views import ACTIVITY_VIEWS
from mmlora.files import locked, read_json
from mmlora.resources import resource
from mmlora.schema import (
    ENTITY_KEYS,
    FeatureContract,
    FeatureField,
    FeatureGroup,
    IdTypes,
    fingerprint,
    valid_names,
)
from mmlora.telemetry import lineage_is_wanted

if TYPE_CHECKING:
    from feast import FeatureStore

    from mmlora.features.asof.job import AsofJob

logger = logging.getLogger(__name__)

SERVICES: dict[FeatureGroup, str] = {"profiles": "mmlora_profiles", "all": "mmlora_all"}
_JOINED_ROWS = 250_000
"""Rows per join: each join sorts the views again, but lists make the features of a row large."""
_MADE_OF = ".made_of"
_RELATIVE = "paths are relative to this folder\n"
_BUILD_FIRST = "run `mmlora features build --through DATE` first"


class FeatureRepo:
    """The workspace's feature repository.

    Args:
        home: the workspace's folder.
        registry_url: SQLAlchemy URL of the Feast registry; SQLite under ``home`` when empty.
        columns: kinds that replace those chosen from the data, by ``users.column`` and the like
            (:mod:`mmlora.features.columns`).
    """

    def __init__(
        self, *, home: Path, registry_url: str = "", columns: Mapping[str, str] | None = None
    ) -> None:
        self.home = home.resolve()
        self._offline = self.home / "offline"
        self._folder = self.home / "feast"
        self._columns = columns
        self._registry_url = registry_url or f"sqlite:///{self._folder / 'registry.db'}"

    def apply(self) -> None:
        """Register entities, views and services, and delete those that are no longer defined.

        Raises:
            UsageError: nothing was imported, or a definition is wrong.
            TransientError: another apply holds the lock.
        """
        ids = _id_types(self._offline)
        self._folder.mkdir(parents=True, exist_ok=True)
        busy = f"another process is applying feature definitions ({self._folder / '.lock'})"
        with locked(self._folder / ".lock", wait=60, busy=busy):
            write_yaml(self._folder, self._registry_url, self._offline / ".spill")
            objects = self._definitions()
            defined = {(type(o).__name__, o.name) for o in objects}
            registered = [*self._store.list_feature_services(), *self._store.list_feature_views()]
            stale = [o for o in registered if (type(o).__name__, o.name) not in defined]
            self._store.apply(objects, objects_to_delete=stale, partial=False)
            self._store.refresh_registry()
            (self._folder / ".applied").write_text(_RELATIVE, encoding="utf-8")
            (self._folder / _MADE_OF).write_text(self._made_of(), encoding="utf-8")
        logger.info("applied %d feature definitions, ids %s", len(objects), ids.to_dict())

    def apply_if_changed(self) -> None:
        """Apply the definitions unless the same ones were applied last; then Feast isn't even imported.

        Definitions of the user's own are always applied, because they may read anything.

        Raises:
            UsageError, TransientError: as :meth:`apply`.
        """
        file, made_of = self._folder / _MADE_OF, self._made_of()
        if made_of and self.applied and file.exists() and file.read_text(encoding="utf-8") == made_of:
            self.refresh()
        else:
            self.apply()

    def _made_of(self) -> str:
        """Return a fingerprint of what the definitions are made of; empty if there are own ones."""
        if any((self.home / "feature_repo").glob("*.py")):
            return ""
        columns, registry = self.columns(), self._registry_url
        local = registry.startswith(f"sqlite:///{self._folder}")
        if local and not (self._folder / "registry.db").exists():
            return ""
        return fingerprint(
            {
                "ids": _id_types(self._offline).to_dict(),
                "columns": [[c.full_name, str(c.stats.type), c.kind, dict(c.tags)] for c in columns],
                "affinity": self.built_affinity().to_json(),
                "derived": [[d.entity, d.name, d.column, d.within] for d in self.derived(columns)],
                "registry": "local" if local else registry,
                "code": [
                    mmlora.__version__,
                    version("feast"),
                    resource("feature_repo/definitions.py").read_text(),
                ],
            }
        )

    def columns(self) -> list[Column]:
        """Return the columns of the imported profiles with the kinds chosen for them.

        Raises:
            UsageError: nothing was imported, or a setting names an unknown column or an impossible kind.
        """
        _id_types(self._offline)
        return analyse(self._offline, self._columns)

    def built_affinity(self) -> Affinity:
        """Return the content of the built affinity views."""
        state = BuildState.load(self._offline / "features")
        return Affinity.from_json(state.affinity) if state else Affinity()

    def chosen_affinity(self, columns: Sequence[Column]) -> Affinity:
        """Return the content that the affinity views will have after the next `features build`."""
        interactions = str(self._offline / "interactions" / "**" / "*.parquet")
        if not any((self._offline / "interactions").glob("**/*.parquet")):
            return self.built_affinity()
        with in_memory(self._offline / ".spill", ordered=False) as connection:
            return self.built_affinity().union(choose_affinity(connection, interactions, columns))

    def derived(self, columns: Sequence[Column]) -> list[Derived]:
        """Return the features to derive from these profile columns."""
        return decide(self._offline, columns)

    def refresh(self) -> None:
        """Bring the derived profile features up to date (:mod:`mmlora.features.derived`)."""
        refresh(self._offline)

    @property
    def built(self) -> str | None:
        """Hash of the settings and queries of the built features; None when nothing was built."""
        state = BuildState.load(self._offline / "features")
        return state.definition if state else None

    @property
    def applied(self) -> bool:
        """Whether the definitions were ever applied, with paths relative to the workspace."""
        path = self._folder / ".applied"
        return path.exists() and path.read_text(encoding="utf-8") == _RELATIVE

    def contract(self, group: FeatureGroup) -> FeatureContract:
        """Resolve the model's input.

        Args:
            group: ``ids`` (the three ids alone), ``profiles`` or ``all`` (plus their FeatureService).

        Raises:
            UsageError: unknown group, nothing applied, or a field of a type that has no encoding.
        """
        ids = _id_types(self._offline)
        types = {name: getattr(ids, name).upper() for name in ENTITY_KEYS}
        fields = [
            FeatureField(key, "", (key,), types[name], "categorical") for name, key in ENTITY_KEYS.items()
        ]
        if group == "ids":
            return FeatureContract("", tuple(fields))
        if group not in SERVICES:
            raise UsageError(
                f"unknown feature group {group!r}; valid are {', '.join(valid_names(FeatureGroup))}"
            )
        store = self._applied_store()
        from feast.errors import FeatureServiceNotFoundException

        try:
            service = store.get_feature_service(SERVICES[group])
        except FeatureServiceNotFoundException:
            raise UsageError(f"the Feast registry doesn't have {SERVICES[group]}: {_BUILD_FIRST}") from None
        for projection in service.feature_view_projections:
            view = store.get_feature_view(projection.name)
            keys = tuple(column.name for column in view.entity_columns)
            check_projection(projection, keys)
            fields += [contract_field(view.name, keys, field) for field in projection.features]
        return FeatureContract(service.name, tuple(fields))

    def types(self, contract: FeatureContract) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the present value type and keys of a contract's fields that are still registered."""
        fields = {f.name: (f.dtype, f.keys) for f in self.contract("ids").fields}
        names = {field.view for field in contract.fields if field.view}
        for view in self._applied_store().list_feature_views() if names else ():
            if view.name in names:
                keys = tuple(column.name for column in view.entity_columns)
                for field in view.features:
                    fields[f"{view.name}__{field.name}"] = (field.dtype.to_value_type().name, keys)
        return fields

    def retrieve(
        self, entities: pa.Table, contract: FeatureContract, *, known_as_of: datetime | None = None
    ) -> pa.Table:
        """Return the contract's features for each row, as of its time.

        A feature's value is the one with the latest event time at or before the row's ``event_timestamp``,
        among those known by ``known_as_of``, or by the row's own time when that is None.

        Args:
            entities: any of the id columns, and ``event_timestamp``; any number of rows.
            contract: the fields to read; fields keyed by an id that the rows lack are left out.
            known_as_of: one moment for all rows (UTC when it has no time zone).

        Returns:
            As many rows, in the same order, with one column per field, named after it.

        Raises:
            UsageError: there is no ``event_timestamp``, or nothing is built or applied yet.
            ContractError: the contract's features or the ids' types don't match the registry.
        """
        fields = fields_of(entities, contract)
        features = [field for field in fields if field.view]
        columns = {field.name: entities.column(field.name) for field in fields if not field.view}
        if features:
            with contract_errors(features):
                retrieved = self._historical(entities, features, known_as_of).to_arrow()
            columns |= {field.name: input_column(field, retrieved) for field in features}
        return pa.table({field.name: columns[field.name] for field in fields})

    def stream(self, entities: pa.Table, contract: FeatureContract, *, rows: int) -> Iterator[pa.Table]:
        """Yield what :meth:`retrieve` returns, in tables of ``rows`` rows; the last one may be shorter.

        The views are read once for all rows. Apart from them and the entity rows, memory use is constant.

        Args:
            entities: as for :meth:`retrieve`.
            contract: as for :meth:`retrieve`.
            rows: rows per table.

        Raises:
            UsageError: as :meth:`retrieve`.
            ContractError: as :meth:`retrieve`.
        """
        fields = fields_of(entities, contract)
        features = [field for field in fields if field.view]
        names = [field.name for field in fields]
        if not features:
            for start in range(0, len(entities), rows):
                yield entities.slice(start, rows).select(names)
            return
        with contract_errors(features):
            job = self._historical(entities, features, None, columns=names)
            chunk = rows * max(1, _JOINED_ROWS // rows)
            batches = job.to_batches(memory_budget=None, batch_rows=rows, chunk_rows=chunk, piece=rows)
            for table in rechunked(batches, rows):
                yield pa.table({field.name: input_column(field, table) for field in fields})

    def inputs(self, contract: FeatureContract) -> dict[str, object]:
        """Return the state of each view stored outside the workspace, JSON-serialisable, by view.

        It consists of the view's definition and each file's name, size and time. Views inside the workspace
        follow from its data.
        """
        views = sorted({field.view for field in contract.fields if field.view})
        if not views:
            return {}
        store, offline = self._applied_store(), self._offline.resolve()
        registered = {name: store.get_feature_view(name) for name in views}
        return {
            name: source_state(store.config, view)
            for name, view in registered.items()
            if not (self._folder / str(view.batch_source.path)).resolve().is_relative_to(offline)
        }

    def source_times(self, entities: pa.Table, contract: FeatureContract) -> list[SourceTime]:
        """Return, for one entity row, the times of the row that each view's features are read from."""
        features = [field for field in fields_of(entities, contract) if field.view]
        views = list(dict.fromkeys(field.view for field in features))
        if not views:
            return []
        with contract_errors(features):
            return source_times(self._applied_store(), views, entity_rows(entities, features, None))

    def newest(self, contract: FeatureContract, *, before: datetime) -> dict[str, datetime]:
        """Return the time of the newest row up to a moment, of each computed view that a contract reads."""
        names = sorted({field.view for field in contract.fields if field.view})
        times = {name: newest_row(self._offline / "features" / name, before) for name in names}
        return {name: moment for name, moment in times.items() if moment is not None}

    def _historical(
        self,
        entities: pa.Table,
        features: list[FeatureField],
        known_as_of: datetime | None,
        columns: Iterable[str] = (),
    ) -> AsofJob:
        store = self._applied_store()
        activity = {view.name for view in ACTIVITY_VIEWS}.intersection(field.view for field in features)
        if activity and not (self._offline / "features" / "state.json").exists():
            raise UsageError(f"features are not built: {_BUILD_FIRST}")
        job: AsofJob = store.get_historical_features(
            entity_rows(entities, features, known_as_of, columns),
            references(features),
            full_feature_names=True,
            filter_by_created_timestamp=True,
        )
        return job

    def _applied_store(self) -> FeatureStore:
        if not self.applied:
            raise UsageError(f"feature definitions were never applied in {self.home}: {_BUILD_FIRST}")
        return self._store

    @cached_property
    def _store(self) -> FeatureStore:
        import_feast()
        from feast import FeatureStore
        from feast.repo_config import RepoConfig

        write_yaml(self._folder, self._registry_url, self._offline / ".spill")
        settings = feast_config(self._registry_url, self._offline / ".spill")
        if lineage_is_wanted():  # then Feast tells, on apply, what the views are made of
            settings["openlineage"] = {"enabled": True}
        config = RepoConfig(**settings)
        config.repo_path = self._folder
        return FeatureStore(repo_path=str(self._folder), config=config)

    def _make_relative(self, source: Any) -> None:
        """Make a workspace source's path relative to Feast's folder, so that workspaces can be copied."""
        path = Path(str(getattr(source, "path", "")))
        if path.is_absolute() and path.is_relative_to(self.home):
            source.file_options.uri = os.path.relpath(path, self._folder)

    def _definitions(self) -> list[Any]:
        path = resource("feature_repo/definitions.py")
        definitions = load_module(path)
        entities = definitions.entities(self._offline)
        columns, affinity = self.columns(), self.built_affinity()
        if left_out := [f"{c.entity}s.{c.name} ({c.why})" for c in columns if c.kind == "drop"]:
            logger.warning("columns that the model does not read: %s", ", ".join(left_out))
        derived = self.derived(columns)
        refresh(self._offline, derived)
        ours = definitions.views(self._offline, entities, columns, affinity, derived)
        files = {*path.parent.glob("*.py"), *(self.home / "feature_repo").glob("*.py")} - {path}
        views = ours + own_views(
            sorted(files),
            offline=self._offline,
            entities=entities,
            ours=ours,
            ids=_id_types(self._offline),
            config=self._store.config,
        )
        for view in views:
            self._make_relative(getattr(view, "batch_source", None))
        return [*entities.values(), *views, *definitions.services(views)]


def _id_types(offline: Path) -> IdTypes:
    path = offline / "ids.json"
    if not path.exists():
        raise UsageError(
            f"nothing was imported under {offline}: import data first, e.g. `mmlora data import --help`"
        )
    return IdTypes(**read_json(path, "import the data again"))
