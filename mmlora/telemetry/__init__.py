"""Telemetry: what is being worked on, told to logs, OpenTelemetry and OpenLineage from one place.

::

    with work("score", domain=domain, date=on):      # at the edges: pipeline, nights, runs
        ...
        note(load=load.load_id)                      # what becomes known meanwhile, wherever that is

:mod:`~mmlora.telemetry.working` has the context manager. While its block runs, each log line has the domain,
date and load (:mod:`~mmlora.telemetry.logs`). Its beginning and end are told to observers, which exist only
where standard variables name a receiver (:mod:`~mmlora.telemetry.observers`): spans and metrics are made by
:mod:`~mmlora.telemetry.otel`, OpenLineage's events by :mod:`~mmlora.telemetry.lineage`. What a scraper gets
is computed from the warehouse instead: :mod:`~mmlora.telemetry.figures` declares these metrics, and
:mod:`~mmlora.telemetry.prometheus` writes them.
"""

from mmlora.telemetry.observers import lineage_is_wanted
from mmlora.telemetry.working import Dataset, Work, in_context, note, record, work

__all__ = ["Dataset", "Work", "in_context", "lineage_is_wanted", "note", "record", "work"]
