"""Checks: of the offline store by Great Expectations, with a verdict on each domain; of each staged load.

``mmlora.checks.validation.run_validation`` is the door: it reads the interactions known by a date, boils
them down to one row a domain in DuckDB, has Great Expectations judge this small frame, writes Data Docs and
turns the results into verdicts. ``mmlora.checks.audit.audit_load`` is the door to the checks of a load.
 ``mmlora.checks.thresholds`` and ``verdicts`` import nothing heavy.
"""
