"""Run DAGs with an empty home for each task: run_dags.py FOLDER, which has interactions.csv and users.csv.

Prints how they ended and what readers get, as JSON. See test_dags.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmlora.airflow_plugin.local import run_dag, use_airflow_home
from tests.dags.run_dags import DOMAINS, NIGHT, TRAINED


def main(folder: Path) -> None:
    """Run everything and print it on the last line."""
    use_airflow_home(folder / "airflow")
    from mmlora.pipeline.data import import_tables
    from mmlora.pipeline.read import read_scores
    from mmlora.shared import session
    from mmlora.workspace import shared_workspace

    original, pulled = session.in_shared_workspace, []

    @contextmanager
    def on_a_new_machine(home: Path, url: str) -> Iterator[None]:
        home = folder / f"machine-{len(pulled)}"
        os.environ["MMLORA_HOME"] = str(home)
        with original(home, url):
            pulled.append(sum(path.stat().st_size for path in home.rglob("*") if path.is_file()))
            yield

    with patch.object(session, "in_shared_workspace", on_a_new_machine):
        with shared_workspace():
            import_tables(folder / "interactions.csv", users=folder / "users.csv")
        runs = [
            run_dag("training", date=TRAINED, adaptation="moe_mlora", seed=1),
            run_dag("nightly_scoring", date=NIGHT, top_k=5),
            run_dag("maintenance", date=NIGHT),
        ]
    published: dict[str, Any] = {}
    for domain in DOMAINS:
        with read_scores(domain) as reader:
            published[domain] = reader.read_all().num_rows
    results = {"runs": [asdict(run) for run in runs], "published": published, "machines": len(pulled)}
    sys.stdout.write("\n" + json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
