"""The command line as a new user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from mmlora_cli.main import app
from mmlora_cli.output import format_value

ROOT = Path(__file__).parents[2]


def _mmlora(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmlora_cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", None)
    if not children:
        return [path]
    return [leaf for name, child in children.items() for leaf in _commands(child, (*path, name))]


COMMANDS = _commands(typer.main.get_command(app))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_is_in_the_docs(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: mmlora {' '.join(command)}" in " ".join(result.output.split())
    assert f"mmlora {' '.join(command)}" in (ROOT / "docs/commands.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["mmlora", "mmlora_cli.main"])
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    heavy = (
        "torch feast great_expectations mlflow pandas pyarrow sqlalchemy airflow pydantic duckdb rich fsspec"
    )
    code = (
        f"import os, sys, {module}\n"
        f"print([m for m in {heavy.split()} if m in sys.modules], os.environ['MKL_CBWR'])"
    )
    fresh = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=fresh)
    assert done.stdout.strip() == "[] AUTO,STRICT", "MKL's mode is set, and torch isn't there yet"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("status",), 2, "import some first"),
        (("score", "--date", "yesterday"), 2, "YYYY-MM-DD"),
        (("data", "import", "nowhere.parquet"), 2, "nowhere.parquet"),
        (("data", "import", "broken.parquet"), 1, "broken.parquet"),
        (("train", "--as-of", "2001-01-01", "--backbone", "mlp"), 2, "wdl"),
        (("train", "--as-of", "2001-01-01", "--precision", "float16"), 2, "'float32', 'bfloat16'"),
        (("no-such-verb",), 2, "no-such-verb"),
        (("read", "--domain", "news", "--output", "scores.csv"), 2, "--output goes with --format csv"),
        (("read", "--domain", "news", "--json", "--format", "csv"), 2, "give one of them"),
        (("read", "--domain", "n", "--format", "csv", "--output", "no/n.csv"), 2, "there is no folder no"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.parquet").write_text("not Parquet")
    result = _mmlora(*arguments, folder=tmp_path)
    assert result.returncode == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in _mmlora("--debug", "status", folder=tmp_path).stderr


def test_faults_of_settings_are_reported(tmp_path: Path) -> None:
    (tmp_path / "mmlora.toml").write_text("[training]\nbatch_size = 0\nspeed = 3\n")
    result = _mmlora("init", folder=tmp_path)
    assert result.returncode == 2
    assert "training.batch_size" in result.stderr
    assert "training.speed" in result.stderr


def test_init_writes_settings_that_read_back_as_the_defaults(tmp_path: Path) -> None:
    result = _mmlora("init", "--json", folder=tmp_path)
    assert json.loads(result.stdout)["home"] == str(tmp_path / "var")
    text = (tmp_path / "mmlora.toml").read_text(encoding="utf-8")
    lines = [line.removeprefix("# ") for line in text.splitlines()[2:] if "unset by default" not in line]
    (tmp_path / "mmlora.toml").write_text("\n".join(lines))
    code = "from mmlora.settings import *; print(load_settings() == Settings.model_construct())"
    again = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.stdout.strip() == "True", again.stderr


@pytest.mark.parametrize(
    ("value", "said"),
    [(1e-6, "1e-06"), (2e-4, "0.0002"), (0.0, "0.0000"), (0.80911, "0.8091"), (1234.5, "1,234"), (None, "-")],
)
def test_a_table_shows_small_numbers_too(value: float | None, said: str) -> None:
    assert format_value(value) == said


def test_what_needs_no_model_doesnt_import_torch(trained_workspace: Path) -> None:
    code = (
        "import contextlib, io, sys\n"
        "from mmlora_cli.main import app\n"
        "plan = 'backfill --domain news --start 2001-04-08 --end 2001-04-09 --plan'\n"
        "for command in ('status', 'gc --dry-run', 'verify', plan):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        app(command.split(), standalone_mode=False)\n"
        "print({'torch', 'feast', 'mlflow', 'great_expectations'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
