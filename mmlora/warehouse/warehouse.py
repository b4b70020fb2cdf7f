"""The warehouse's interface: each step of a load's life, and reading."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmlora.load_checks import LoadChecks
from mmlora.names import LedgerAction
from mmlora.numerics import Numerics
from mmlora.schema import DomainVerdict, Id, LoadState
from mmlora.warehouse import decisions, ledger, loads, models, nights, publish, reading, verify
from mmlora.warehouse.decisions import Promotion
from mmlora.warehouse.ledger import LedgerEntry
from mmlora.warehouse.loads import Load
from mmlora.warehouse.models import ModelFacts
from mmlora.warehouse.nights import Night
from mmlora.warehouse.opening import OpenedWarehouse
from mmlora.warehouse.publish import Publication
from mmlora.warehouse.verify import Verified

STALE_AFTER = timedelta(minutes=2)


class Warehouse(OpenedWarehouse):
    """Scores, loads, publications, promotions and verdicts in one database.

    An instance can be used from several threads; processes need one each. All methods may raise
    ``TransientError`` when the database is unavailable or a lock is held for too long.
    """

    # Loads

    def begin_load(
        self,
        domain: Id,
        score_date: date,
        *,
        model_version: str,
        contract_hash: str,
        stale_after: timedelta = STALE_AFTER,
    ) -> Load:
        """Begin a load; loads of its domain and date without a heartbeat for ``stale_after`` are failed."""
        self._check_id("domain", domain)
        with self.database.writing() as connection:
            return loads.begin(
                connection,
                self.tables,
                domain=domain,
                score_date=score_date,
                model_version=model_version,
                contract_hash=contract_hash,
                stale_after=stale_after,
            )

    def heartbeat(self, load: Load) -> None:
        """Send a heartbeat; raise ``TransientError`` when the load was given up meanwhile."""
        with self.database.writing() as connection:
            loads.beat(connection, self.tables, load)

    def mark_staged(
        self,
        load: Load,
        *,
        rows: int,
        content_hash: str,
        checks: LoadChecks,
        numerics: Numerics | None = None,
    ) -> None:
        """Record that a running load's rows are staged and passed the audit, and what computed them."""
        with self.database.writing() as connection:
            loads.stage(
                connection,
                self.tables,
                load,
                rows=rows,
                content_hash=content_hash,
                checks=checks,
                numerics=numerics,
            )

    def fail(self, load: Load, reason: str) -> None:
        """End an open load with an error."""
        with self.database.writing() as connection:
            loads.end(connection, self.tables, load, "failed", reason=reason)

    def reject(self, load: Load, reason: str, checks: LoadChecks | None = None) -> None:
        """End an open load that failed a check."""
        with self.database.writing() as connection:
            loads.end(connection, self.tables, load, "rejected", reason=reason, checks=checks)

    def publish(self, load: Load, files: Iterable[Path]) -> Load:
        """Write a staged load's rows, then publish it; publishing it again changes nothing.

        Returns:
            The load: ``published``, or ``superseded`` when a later attempt is published already.

        Raises:
            UsageError: the load isn't staged.
            DataError: the files' rows differ from the audited ones, or the files are missing or unreadable.
            ContractError: the files' columns differ from ``scores_schema``.
            CheckError: the load failed or was rejected; only a new load can be published.
        """
        with self.database.alone(f"publish-{load.load_key}"):
            return publish.publish(self.database, self.tables, self.ids, load, files, self._writer)

    def load(self, load_id: str) -> Load:
        """Return a load by its name; ``UsageError`` when there is none."""
        with self.database.reading() as connection:
            return loads.find_by_id(connection, self.tables, load_id)

    def loads(
        self,
        *,
        domain: Id | None = None,
        score_date: date | None = None,
        states: Sequence[LoadState] = (),
        limit: int | None = None,
    ) -> list[Load]:
        """Return loads, newest first."""
        self._check_id("domain", domain)
        with self.database.reading() as connection:
            return loads.listing(
                connection, self.tables, domain=domain, score_date=score_date, states=states, limit=limit
            )

    def stale_loads(self, older_than: timedelta = STALE_AFTER) -> list[Load]:
        """Return the running loads without a heartbeat for longer than ``older_than``."""
        with self.database.reading() as connection:
            return loads.stale(connection, self.tables, older_than)

    # Publications and reading

    def publication(self, domain: Id, score_date: date | None = None) -> Publication | None:
        """Return the publication of a domain and date (the newest date when None), or None."""
        newest_first = self.publications(domain=domain, start=score_date, end=score_date)
        return newest_first[0] if newest_first else None

    def publications(
        self, *, domain: Id | None = None, start: date | None = None, end: date | None = None
    ) -> list[Publication]:
        """Return the publications by domain, newest date first; ``start`` and ``end`` are inclusive."""
        self._check_id("domain", domain)
        with self.database.reading() as connection:
            return publish.publications(connection, self.tables, domain=domain, start=start, end=end)

    def read(
        self,
        domain: Id,
        *,
        score_date: date | None = None,
        user: Id | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream a domain's published scores by user and position, with the views' columns.

        Args:
            domain: the domain.
            score_date: the date; None reads the newest published one.
            user: read only this user's scores.
            limit: maximum number of rows.
        """
        published = self.publication(domain, score_date)
        users = None if user is None else [user]
        return self.read_publications([published] if published else [], users=users, limit=limit)

    def read_publications(
        self,
        published: Sequence[Publication],
        *,
        users: Collection[Id] | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream publications in turn, each by user and position, with the views' columns.

        Args:
            published: which.
            users: only these users'; all when None.
            limit: at most so many rows of all together.
        """
        for user in users or ():
            self._check_id("user", user)
        return reading.read(self.database, self.tables, self.ids, published, users=users, limit=limit)

    def freed_nights(self, domain: Id, start: date, end: date) -> list[date]:
        """Return the dates whose scores `mmlora gc` has freed, so that nothing is published for them."""
        self._check_id("domain", domain)
        with self.database.reading() as connection:
            return loads.freed_nights(connection, self.tables, domain, start, end)

    def rows_of(self, load: Load) -> pa.RecordBatchReader:
        """Stream the rows of a published or formerly published load, like :meth:`read`.

        Raises:
            DataError: its rows were freed.
        """
        loads.refuse_freed(load)
        return self.read_publications([publish.Publication.of(load)])

    # Taking back, nights

    def unpublish(self, domain: Id, score_date: date, *, who: str, why: str) -> Load:
        """Unpublish a domain and date, and return the load, now ``superseded``.

        Raises:
            UsageError: nothing is published there.
        """
        self._check_id("domain", domain)
        with self.database.writing() as connection:
            return ledger.unpublish(
                connection, self.tables, domain=domain, score_date=score_date, who=who, why=why
            )

    def restore(self, load: Load, *, who: str, why: str) -> Load:
        """Publish a formerly published load again, and return it, now ``published``.

        Raises:
            UsageError: it was never published.
            DataError: its rows were freed or are incomplete.
        """
        with self.database.writing() as connection:
            return ledger.restore(connection, self.tables, load, who=who, why=why)

    def record(self, load: Load, action: LedgerAction, *, who: str, why: str) -> None:
        """Append a change to a load that isn't published yet to the ledger."""
        with self.database.writing() as connection:
            ledger.record(connection, self.tables, load, action, before=None, who=who, why=why)

    def ledger(self, domain: Id | None = None, *, limit: int | None = None) -> list[LedgerEntry]:
        """Return the manual changes to publications, newest first."""
        self._check_id("domain", domain)
        with self.database.reading() as connection:
            return ledger.entries(connection, self.tables, domain=domain, limit=limit)

    def record_failure(self, domain: Id, score_date: date, reason: str) -> None:
        """Record why a domain isn't published for a date."""
        self._check_id("domain", domain)
        with self.database.writing() as connection:
            nights.record_failure(
                connection, self.tables, domain=domain, score_date=score_date, reason=reason
            )

    def failures(self, on: date) -> dict[Id, str]:
        """Return why domains aren't published for a date, as recorded by :meth:`record_failure`."""
        with self.database.reading() as connection:
            return nights.failures(connection, self.tables, on)

    def nights(self, on: date | None = None, *, limit: int | None = None) -> list[Night]:
        """Return the nights with their published and missing domains, newest first."""
        with self.database.reading() as connection:
            return nights.nights(connection, on=on, limit=limit)

    def verify(
        self, *, domain: Id | None = None, start: date | None = None, end: date | None = None
    ) -> Iterator[Verified]:
        """Count and hash each published load in turn; ``start`` and ``end`` are inclusive."""
        self._check_id("domain", domain)
        return verify.verify(self.database, self.tables, self.ids, domain=domain, start=start, end=end)

    def verify_staged(self, load: Load, files: Iterable[Path]) -> Verified | None:
        """Hash the files of a load that is staged; None when it no longer is."""
        return verify.verify_staged(self.database, self.tables, self.ids, load, files)

    # Decisions and models

    def record_models(self, facts: Sequence[ModelFacts]) -> None:
        """Keep where models come from, for the view ``published_lineage``."""
        models.record_models(self.database, self.tables, facts)

    def record_verdicts(self, verdicts: Sequence[DomainVerdict]) -> None:
        """Store verdicts; a later one for the same domain and day replaces the earlier one."""
        for verdict in verdicts:
            self._check_id("domain", verdict.domain_id)
        with self.database.writing() as connection:
            decisions.record_verdicts(connection, self.tables, verdicts)

    def verdicts(
        self, as_of: date, until: date | None = None, *, domain: Id | None = None
    ) -> list[DomainVerdict]:
        """Return the verdicts of a day, or of the days up to ``until``, by day and domain.

        Args:
            as_of: the day.
            until: the last day; None means the same.
            domain: this domain's only.
        """
        if domain is not None:
            self._check_id("domain", domain)
        with self.database.reading() as connection:
            return decisions.verdicts(connection, self.tables, as_of, until, domain)

    def promote(
        self,
        domain: Id | None,
        model_version: str,
        *,
        alias: str,
        who: str,
        why: str,
        metrics: Mapping[str, float | None] | None = None,
        goes_back_to: int | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> Promotion:
        """Append a decision for a domain, or for all (None). Decisions are never changed or deleted.

        For a rollback, ``goes_back_to`` is the id of the earlier decision to put in force again.
        ``evidence`` is the comparison that the decision is based on.
        """
        self._check_id("domain", domain)
        with self.database.writing() as connection:
            return decisions.promote(
                connection,
                self.tables,
                domain=domain,
                model_version=model_version,
                alias=alias,
                who=who,
                why=why,
                metrics=metrics or {},
                goes_back_to=goes_back_to,
                evidence=evidence,
            )

    def register(
        self,
        model_version: str,
        *,
        who: str,
        metrics: Mapping[str, float | None] | None = None,
        only_first: bool = False,
        note: str = "",
    ) -> Promotion | None:
        """Make a new model the champion of all domains if there is none, else the challenger.

        It runs in one transaction, so only one of two concurrent first models becomes the champion;
        registering a model again changes nothing. With ``only_first`` a later model doesn't become the
        challenger, and None is returned; ``note`` is added to the reason.
        """
        with self.database.writing() as connection:
            return decisions.register(
                connection,
                self.tables,
                model_version=model_version,
                who=who,
                metrics=metrics or {},
                only_first=only_first,
                note=note,
            )

    def replace_champion(
        self, before: str, model_version: str, *, alias: str, domains: Sequence[Id], who: str, why: str
    ) -> list[Id | None]:
        """Give a version an alias wherever ``before`` is the champion, in one transaction.

        Domains with a champion of their own keep it. Returns the domains, of those given, that ``before`` is
        the champion of, with None if it is the champion of all.
        """
        with self.database.writing() as connection:
            return decisions.replace_champion(
                connection,
                self.tables,
                before=before,
                model_version=model_version,
                alias=alias,
                domains=domains,
                who=who,
                why=why,
            )

    def promotions(
        self, alias: str, domain: Id | None = None, *, limit: int | None = None
    ) -> list[Promotion]:
        """Return the decisions that apply to a domain (its own and those for all), newest first."""
        self._check_id("domain", domain)
        with self.database.reading() as connection:
            return decisions.promotions(connection, self.tables, alias=alias, domain=domain, limit=limit)

    def decisions(self, *, limit: int | None = None) -> list[Promotion]:
        """Return the decisions of all aliases and domains, newest first."""
        with self.database.reading() as connection:
            return decisions.every_promotion(connection, self.tables, limit=limit)

    def standing(self) -> list[Promotion]:
        """Return the decisions that a domain, or all domains together, follow now, oldest first."""
        with self.database.reading() as connection:
            return decisions.standing(decisions.every_promotion(connection, self.tables))

    def current(self, alias: str, domain: Id | None = None) -> str | None:
        """Return the model version of the newest decision for a domain, or for all domains (None)."""
        newest = self.promotions(alias, domain, limit=1)
        return newest[0].model_version if newest else None
