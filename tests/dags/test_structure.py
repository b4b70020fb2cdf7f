"""What the DAG files promise, seen without running them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import timedelta
from inspect import signature

import pytest

from mmlora import names, schema
from mmlora.errors import ContractError, DataError, TransientError, UsageError
from mmlora.resources import resource
from mmlora.settings import TrainingSettings
from mmlora_cli.score import backfill, score
from mmlora_cli.train import train

FILES = sorted(resource("dags").glob("*.py"))
HEAVY = {"torch", "feast", "pandas", "pyarrow", "great_expectations", "mlflow", "sqlalchemy", "duckdb"}


def upstream(dag, task_id):
    return set(dag.get_task(task_id).upstream_task_ids)


def test_dags_import_without_errors(dag_bag):
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {"training", "nightly_scoring", "backfill", "maintenance", "promotion"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_dag_files_are_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80


def test_dag_files_import_nothing_heavy():
    # In an interpreter of its own: this one has loaded everything already.
    code = (
        "import json, os, runpy, sys, airflow.sdk\n"
        "before = set(sys.modules)\n"
        f"for file in {[str(file) for file in FILES]!r}: runpy.run_path(file)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))\n"
        "print(os.environ['MKL_CBWR'], 'torch' in before)"
    )
    fresh = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=fresh)
    *_, modules, mode = done.stdout.splitlines()
    assert not HEAVY & set(json.loads(modules))
    assert mode == "AUTO,STRICT False", "a task has MKL's mode before torch is there"


def parsed_training(folder, setting):
    """Parse training.py, in a process of its own like Airflow's, beside an mmlora.toml with a setting."""
    (folder / "mmlora.toml").write_text(f"[training]\nschedule = {setting}\n", encoding="utf-8")
    code = (
        "import json\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(resource('dags') / 'training.py')!r})\n"
        "tables = [dag.timetable for dag in bag.dags.values()]\n"
        "crons = [getattr(table, 'expression', None) for table in tables]\n"
        "print(json.dumps([crons, list(bag.import_errors.values())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_changed_setting_changes_when_training_runs(tmp_path):
    assert parsed_training(tmp_path, '"weekly"') == [["0 6 * * mon"], []]
    assert parsed_training(tmp_path, '"30 5 * * SUN"') == [["30 5 * * sun"], []]
    assert parsed_training(tmp_path, '"never"') == [[None], []], "only on demand"


def test_airflow_shows_which_schedules_are_valid_if_one_is_not(tmp_path):
    crons, (error,) = parsed_training(tmp_path, '"dayly"')
    assert crons == []
    assert "training.schedule" in error and "valid are nightly, weekly, never, or a cron expression" in error


@pytest.mark.parametrize("dag_id", ["training", "nightly_scoring", "maintenance"])
def test_dags_run_daily_one_at_a_time_and_never_catch_up(dag_bag, dag_id):
    dag = dag_bag.dags[dag_id]
    assert dag.timetable.expression.endswith("* * *")
    assert not dag.catchup
    assert dag.max_active_runs == 1


@pytest.mark.parametrize("dag_id", ["training", "nightly_scoring", "backfill", "maintenance", "promotion"])
def test_every_task_explains_itself(dag_bag, dag_id):
    dag = dag_bag.dags[dag_id]
    assert dag.doc_md
    silent = [task.task_id for task in dag.tasks if not task.doc_md and not task.task_id.startswith("all_")]
    assert silent == []


@pytest.mark.parametrize("dag_id", ["training", "nightly_scoring", "backfill", "maintenance", "promotion"])
def test_only_transient_errors_are_tried_again(dag_bag, dag_id):
    errors = {
        TransientError("database gone"): "retry",
        DataError("file", "broken"): "fail",
        ContractError("other features"): "fail",
        UsageError("no such name"): "fail",
        ValueError("a fault of ours"): "fail",
    }
    for task in dag_bag.dags[dag_id].tasks:
        assert task.retries > 0
        for error, action in errors.items():
            assert task.retry_policy.evaluate(error, 1, task.retries).action.value == action


@pytest.mark.parametrize("dag_id", ["training", "nightly_scoring", "backfill", "maintenance", "promotion"])
def test_each_task_has_an_owner_a_pool_and_a_limit_on_its_time_but_a_person_takes_as_long_as_they_like(
    dag_bag, dag_id
):
    dag = dag_bag.dags[dag_id]
    assert dag.tags == {"mmlora"}
    limits = {task.task_id: (task.owner, task.pool, task.execution_timeout) for task in dag.tasks}
    approve = limits.pop("approve", None)
    assert set(limits.values()) == {("mmlora", "default_pool", timedelta(hours=24))}
    if approve:
        assert approve == ("mmlora", "default_pool", None)
        assert dag.get_task("approve").response_timeout is None


def test_the_settings_name_the_pool_and_limit_the_time_of_tasks(dag_bag, monkeypatch):
    from mmlora.airflow_plugin.tasks import daily

    monkeypatch.setenv("MMLORA_AIRFLOW__POOL", "heavy")
    monkeypatch.setenv("MMLORA_AIRFLOW__TASK_TIMEOUT_HOURS", "0")
    given = daily(hour=1)["default_args"]
    assert (given["pool"], given["execution_timeout"]) == ("heavy", None)


def test_training_phases_follow_each_other(dag_bag):
    dag = dag_bag.dags["training"]
    assert upstream(dag, "prepare") == {"validate"}
    assert upstream(dag, "tune") == {"prepare"}
    assert "tune" in upstream(dag, "train_backbone")
    assert upstream(dag, "train_expert") >= {"expert_domains"}
    assert "train_backbone" in upstream(dag, "expert_domains")
    assert "train_expert" in upstream(dag, "train_gate")
    assert "train_gate" in upstream(dag, "evaluate")
    assert upstream(dag, "judge") >= {"evaluate", "train_baselines"}
    assert upstream(dag, "train_baselines") == {"tune"}
    assert "judge" in upstream(dag, "refit")
    assert "refit" in upstream(dag, "register")
    assert "register" in upstream(dag, "approve")
    assert upstream(dag, "promote") == {"register", "approve"}
    assert dag.get_task("train_expert").is_mapped


def test_domains_are_scored_in_batches_and_each_has_a_task_that_says_what_became_of_it(dag_bag):
    dag = dag_bag.dags["nightly_scoring"]
    assert upstream(dag, "batches") == {"validate"}
    assert upstream(dag, "validate") == {"build_features"}
    assert upstream(dag, "score") == {"batches"} and dag.get_task("score").is_mapped
    assert upstream(dag, "domain") == {"outcomes"} and dag.get_task("domain").is_mapped
    assert [asset.name for asset in dag.get_task("announce").outlets] == [
        "mmlora_scores_published",
        "mmlora_domain_scores",
    ]


def test_a_failed_task_of_maintenance_keeps_no_other_from_running_but_fails_the_run(dag_bag):
    dag = dag_bag.dags["maintenance"]
    (last,) = dag.leaves
    assert last.trigger_rule == "all_success"
    others = upstream(dag, last.task_id)
    assert others == {"evaluate", "share", "restate", "gc", "verify"}
    assert {dag.get_task(name).trigger_rule for name in others} == {"all_done"}


def test_the_ranking_example_waits_for_the_assets_of_its_domains_and_is_not_one_of_our_dags(dag_bag):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(resource("dags").parent / "examples"))
    assert bag.import_errors == {}
    assets = [asset.name for asset in bag.dags["ranking_lists"].timetable.asset_condition.objects]
    assert assets == ["mmlora_scores_comedy", "mmlora_scores_drama"]
    assert "ranking_lists" not in dag_bag.dags


def test_a_failed_batch_or_domain_fails_the_run_though_the_others_are_announced(dag_bag):
    # A run's state is that of its leaves, and `announce` alone would succeed.
    dag = dag_bag.dags["nightly_scoring"]
    assert {task.task_id for task in dag.leaves} == {"announce", "all_published"}
    assert upstream(dag, "all_published") == {"score", "domain"}
    rules = {task.task_id: task.trigger_rule for task in dag.tasks}
    assert rules["outcomes"] == rules["announce"] == "all_done_min_one_success"
    assert rules["domain"] == rules["all_published"] == "all_success"


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("backbone", schema.BackboneName),
        ("adaptation", schema.Adaptation),
        ("features", schema.FeatureGroup),
        ("gate", names.GateInput),
        ("device", names.Device),
        ("precision", names.Precision),
    ],
)
def test_the_form_offers_every_name(dag_bag, name, offered):
    param = dag_bag.dags["training"].params.get_param(name)
    assert param.schema["enum"] == [None, *schema.valid_names(offered)]


def test_the_form_offers_the_splits_that_need_no_file(dag_bag):
    offered = dag_bag.dags["training"].params.get_param("split").schema["enum"]
    assert set(offered) == {None, *schema.valid_names(schema.SplitName)} - {"file"}


def test_the_training_form_asks_for_what_the_command_line_does(dag_bag):
    asked, options = set(dag_bag.dags["training"].params), set(signature(train).parameters)
    assert asked - {"date"} == options - {"as_of", "phase", "split_file", "as_json"}
    assert asked - {"date", "domain", "base", "accept_below_baseline", "tune_minutes"} <= set(
        TrainingSettings.model_fields
    )


def test_the_scoring_forms_ask_for_what_the_command_line_does(dag_bag):
    """But for what is a matter of the machine, or publishes nothing."""
    machine = {"ray_address", "device", "jobs", "as_json"}
    asked = {*dag_bag.dags["nightly_scoring"].params} - {"domains"} | {"domain"}
    assert asked == {*signature(score).parameters} - machine - {"known_as_of", "dry_run", "shadow"}
    asked = {*dag_bag.dags["backfill"].params} - {"domains", "plan_only"} | {"domain", "plan"}
    assert asked == {*signature(backfill).parameters} - machine - {"all_domains", "save_plan", "apply"}


@pytest.mark.parametrize("dag_id", ["training", "nightly_scoring", "maintenance"])
def test_a_form_left_as_it_is_asks_for_nothing(dag_bag, dag_id):
    params = dag_bag.dags[dag_id].params
    assert set(params.dump().values()) == {None}
    params.validate()


@pytest.mark.parametrize(
    ("dag_id", "name", "value"),
    [
        ("training", "date", "31.12.2000"),
        ("training", "backbone", "perceptron"),
        ("training", "experts_per_domain", 0),
        ("training", "rank", 0),
        ("training", "gate_top_k", 1.5),
        ("training", "gate_per_layer", "yes"),
        ("nightly_scoring", "domains", "drama"),
        ("nightly_scoring", "top_k", -1),
        ("nightly_scoring", "engine", "spark"),
    ],
)
def test_the_form_refuses_what_no_verb_takes(dag_bag, dag_id, name, value):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dag_bag.dags[dag_id].params.get_param(name).resolve(value)


def test_dag_files_only_call_the_pipeline():
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name for name in modules if name.startswith("mmlora")} <= {
            "mmlora.airflow_plugin",
            "mmlora.airflow_plugin.outcomes",
            "mmlora.airflow_plugin.promotion",
            "mmlora.airflow_plugin.tasks",
        }
