"""``mmlora data``: read and check tables, and write them to the offline store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmlora.data.report import ImportReport
from mmlora.errors import UsageError
from mmlora.files import replacing, write_atomically
from mmlora.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.data.options import ReadOptions
    from mmlora.data.summary import ColumnNote
    from mmlora.data.synthetic import BestReachable
    from mmlora.schema import Entity

Files = Path | Sequence[Path] | None


@dataclass(frozen=True)
class TablesReport(ImportReport):
    """The result of an import of tables.

    Attributes:
        duplicates: number of interactions that equal another one.
        columns: the type of each column and the feature that it becomes.
    """

    duplicates: int = 0
    columns: tuple[ColumnNote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SyntheticReport(ImportReport):
    """The result of an import of synthetic domains.

    Attributes:
        truth: a Parquet file of each row's key, true probability, and shared and own part of the logit.
        best: the AUCs of the true probability.
    """

    truth: str
    best: BestReachable


@dataclass(frozen=True, kw_only=True)
class ShopReport(TablesReport):
    """The result of an import of a synthetic shop.

    Attributes:
        as_of: the day after the last imported day.
        next_day: a Parquet file of that day's interactions.
        truth: a Parquet file of the true click probabilities.
    """

    as_of: date
    next_day: str
    truth: str


@dataclass(frozen=True, kw_only=True)
class TaobaoReport(ImportReport):
    """The result of an import of Taobao's log.

    Attributes:
        clicks_without_vector: number of clicks left out because their user or item has no vector.
        sampling_file: the JSON file with ``sampling``.
        sampling: how negatives were sampled by theme, for :mod:`mmlora.data.taobao` to turn scores into CTR.
    """

    clicks_without_vector: int
    sampling_file: str
    sampling: tuple[Mapping[str, object], ...]


def accept_files() -> list[str]:
    """Accept the offline store's files as they are now; return how they differ from what was stored."""
    return open_workspace().store.accept_files()


def import_movielens(
    *,
    domain_by: Literal["gender", "age", "occupation", "genre"] = "gender",
    path: Path | None = None,
    positive_rating: int = 5,
    workspace: Workspace | None = None,
) -> ImportReport:
    """Import MovieLens-1M with one domain per gender, age group, occupation or first genre.

    The downloaded file is cached in the current workspace, even if the rows are imported into another.
    """
    from mmlora.data.movielens import read_movielens

    current = open_workspace()
    interactions, profiles = read_movielens(
        path, domain_by=domain_by, positive_rating=positive_rating, cache=current.home / "cache"
    )
    workspace = workspace or current
    return _write(workspace, interactions, profiles)


def import_tables(
    interactions: Files = (),
    *,
    users: Files = (),
    items: Files = (),
    domains: Files = (),
    options: ReadOptions | None = None,
    history: bool = False,
    replace: Literal["day", "domain-day"] | None = None,
    days: Sequence[date] = (),
    imported_at: datetime | None = None,
) -> TablesReport:
    """Import Parquet or CSV tables of the user; every column of the profiles becomes a feature.

    Args:
        interactions: files, folders or patterns; none to import profiles only.
        users: user profiles; ``items`` and ``domains`` likewise.
        items: see users.
        domains: see users.
        options: how to read the tables (:class:`mmlora.data.options.ReadOptions`).
        history: whether all interactions count as known when they happened.
        replace: whether to withdraw stored rows of the delivery's days (or of its domains' days) that the
            delivery does not have.
        days: with ``replace`` by day, further days to replace; the delivery may have no rows of them, and
            may even be empty.
        imported_at: when corrections and late rows became known; now if None.

    Raises:
        UsageError: ``days`` without ``replace`` by day, or ``replace`` without interactions or days.
    """
    from mmlora.data.options import TABLES, ReadOptions
    from mmlora.data.reader import read_delivery

    options = options or ReadOptions()
    workspace = open_workspace()
    profiles: dict[Entity, list[Path]] = {
        "user": _paths(users),
        "item": _paths(items),
        "domain": _paths(domains),
    }
    if days and replace != "day":
        raise UsageError("--day needs --replace day, because the whole day is replaced")
    if replace and not days and not _paths(interactions):
        raise UsageError(
            f"--replace {replace} needs interactions that replace the stored ones; to empty a day, give "
            "--replace day --day YYYY-MM-DD"
        )
    imported_at = imported_at or datetime.now(UTC)
    delivery = read_delivery(
        _paths(interactions),
        profiles,
        options=options,
        ids=workspace.ids_or_none,
        stored=workspace.store.profile_schemas(),
        now=imported_at,
        may_be_empty=bool(days),
    )
    report = workspace.store.write(
        delivery.interactions,
        delivery.profiles,
        imported_at=imported_at,
        history=history,
        replace=replace,
        days=days,
        valid_from={TABLES[table]: chosen for table, chosen in options.valid_from.items()},
        texts=options.texts_of(),
    )
    facts = {**vars(report), "notes": (*delivery.notes, *report.notes)}
    return TablesReport(**facts, duplicates=delivery.duplicates, columns=delivery.columns)


def _paths(files: Files) -> list[Path]:
    return [files] if isinstance(files, Path) else list(files or ())


def _write(workspace: Workspace, interactions: pa.Table, profiles: dict[Entity, pa.Table]) -> ImportReport:
    return workspace.store.write(interactions, profiles, imported_at=datetime.now(UTC))


def import_synthetic(
    *,
    domains: int = 20,
    users: int = 2000,
    items: int = 1000,
    rows: int = 200_000,
    days: int = 60,
    diversity: float = 0.5,
    sparsity: float = 0.5,
    families: int | None = None,
    seed: int = 0,
    vectors: int | None = None,
    workspace: Workspace | None = None,
) -> SyntheticReport:
    """Import synthetic domains, and write the true probability of every row to a file beside the store.

    The arguments are those of :class:`mmlora.data.synthetic.Dials`, and the workspace to import into, by
    default the current one.

    Raises:
        UsageError: a dial is out of range, or the workspace holds other data.
    """
    import pyarrow.parquet as pq

    from mmlora.data.synthetic import Dials, best_reachable, make_synthetic

    dials = Dials(domains, users, items, rows, days, diversity, sparsity, families, seed, vectors)
    dials.check()
    workspace = workspace or open_workspace()
    made_with = asdict(dials)
    if vectors is None:  # releases before vectors did not record it
        del made_with["vectors"]
    folder = _claim(workspace, "synthetic", made_with)
    data = make_synthetic(dials)
    best = best_reachable(data)
    truth = folder / "truth.parquet"
    with replacing(truth) as aside:
        pq.write_table(data.truth, aside)
    write_atomically(folder / "best.json", json.dumps(best.to_json(), indent=2) + "\n")
    report = _write(workspace, data.interactions, data.profiles)
    return SyntheticReport(**vars(report), truth=str(truth), best=best)


def import_shop(*, seed: int = 1, scale: float = 1.0, days: int = 60) -> ShopReport:
    """Write the files of a synthetic shop to ``<home>/shop``, and import them like a user's files.

    The interactions of the day after and the truth are kept in that folder for judging; training and scoring
    do not read them.

    Raises:
        UsageError: a dial is out of range, or the workspace holds other data.
    """
    from mmlora.data.shop import ShopDials
    from mmlora.data.shop_files import write_shop

    dials = ShopDials(seed, scale, days)
    dials.check()
    files = write_shop(_claim(open_workspace(), "shop", asdict(dials)), dials)
    report = import_tables(files.interactions, users=files.users, items=files.items)
    next_day, truth = str(files.next_day), str(files.truth)
    return ShopReport(**vars(report), as_of=files.as_of, next_day=next_day, truth=truth)


def import_taobao(
    path: Path, *, themes: int = 10, seed: int = 0, workspace: Workspace | None = None
) -> TaobaoReport:
    """Import Taobao's theme click log with one domain per theme, and negatives sampled for its clicks.

    Raises:
        UsageError: the folder does not exist, or the workspace holds other data.
        DataError: a file is missing or invalid, or there are too few themes.
    """
    from mmlora.data.taobao import FILES, read_taobao

    workspace = workspace or open_workspace()
    data = read_taobao(path, themes=themes, seed=seed)
    # Other files or themes would give other negatives, which would mix with the stored ones.
    sizes = {name: (path / name).stat().st_size for name in FILES}
    folder = _claim(workspace, "taobao", {"themes": themes, "seed": seed, "bytes": sizes})
    sampling, file = data.sampling.to_pylist(), folder / "sampling.json"
    write_atomically(file, json.dumps(sampling, indent=2) + "\n")
    report = _write(workspace, data.interactions, data.profiles)
    return TaobaoReport(
        **vars(report),
        clicks_without_vector=data.without_vector,
        sampling_file=str(file),
        sampling=tuple(sampling),
    )


def _claim(workspace: Workspace, name: str, made_with: Mapping[str, object]) -> Path:
    """Create and return the folder ``home/name`` of generated data, which must not mix with other data.

    Raises:
        UsageError: the store holds data that was not generated with the same arguments.
    """
    folder = workspace.home / name
    record, text = folder / "made_with.json", json.dumps(made_with, indent=2, sort_keys=True) + "\n"
    same = record.exists() and record.read_text(encoding="utf-8") == text
    if not same and workspace.store.days():
        raise UsageError(
            f"{workspace.home} holds other data, which must not mix with generated rows; set MMLORA_HOME to "
            "a new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Written before the rows are stored, so that an import that was killed can be run again.
    write_atomically(record, text)
    return folder
