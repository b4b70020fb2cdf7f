"""The door to Great Expectations: rules in, failures and Data Docs out.

Loading it takes seconds, so this module is imported when a validation runs. Its context lives in memory; what
stays is a page a suite and date.
"""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmlora.checks.rules import Rule
from mmlora.errors import CheckError
from mmlora.schema import midnight

os.environ["GX_ANALYTICS_ENABLED"] = "false"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

# COMPLETE lists every failing row, not the first twenty.
_RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": ["domain", "first_file_at_fault"],
}


@dataclass(frozen=True)
class Failure:
    """One domain, by its name in the frame, that fails one rule; ``file`` is the first file at fault."""

    rule: Rule
    domain: str
    value: float
    file: str = ""

    @property
    def reason(self) -> str:
        """What is wrong, with the value found."""
        return self.rule.reason.format(value=self.value) + (f", first in {self.file}" if self.file else "")


@dataclass(frozen=True)
class Outcome:
    """What Great Expectations said.

    Attributes:
        suites: ``result.success`` by suite.
        failures: every domain and rule that failed.
        pages: each suite's page, relative to the Data Docs' folder.
    """

    suites: dict[str, bool]
    failures: list[Failure]
    pages: dict[str, str]


def run_suites(frame: pa.Table, rules: Sequence[Rule], *, as_of: date, data_docs: Path) -> Outcome:
    """Judge the frame by the rules and write one page a suite and date; a rerun writes the same pages.

    Raises:
        CheckError: an expectation could not be evaluated at all.
    """
    data_docs.mkdir(parents=True, exist_ok=True)
    data = frame.to_pandas()
    outcome = Outcome({}, [], {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = _context(data_docs)
        asset = context.data_sources.add_pandas("offline_store").add_dataframe_asset("domains")
        batch = asset.add_batch_definition_whole_dataframe("domains")
        run = RunIdentifier(run_name=as_of.isoformat(), run_time=midnight(as_of))
        identifiers: list[Any] = []
        for name in dict.fromkeys(rule.suite for rule in rules):
            mine = [rule for rule in rules if rule.suite == name]
            suite = context.suites.add(
                gx.ExpectationSuite(name=name, expectations=[_expectation(*each) for each in enumerate(mine)])
            )
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            result = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": data}, result_format=_RESULT_FORMAT, run_id=run
            )
            suite_key = ExpectationSuiteIdentifier(name=name)
            result_key = ValidationResultIdentifier(suite_key, run, result.batch_id)
            identifiers += [suite_key, result_key]
            outcome.suites[name] = bool(result.success)
            outcome.failures.extend(_failures(name, mine, result))
            outcome.pages[name] = "/".join(("validations", *result_key.to_tuple())) + ".html"
        context.build_data_docs(resource_identifiers=identifiers, build_index=False)
    return outcome


def _context(data_docs: Path) -> Any:
    """Make a context in memory whose pages are written under ``data_docs``."""
    stores = {
        "expectations": "ExpectationsStore",
        "checkpoints": "CheckpointStore",
        "results": "ValidationResultsStore",
        "validation_definition_store": "ValidationDefinitionStore",
    }
    folder = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs.resolve())}
    config = DataContextConfig(
        stores={
            name: {"class_name": kind, "store_backend": {"class_name": "InMemoryStoreBackend"}}
            for name, kind in stores.items()
        },
        expectations_store_name="expectations",
        checkpoint_store_name="checkpoints",
        validation_results_store_name="results",
        data_docs_sites={
            "mmlora": {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": folder}
        },
        plugins_directory=str(Path(__file__).parent / "data_docs_style"),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _expectation(number: int, rule: Rule) -> Any:
    return gx.expectations.ExpectColumnValuesToBeBetween(
        column=rule.column,
        min_value=rule.minimum,
        max_value=rule.maximum,
        description=html.escape(rule.meaning, quote=False),
        severity="critical" if rule.verdict == "broken" else "warning",
        meta={"rule": number, "verdict": rule.verdict},
    )


def _failures(suite: str, rules: Sequence[Rule], result: Any) -> list[Failure]:
    """Read the failing domains out of a suite's result."""
    failures = []
    for each in result.results:
        if each.success:
            continue
        rule = rules[each.expectation_config.meta["rule"]]
        found = each.result.get("unexpected_index_list")
        if not found:
            raise CheckError(suite, [f"{rule.column} could not be evaluated: {each.exception_info}"])
        failures += [
            Failure(
                rule,
                row["domain"],
                float(row[rule.column]),
                (row["first_file_at_fault"] or "") if rule.located else "",
            )
            for row in found
        ]
    return failures
