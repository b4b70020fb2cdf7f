"""The page in Airflow's UI on many made-up nights: prints a Markdown table of seconds (medians).

``answer`` is the time from the request to the whole page, ``painted`` that from opening it in Chromium to
the drawn map, ``night`` that from pressing Enter on a cell to its detail; ``CPU`` is what the server takes
for an answer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.dags.made_nights import browser, make_nights, served


def page_without_users() -> Any:
    """Return the page's app under its address, open to everybody."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import FastAPI

    from mmlora.airflow_plugin import page

    for dependency in (page.may_read.dependency, get_user):
        page.app.dependency_overrides[dependency] = lambda: None
    page.may_trigger = lambda user, dag: True
    app = FastAPI()
    app.mount("/mmlora", page.app)
    return app


def answer(address: str) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and bytes of an answer."""
    began, cpu = time.perf_counter(), time.process_time()
    with urllib.request.urlopen(address) as page:
        size = len(page.read())
    return time.perf_counter() - began, time.process_time() - cpu, size


def paint(chromium: Any, address: str) -> tuple[float, float]:
    """Return the seconds until the map is painted, and until a night is shown after that."""
    tab = chromium.new_page()
    tab.goto(address)
    painted = tab.evaluate("performance.getEntriesByName('painted')[0].startTime") / 1000
    tab.locator("#cursor").focus()
    began = time.perf_counter()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#night dl")
    seconds = time.perf_counter() - began
    tab.close()
    return painted, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=100)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "var"
        os.environ.update(MMLORA_HOME=str(home), AIRFLOW_HOME=str(Path(folder) / "airflow"))
        make_nights(home, options.domains, options.nights, datetime.now(UTC).date())
        with served(page_without_users()) as root, browser() as chromium:
            address = f"{root}/mmlora/?days={options.nights}"
            answer(address)  # the first loads libraries
            answers = [answer(address) for _ in range(options.repeats)]
            paints = [paint(chromium, address) for _ in range(options.repeats if chromium else 0)]
    seconds, cpu, size = (median(column) for column in zip(*answers, strict=True))
    shown = [f"{median(column):.2f}" for column in zip(*paints, strict=True)] or ["–", "–"]
    print("| domains | nights | answer | CPU | size, kB | painted | night |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    cells = [options.domains, options.nights, f"{seconds:.2f}", f"{cpu:.2f}", f"{size / 1000:.0f}", *shown]
    print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()
