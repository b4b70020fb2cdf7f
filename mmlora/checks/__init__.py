"""Checks of the offline store by Great Expectations, with a verdict per domain, and of each staged load.

``mmlora.checks.validation.run_validation`` reads the interactions known by a date, aggregates them in DuckDB
to one row per domain, checks this small frame with Great Expectations, writes Data Docs and derives the
verdicts. ``mmlora.checks.audit.audit_load`` runs the checks of a load. ``mmlora.checks.thresholds`` and
``verdicts`` import nothing heavy.
"""
