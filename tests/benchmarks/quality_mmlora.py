"""The documented path in a fresh workspace, by the command line, as a new user goes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

KEY = ["domain_id", "user_id", "item_id"]


class Session:
    """A workspace, and verbs run in it.

    Attributes:
        folder: where ``mmlora.toml`` lies; the workspace is ``folder/var``.
        seconds: by verb, of the last time it ran.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seconds = folder, dict[str, float]()
        self.environment = {**os.environ, "MMLORA_HOME": str(folder / "var"), **settings}
        self("init")

    @property
    def home(self) -> Path:
        return self.folder / "var"

    def __call__(self, *arguments: object, may_fail: bool = False) -> Any:
        """Run a verb and return its result; ``may_fail`` accepts a result with exit status 1."""
        command = [str(Path(sys.executable).with_name("mmlora")), *map(str, arguments)]
        begun = time.monotonic()
        done = subprocess.run(
            [*command, "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.seconds[str(arguments[0])] = time.monotonic() - begun
        if done.returncode and not (may_fail and done.returncode == 1 and done.stdout.strip()):
            sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)

    def train(self, as_of: str) -> dict[str, Any]:
        """Build features, validate and train with default settings; return what the training says."""
        self("features", "build", "--through", as_of)
        self("validate", "--as-of", as_of, may_fail=True)  # a market may have closed
        return dict(self("train", "--as-of", as_of))

    @property
    def training_seconds(self) -> float:
        """From imported rows to a registered model."""
        return sum(self.seconds[verb] for verb in ("features", "validate", "train"))

    def scores(self, on: str, *options: object) -> pa.Table:
        """Score a date and read what is published for it; a domain with nothing to score is left out."""
        result = self("score", "--date", on, *options, may_fail=True)
        parts = []
        for load in result["loads"]:
            if load["state"] == "published":
                file = self.folder / "scores.parquet"
                arguments = ("read", "--domain", load["domain_id"], "--date", on, "--format", "parquet")
                self._read(*arguments, "--output", str(file))
                parts.append(pq.ParquetFile(file).read())
        return pa.concat_tables(parts)

    def _read(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("mmlora")), *arguments]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True)


def scores_of(rows: pa.Table, scores: pa.Table) -> pd.Series:
    """Return each row's score, ``[N]``; null where its pair has none."""
    left, right = rows.select(KEY).to_pandas(), scores.select([*KEY, "score"]).to_pandas()
    return left.astype(str).merge(right.astype(dict.fromkeys(KEY, str)), how="left", on=KEY)["score"]
