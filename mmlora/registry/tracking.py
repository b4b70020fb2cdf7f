"""MLflow: runs with their curves, and a mirror of which bundle is champion or challenger.

MLflow only displays; the warehouse's ``promotions`` decide. This is the only module that imports it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlora.errors import TransientError
from mmlora.files import locked
from mmlora.names import Alias
from mmlora.redaction import redact
from mmlora.schema import Id

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "mmlora"
EXPERIMENT = "mmlora"
# Limits of MLflow's log_batch, the same for every store.
_METRICS_A_CALL = 1000
_PARAMS_A_CALL = 100
_PARAM_LENGTH = 6000
_NAME_LENGTH = 150


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        phase: ``backbone``, ``expert``, ``gate`` or anything else the curve belongs to, e.g. ``test/gate``.
        metric: ``loss``, ``auc``, ...
        step: the epoch.
        value: the value; points that aren't finite are left out.
        domain: the domain; None for all domains together.
    """

    phase: str
    metric: str
    step: int
    value: float
    domain: Id | None = None

    @property
    def name(self) -> str:
        """MLflow's name of the curve: ``phase/metric`` or ``phase/domain/metric``."""
        domain = [] if self.domain is None else [_shortened(_allowed(str(self.domain)))]
        return "/".join([_allowed(self.phase, "/"), *domain, _allowed(self.metric)])


@contextmanager
def _temporary_errors() -> Iterator[None]:
    """Turn MLflow's temporary errors (no answer, a locked database) into ``TransientError``."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED"):
            raise
        raise TransientError(f"MLflow doesn't answer: {error}") from error
    except OperationalError as error:  # MLflow doesn't wrap errors of its first database access
        raise TransientError(f"MLflow's database doesn't answer: {error.orig}") from error


class Tracking:
    """Runs and aliases in one MLflow.

    Args:
        url: MLflow's tracking URI, e.g. ``sqlite:////data/mlflow.db`` or ``https://mlflow.example.org``.
        artifacts: the folder for runs' artifacts, if the store is local.
        experiment: the name under which the runs are listed.

    Every method makes one or a few calls on a run's id, so the tasks of a training run may be in different
    processes. They raise :class:`~mmlora.errors.TransientError` if MLflow can't be reached or is locked.
    """

    def __init__(self, url: str, artifacts: Path, experiment: str = EXPERIMENT) -> None:
        self.url, self.artifacts, self.experiment = url, artifacts, experiment
        _silence()  # before anything imports mlflow, which reads these on import

    @_temporary_errors()
    def start_run(
        self, name: str, *, params: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> str:
        """Start a run and return its id."""
        from mlflow.entities import Param

        told = {name: redact(text) for name, text in (tags or {}).items()}
        run = self._client.create_run(self._experiment_id, run_name=name, tags=told)
        run_id = str(run.info.run_id)
        entries = [
            Param(_allowed(key, "/"), redact(str(value))[:_PARAM_LENGTH]) for key, value in params.items()
        ]
        for start in range(0, len(entries), _PARAMS_A_CALL):
            self._client.log_batch(run_id, params=entries[start : start + _PARAMS_A_CALL])
        return run_id

    @_temporary_errors()
    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        """Log curves, a thousand points per call."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        entries = [Metric(p.name, float(p.value), now, p.step) for p in points if math.isfinite(p.value)]
        for start in range(0, len(entries), _METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=entries[start : start + _METRICS_A_CALL])

    @_temporary_errors()
    def end_run(self, run_id: str, *, failed: bool = False) -> None:
        """Close a run."""
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    @_temporary_errors()
    def runs_of(self, model_version: str) -> list[str]:
        """Return the runs of this experiment that a model version came from."""
        experiment = self._client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        runs = self._client.search_runs(
            [experiment.experiment_id], filter_string=f"tags.model_version = '{model_version}'"
        )
        return [str(run.info.run_id) for run in runs]

    @_temporary_errors()
    def delete_run(self, run_id: str) -> None:
        """Delete a run, as MLflow does: its own ``mlflow gc`` removes it for good."""
        self._client.delete_run(run_id)

    @_temporary_errors()
    def mirror_alias(
        self, model_version: str, alias: Alias, bundle_dir: Path, *, run_id: str | None = None
    ) -> str:
        """Point an alias of the registered model at a bundle, registering the bundle if it is new.

        Returns:
            MLflow's own version number.
        """
        from mlflow.exceptions import MlflowException

        client = self._client
        try:
            client.create_registered_model(
                MODEL_NAME, description="mmlora bundles; the warehouse's promotions decide"
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        registered = client.search_model_versions(
            f"name = '{MODEL_NAME}' and tags.model_version = '{model_version}'"
        )
        if registered:
            number = str(registered[0].version)
        else:
            created = client.create_model_version(
                MODEL_NAME, self._source(bundle_dir), run_id, tags={"model_version": model_version}
            )
            number = str(created.version)
        client.set_registered_model_alias(MODEL_NAME, alias, number)
        return number

    @_temporary_errors()
    def aliases(self) -> dict[str, str]:
        """Return the model version that each alias points at."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(MODEL_NAME)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {
            alias: str(self._client.get_model_version(MODEL_NAME, number).tags["model_version"])
            for alias, number in model.aliases.items()
        }

    @property
    def _remote(self) -> bool:
        return self.url.startswith(("http:", "https:"))

    def _source(self, bundle_dir: Path) -> str:
        """Return the source URI: for a server with our own scheme, which refuses apparent local paths."""
        uri = bundle_dir.resolve().as_uri()
        return uri.replace("file:", "mmlora-bundle:", 1) if self._remote else uri

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient
        from sqlalchemy.exc import SADeprecationWarning

        for name in ("mlflow", "alembic"):  # importing mlflow sets its own level
            logging.getLogger(name).setLevel(logging.WARNING)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        # Two processes that both find no tables would both create them.
        with locked(self.artifacts / ".mlflow.lock"), warnings.catch_warnings():
            # MLflow's own tables use a deprecated SQLAlchemy feature, which a user can't change.
            warnings.filterwarnings(
                "ignore", "The ``noload`` loader strategy is deprecated", SADeprecationWarning
            )
            client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)
            client.search_experiments(max_results=1)
        return client

    @cached_property
    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        location = None if self._remote else self.artifacts.resolve().as_uri()
        if (existing := self._client.get_experiment_by_name(self.experiment)) is not None:
            return str(existing.experiment_id)
        try:
            return str(self._client.create_experiment(self.experiment, artifact_location=location))
        except MlflowException:  # another process was faster
            return str(self._client.get_experiment_by_name(self.experiment).experiment_id)


def _silence() -> None:
    """Switch off telemetry, migration logs and "view run at" lines, because only the command line prints."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def _shortened(name: str) -> str:
    """Return a name short enough for a curve's full name to stay within 250 characters."""
    if len(name) <= _NAME_LENGTH:
        return name
    return f"{name[: _NAME_LENGTH - 13]}.{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _allowed(text: str, more: str = "") -> str:
    """Return a name that MLflow allows; other characters become their code, so that names stay distinct."""
    cleaned = re.sub(rf"[^A-Za-z0-9_\- :{more}]", lambda match: f".{ord(match[0]):x}.", text)
    return cleaned.strip(" ") or ".empty"
