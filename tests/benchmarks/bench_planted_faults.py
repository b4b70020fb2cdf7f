"""Plant the forty faults one by one, or count false alarms over clean nights, for docs/quality.md."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from tests.conftest import SMALL
from tests.quality.planted_faults import DAY, FAULTS, NIGHT, Fault
from tests.quality.shop_nights import DAYS, HISTORY, copy, date_of, deliver, make_history, use

DOMAINS = ("us", "de", "fr")
"""The domains that are scored; all twelve are validated."""


def configure() -> None:
    """Set settings with which a training takes a minute or so."""
    training = {"REFIT": "false", "MAX_EPOCHS": "1", "ITEM_HISTORY": "false"}
    scoring = {"MMLORA_SCORING__TOP_K": "20"}
    os.environ.update(SMALL | scoring | {f"MMLORA_TRAINING__{name}": text for name, text in training.items()})


def prepare(folder: Path) -> Path:
    """Return a workspace with a model and a few published nights before :data:`DAY`; made once."""
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.train import train

    home = folder / "base"
    use(home)
    if (folder / "prepared").exists():
        return home
    make_history(folder / "files")
    train(date_of(HISTORY), adaptation="none")
    for number in range(HISTORY, DAY):
        deliver(folder / "files", number)
    for domain in DOMAINS:
        score_and_publish(date_of(DAY), domain=domain)
    (folder / "prepared").touch()
    return home


def caught_by(fault: Fault, folder: Path, home: Path) -> list[str]:
    """Plant a fault in a copy of a workspace; return what keeps its domain from being published."""
    from mmlora.errors import MmloraError
    from mmlora.nights.load import score
    from mmlora.pipeline.validate import explain_checks, validate

    on = date_of(NIGHT)
    os.chdir(copy(home, folder / "planted"))
    os.environ.update(fault.environment)
    try:
        fault.plant(folder / "files", folder / "planted")
        validate(on)
        score(on, fault.domain, **fault.options)
    except MmloraError as error:
        blocked = [
            c.check
            for c in explain_checks(on)
            if c.domain_id == fault.domain and not c.passed and c.severity == "block"
        ]
        return blocked or [f"refused: {error}"]
    finally:
        for name in fault.environment:
            del os.environ[name]
    return []


def clean_nights(folder: Path, home: Path, nights: int) -> Iterator[tuple[date, str, list[str]]]:
    """Deliver clean days; yield each night's domains with the checks that block them."""
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.validate import explain_checks, validate

    os.chdir(copy(home, folder / "clean"))
    for number in range(DAY, min(DAY + nights, DAYS)):
        deliver(folder / "files", number)
        on = date_of(number + 1)
        validate(on)
        for domain in DOMAINS:
            score_and_publish(on, domain=domain)
        blocked: dict[str, list[str]] = {}
        for check in explain_checks(on):
            blocked.setdefault(check.domain_id, [])
            if not check.passed and check.severity == "block":
                blocked[check.domain_id].append(f"{check.check} {check.figure}")
        for domain, checks in blocked.items():
            yield on, domain, checks


def main(folder: Path, what: str, nights: int) -> None:
    """Print one line per fault, or per false alarm."""
    configure()
    home = prepare(folder)
    print(f"prepared in {time.process_time():.0f} CPU-s", flush=True)
    if what == "faults":
        for number, fault in enumerate(FAULTS, 1):
            print(json.dumps([number, fault.name, caught_by(fault, folder, home)]), flush=True)
    else:
        total = alarms = 0
        for on, domain, checks in clean_nights(folder, home, nights):
            total, alarms = total + 1, alarms + bool(checks)
            if checks:
                print(on, domain, checks, flush=True)
        print(f"{alarms} of {total} domain-nights", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("faults", "clean"), default="faults")
    parser.add_argument("--nights", type=int, default=60, help="clean nights")
    parser.add_argument("--folder", type=Path, help="a folder to prepare once; a temporary one if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main((options.folder or Path(temporary)).resolve(), options.what, options.nights)
