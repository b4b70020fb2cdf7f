"""The workspace: its folders, stores and connections, according to the settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from mmlora.check_rules import CheckRule, rules_in_force
from mmlora.errors import UsageError
from mmlora.files import write_atomically
from mmlora.schema import Id, IdTypes
from mmlora.settings import Settings, load_settings

if TYPE_CHECKING:
    from mmlora.data.store import OfflineStore
    from mmlora.features.repo import FeatureRepo
    from mmlora.registry.bundle import BundleStore
    from mmlora.registry.parts import PartStore
    from mmlora.registry.tracking import Tracking
    from mmlora.shared.session import Session
    from mmlora.warehouse.warehouse import Warehouse

Progress = Callable[[str, int, int], None]
_WAREHOUSE = "warehouse.json"
STAGING_LOCK = ".lock"
"""File in a load's folder that its process locks while it stages the load's rows."""


class _Session:
    """A warehouse shared by several calls, opened by the first and closed by the last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._warehouse: Warehouse | None = None

    @contextmanager
    def opened(self, connect: Callable[[], Warehouse]) -> Iterator[Warehouse]:
        with self._lock:
            warehouse = self._warehouse = self._warehouse or connect()
            self._users += 1
        try:
            yield warehouse
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._warehouse = None
                    warehouse.close()


def silent(what: str, done: int, total: int) -> None:
    """Ignore a report of progress."""


@dataclass(frozen=True)
class Workspace:
    """Everything under ``home``, opened on first use.

    Each command creates one by :func:`open_workspace`; nothing else reads settings.
    """

    settings: Settings

    @property
    def home(self) -> Path:
        """The workspace's folder, absolute."""
        return self.settings.home.resolve()

    @property
    def offline(self) -> Path:
        """The offline store's folder."""
        return self.home / "offline"

    @property
    def warehouse_url(self) -> str:
        """SQLAlchemy URL of the warehouse."""
        return self.settings.warehouse_url or f"sqlite:///{self.home / 'warehouse.db'}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's tracking URI."""
        return self.settings.mlflow_url or f"sqlite:///{self.home / 'mlflow.db'}"

    @cached_property
    def store(self) -> OfflineStore:
        """The offline store of interactions and profiles."""
        from mmlora.data.store import OfflineStore

        return OfflineStore(self.offline)

    @property
    def ids(self) -> IdTypes:
        """The id types of the imported data."""
        return self.store.ids

    @property
    def ids_or_none(self) -> IdTypes | None:
        """The id types, or None before the first import."""
        return self.ids if (self.offline / "ids.json").exists() else None

    @cached_property
    def feature_repo(self) -> FeatureRepo:
        """The Feast repository: definitions, contract and retrieval."""
        from mmlora.features.repo import FeatureRepo

        return FeatureRepo(
            home=self.home,
            registry_url=self.settings.feast_registry_url,
            columns=self.settings.features.columns,
        )

    @cached_property
    def parts(self) -> PartStore:
        """The store of the parts of bundles."""
        from mmlora.registry.parts import PartStore

        return PartStore(self.home / "registry" / "parts")

    @cached_property
    def bundles(self) -> BundleStore:
        """The store of bundles by model version."""
        from mmlora.registry.bundle import BundleStore

        return BundleStore(self.home / "registry")

    @cached_property
    def tracking(self) -> Tracking:
        """The tracking server to which runs and aliases are mirrored."""
        from mmlora.registry.tracking import Tracking

        return Tracking(self.mlflow_url, artifacts=self.home / "mlartifacts")

    @property
    def shared(self) -> Session | None:
        """The session of the shared workspace; None if there is none, or if the parent process has it."""
        if not self.settings.shared_url:
            return None
        from mmlora.shared.session import session_of

        return session_of(self.home)

    def push(self) -> None:
        """Share what was written so far, if the workspace is shared.

        It is called before the warehouse refers to files, as other machines read it at once.
        """
        if (session := self.shared) is not None:
            session.push()

    def stored(self, path: str) -> bytes | None:
        """Return a file's content, from the shared workspace if there is one; None if it doesn't exist."""
        if self.settings.shared_url:
            from mmlora.shared.remote import Remote

            return Remote(self.settings.shared_url).read(path)
        file = self.home / path
        return file.read_bytes() if file.is_file() else None

    @contextmanager
    def open_warehouse(self) -> Iterator[Warehouse]:
        """Open the warehouse, and create it if it does not exist.

        While it is open, opening it again through the same workspace returns the same instance, in any
        thread.

        Raises:
            ContractError: the database isn't the warehouse that this workspace has used before.
        """
        with self._session.opened(self._connect) as warehouse:
            yield warehouse

    @cached_property
    def _session(self) -> _Session:
        return _Session()

    def _connect(self) -> Warehouse:
        from mmlora.warehouse.warehouse import Warehouse

        identity = self.warehouse_identity
        warehouse = Warehouse.open(self.warehouse_url, ids=self.ids, identity=identity)
        if identity is None:
            self.keep_identity(warehouse)
        return warehouse

    @property
    def warehouse_identity(self) -> str | None:
        """The identity of the workspace's warehouse; None before it was first opened."""
        path = self.home / _WAREHOUSE
        if not path.exists():
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["identity"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{path} can't be read: restore it from a backup, or run `mmlora migrate "
                "--accept-warehouse`, which keeps the identity of the warehouse at warehouse_url"
            ) from None

    def keep_identity(self, warehouse: Warehouse) -> None:
        """Record a warehouse's identity, so that the workspace rejects any other from now on."""
        write_atomically(self.home / _WAREHOUSE, json.dumps({"identity": warehouse.identity}) + "\n")

    @cached_property
    def check_rules(self) -> dict[str, CheckRule]:
        """Every rule of the checks by name, with the settings applied."""
        limits = {**self.settings.checks.model_dump(), **self.settings.scoring.model_dump()}
        return rules_in_force(limits, self.settings.checks.changes())

    def domain(self, text: Id) -> Id:
        """Return the known domain that a command-line text names.

        Raises:
            UsageError: the domain does not exist; the valid ones are listed.
        """
        known = self.expected_domains()
        for domain in known:
            if str(domain) == str(text):
                return domain
        names = ", ".join(str(domain) for domain in known) or "none: import data first"
        raise UsageError(f"there is no domain {text!r}; the domains are {names}")

    def expected_domains(self) -> list[Id]:
        """Return the domains ever seen and those expected by the settings, sorted."""
        ids = self.ids
        try:
            expected = {ids.parse("domain", name) for name in self.settings.checks.domains}
        except ValueError as error:
            raise UsageError(f"settings: checks.domains: {error}, as the data's domain ids are") from None
        return sorted({*self.store.domains(), *expected}, key=lambda domain: (str(type(domain)), domain))

    def training_set_folder(self, training_set_id: str) -> Path:
        """Return the folder of a training set, fetched if it is in the shared workspace."""
        if (session := self.shared) is not None:
            session.fetch(f"training_sets/{training_set_id}")
        return self.home / "training_sets" / training_set_id

    def staging_folder(self, load_id: str) -> Path:
        """Return the folder of a load's staged rows."""
        return self.home / "staging" / load_id


@contextmanager
def shared_workspace() -> Iterator[None]:
    """Pull the shared workspace before the block, and push what has changed after it; else do nothing.

    See :func:`mmlora.shared.session.in_shared_workspace`, also for what it raises.
    """
    settings = load_settings()
    if not settings.shared_url:
        yield
        return
    from mmlora.shared.session import in_shared_workspace

    with in_shared_workspace(settings.home.resolve(), settings.shared_url):
        yield


def open_workspace(settings: Settings | None = None) -> Workspace:
    """Open the workspace of the settings, and create its folder if it does not exist.

    Raises:
        UsageError: the folder can't be created, or the workspace is shared and wasn't pulled.
    """
    workspace = Workspace(settings or load_settings())
    _ = workspace.shared
    try:
        workspace.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the workspace {workspace.home} cannot be created: {error.strerror}; "
            "set MMLORA_HOME to a folder that you can write to"
        ) from None
    return workspace
