"""Made-up nights in a workspace's warehouse, without data or models, and a server of the page alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mmlora.check_rules import AuditCheck
from mmlora.load_checks import LoadChecks
from mmlora.schema import DomainVerdict
from mmlora.warehouse.quality import NightQuality, record_quality
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import open_workspace

CHAMPION, BEFORE, CHALLENGER = "20260301-3fa9c1d2", "20260201-77aa01bc", "20260302-5be01f20"
EVIDENCE = {"auc": 0.7312, "champion_auc": 0.7288, "difference": 0.0024, "low": 0.0003, "high": 0.0045}


def make_nights(home: Path, domains: int, nights: int, today: date) -> None:
    """Make nights up to today: most published, the newest running, others stale, blocked or missing."""
    (home / "offline").mkdir(parents=True)
    ids = {"user": "int64", "item": "int64", "domain": "string"}
    (home / "offline" / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    names = [f"domain-{number:03}" for number in range(domains)]
    days = [today - timedelta(days=n) for n in reversed(range(nights))]
    with open_workspace().open_warehouse() as warehouse:
        _decide(warehouse, names)
        _load(warehouse, names, days)
        _measure(warehouse, names, days[-4])
        broken = AuditCheck("volume_low", False, "12 rows, of 4,810 on a mean day", "block", 0.0025, 0.25)
        warehouse.record_verdicts(
            [
                DomainVerdict(names[0], days[0], "rich", 9, 3, 2, 2, 1.0, 0.3, "trains", ()),
                DomainVerdict(
                    *(
                        names[-1],
                        today,
                        "broken",
                        12,
                        1,
                        3,
                        4,
                        1.0,
                        0.08,
                        "not scored",
                        (str(broken),),
                        (broken,),
                    )
                ),
            ]
        )


def _decide(warehouse: Warehouse, names: list[str]) -> None:
    """Make two champions, the second in force, and a challenger that was compared with it."""
    compared = [{"domain": name, "standing": "better", **EVIDENCE} for name in ("all domains", *names)]
    evidence = {"pooled": compared[0], "domains": compared[1:]}
    for version, alias in ((BEFORE, "champion"), (CHAMPION, "champion"), (CHALLENGER, "challenger")):
        given = evidence if version == CHALLENGER else None
        warehouse.promote(None, version, alias=alias, who="ann", why="better last week", evidence=given)


def _measure(warehouse: Warehouse, names: list[str], day: date) -> None:
    figures = {
        "load_id": "made up",
        "model_version": CHAMPION,
        "impressions": 900,
        "scored": 640,
        "clicks": 71,
    }
    nights = [
        NightQuality(name, day, **figures, auc=0.69 + place % 7 / 100, calibration=0.96 + place % 5 / 50)
        for place, name in enumerate(names)
    ]
    record_quality(warehouse.database, warehouse.tables, nights)


def _load(warehouse: Warehouse, names: list[str], days: list[date]) -> None:
    passed = AuditCheck("score_shift", True, "PSI 0.04 against the night before", "block", 0.04, 0.25)
    failed = AuditCheck(
        *("score_shift", False, "PSI 0.61 against the night before", "block", 0.61, 0.25), owner="modelling"
    )
    rows, pointers, number = [], [], 0
    for place, name in enumerate(names):
        for age, day in enumerate(reversed(days)):
            state = _state(place, age)
            if state == "missing":
                continue
            number += 1
            began = datetime(day.year, day.month, day.day, 1, 5, tzinfo=UTC)
            audit = failed if state == "rejected" else passed
            checks = LoadChecks(users=4000, pairs=2_400_000, seconds=41.5, audit=(audit,))
            rows.append(
                {
                    "load_key": number,
                    "load_id": f"{day}-1-{number:012x}",
                    "domain_id": name,
                    "score_date": day,
                    "attempt": 1,
                    "state": state,
                    "model_version": BEFORE if age >= 20 else CHAMPION,
                    "contract_hash": "c0",
                    "rows": None if state == "running" else 80_000,
                    "checks": None if state == "running" else checks.to_json(),
                    "reason": f"1 check failed: {failed}" if state == "rejected" else None,
                    "started_at": began,
                    "heartbeat_at": datetime.now(UTC) + timedelta(hours=1),
                    "finished_at": None if state == "running" else began + timedelta(minutes=2),
                }
            )
            if state == "published":
                pointer = {"domain_id": name, "score_date": day, "load_key": number, "published_at": began}
                pointers.append(pointer)
    tables = warehouse.tables
    with warehouse.database.writing() as connection:
        connection.execute(sa.insert(tables.score_loads), rows)
        connection.execute(sa.insert(tables.publications), pointers)
        promises = [{"domain_id": name, "max_age_days": 2, "top_k": 20} for name in names]
        connection.execute(sa.insert(tables.promises), promises)


def _state(place: int, age: int) -> str:
    """Return the state of the load of a domain's night; ``missing`` for none."""
    if age == 0:
        return ("running", "published", "missing")[place % 3] if place else "running"
    if (place * 7 + age) % 41 == 3:
        return "rejected"
    return "missing" if (place * 5 + age * 3) % 61 == 7 else "published"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app on a free port; yield its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium of the system; yield None where there is none."""
    import shutil

    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
