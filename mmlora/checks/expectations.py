"""The package's only interface to Great Expectations: check a frame by rules, return the failures.

Importing Great Expectations takes seconds, so this module is imported only when a validation runs. The
context is kept in memory.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mmlora.checks.rules import Rule
from mmlora.errors import CheckError

os.environ["GX_ANALYTICS_ENABLED"] = "false"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

# COMPLETE lists every failing row, not the first twenty.
_RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": ["domain", "first_file_at_fault"],
}


@dataclass(frozen=True)
class FailedExpectation:
    """A rule that failed for a domain (by its name in the frame); ``file`` is the first file at fault."""

    rule: Rule
    domain: str
    value: float
    file: str = ""

    @property
    def reason(self) -> str:
        """The fault, with the domain's value."""
        reason = self.rule.reason.format(value=self.value)
        return f"{reason}, first in {self.file}" if self.file else reason


@dataclass(frozen=True)
class Outcome:
    """The results of Great Expectations.

    Attributes:
        suites: ``result.success`` by suite.
        failures: every failed rule of every domain.
    """

    suites: dict[str, bool]
    failures: list[FailedExpectation]


def run_suites(frame: pa.Table, rules: Sequence[Rule]) -> Outcome:
    """Check the frame by the rules.

    Raises:
        CheckError: an expectation could not be evaluated at all.
    """
    data = frame.to_pandas()
    outcome = Outcome({}, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = _context()
        asset = context.data_sources.add_pandas("offline_store").add_dataframe_asset("domains")
        batch = asset.add_batch_definition_whole_dataframe("domains")
        for name in dict.fromkeys(rule.suite for rule in rules):
            suite_rules = [rule for rule in rules if rule.suite == name]
            expectations = [_expectation(number, rule) for number, rule in enumerate(suite_rules)]
            suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            result = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": data}, result_format=_RESULT_FORMAT
            )
            outcome.suites[name] = bool(result.success)
            outcome.failures.extend(_failures(name, suite_rules, result))
    return outcome


def _context() -> Any:
    """Return a context that keeps everything in memory."""
    stores = {
        "expectations": "ExpectationsStore",
        "checkpoints": "CheckpointStore",
        "results": "ValidationResultsStore",
        "validation_definition_store": "ValidationDefinitionStore",
    }
    config = DataContextConfig(
        stores={
            name: {"class_name": kind, "store_backend": {"class_name": "InMemoryStoreBackend"}}
            for name, kind in stores.items()
        },
        expectations_store_name="expectations",
        checkpoint_store_name="checkpoints",
        validation_results_store_name="results",
        data_docs_sites={},
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _expectation(number: int, rule: Rule) -> Any:
    return gx.expectations.ExpectColumnValuesToBeBetween(
        column=rule.column,
        min_value=rule.minimum,
        max_value=rule.maximum,
        description=rule.meaning,
        severity="critical" if rule.verdict == "broken" else "warning",
        meta={"rule": number},
    )


def _failures(suite: str, rules: Sequence[Rule], result: Any) -> list[FailedExpectation]:
    """Return the failures in a suite's result."""
    failures = []
    for expectation in result.results:
        if expectation.success:
            continue
        rule = rules[expectation.expectation_config.meta["rule"]]
        failed_rows = expectation.result.get("unexpected_index_list")
        if not failed_rows:
            raise CheckError(suite, [f"{rule.column} could not be evaluated: {expectation.exception_info}"])
        failures += [
            FailedExpectation(
                rule,
                row["domain"],
                float(row[rule.column]),
                (row["first_file_at_fault"] or "") if rule.located else "",
            )
            for row in failed_rows
        ]
    return failures
