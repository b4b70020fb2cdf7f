"""Events of OpenLineage, configured as its client is: by ``openlineage.yml`` or ``OPENLINEAGE_*`` variables.

Each work is a run of the job named after it: START, then COMPLETE or FAIL. The part of a work is its child.
Work that isn't a part of other work has the parent that ``OPENLINEAGE_PARENT_ID`` names (and at the root
``OPENLINEAGE_ROOT_PARENT_ID``), each as ``namespace/job/run``; for Airflow's tasks the plugin sets both.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    RunFacet,
    base_subset_dataset,
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
)
from openlineage.client.uuid import generate_new_uuid

import mmlora
from mmlora.redaction import redact
from mmlora.telemetry.figures import Figure
from mmlora.telemetry.working import Dataset, Work

_PRODUCER = f"urn:mmlora:{mmlora.__version__}"
_PARTITIONED = ("score", "publish")
"""Jobs whose outputs have a part for each domain and date."""


_PAUSE = 600.0
"""Seconds without events after one that failed: the client tries each for 9 s, and a night has many."""


class OpenLineage:
    """The observer that emits OpenLineage's events.

    Args:
        client: delivers them.
    """

    def __init__(self, client: OpenLineageClient) -> None:
        self._client, self._paused_until = client, 0.0
        self._namespace = os.environ.get("OPENLINEAGE_NAMESPACE", "mmlora")
        self._runs: dict[Work, str] = {}

    def begins(self, work: Work) -> None:
        """Emit START."""
        self._runs[work] = str(generate_new_uuid())
        self._emit(work, RunState.START, {})

    def ends(self, work: Work, error: BaseException | None) -> None:
        """Emit COMPLETE; FAIL with the message of an error; ABORT after an interruption."""
        try:
            if error is None:
                self._emit(work, RunState.COMPLETE, {})
            else:
                stopped = not isinstance(error, Exception)
                self._emit(work, RunState.ABORT if stopped else RunState.FAIL, {"errorMessage": _told(error)})
        finally:
            del self._runs[work]

    def records(self, collect: Callable[[], Iterable[Figure]]) -> None:
        """Keep nothing: lineage has no figures."""

    def flush(self) -> None:
        """Do nothing: events are delivered as they are emitted."""

    def _emit(self, work: Work, state: RunState, facets: dict[str, RunFacet]) -> None:
        about = {**work.subject, **work.facts}
        facets["mmlora"] = RunFacet().with_additional_properties(**about)  # type: ignore[assignment]
        facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(
            version=mmlora.__version__, name="mmlora"
        )
        if work.date is not None:
            midnight = datetime.combine(work.date, datetime.min.time(), UTC)
            facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(midnight.isoformat())
        if (parent := self._parent(work)) is not None:
            facets["parent"] = parent
        kind = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="MMLORA", jobType="JOB")
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=state,
            run=Run(self._runs[work], facets),
            job=Job(self._namespace, work.job, {"jobType": kind}),
            inputs=[InputDataset(read.namespace, read.name) for read in work.reads],
            outputs=[_output(work, written) for written in work.writes],
            producer=_PRODUCER,
        )
        if time.monotonic() < self._paused_until:
            return
        try:
            self._client.emit(event)
        except Exception:
            self._paused_until = time.monotonic() + _PAUSE
            raise

    def _parent(self, work: Work) -> parent_run.ParentRunFacet | None:
        """Return the work that this is a part of, or what the environment names as the parent of all."""
        given, root = (os.environ.get(f"OPENLINEAGE_{name}PARENT_ID") for name in ("", "ROOT_"))
        if work.parent is not None:
            parent = (self._namespace, work.parent.job, self._runs[work.parent])
        elif given:
            parent = _parsed(given)
        else:
            return None
        namespace, job, run = parent
        of_all: parent_run.Root | None = None
        if root:
            root_namespace, root_job, root_run = _parsed(root)
            of_all = parent_run.Root(
                parent_run.RootRun(root_run), parent_run.RootJob(root_namespace, root_job)
            )
        return parent_run.ParentRunFacet(parent_run.Run(run), parent_run.Job(namespace, job), of_all)


def _parsed(identifier: str) -> tuple[str, str, str]:
    """Return the parts of ``namespace/job/run``; a namespace may have slashes itself."""
    namespace, job, run = identifier.rsplit("/", 2)
    return namespace, job, run


def _output(work: Work, written: Dataset) -> OutputDataset:
    """Return a dataset that was written, with the domain and date whose part it was, and its rows."""
    facets: dict[str, Any] = {}
    if work.job in _PARTITIONED:
        part = base_subset_dataset.Partition({"domain_id": work.domain, "score_date": str(work.date)})
        condition = base_subset_dataset.PartitionSubsetCondition([part])
        facets["subset"] = base_subset_dataset.OutputSubsetOutputDatasetFacet(condition)
        if "rows" in work.facts:
            rows = int(work.facts["rows"])
            facets["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=rows
            )
    return OutputDataset(written.namespace, written.name, outputFacets=facets)


def _told(error: BaseException) -> error_message_run.ErrorMessageRunFacet:
    trace = redact("".join(traceback.format_exception(error)))
    return error_message_run.ErrorMessageRunFacet(redact(str(error)), "python", trace)
