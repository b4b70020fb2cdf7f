"""Every command, query and program that the docs show: those that can are run, and the others parsed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from mmlora.settings import Settings
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp, published, use_workspace
from tests.snippets import PAGES, ROOT, Block, blocks, spans

ALL = [block for page in PAGES for block in blocks(page)]
BASH = [block for block in ALL if block.language == "bash"]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

# Parsing


def faults(command: str) -> list[str]:
    """Return what a command line names that doesn't exist: a verb, an option, a target of the Makefile."""
    words = shlex.split(command, comments=True)
    if "&&" in words:
        parts = [" ".join(map(shlex.quote, part)) for part in _split(words)]
        return [fault for part in parts for fault in faults(part)]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[:1] == ["make"]:
        targets = [word for word in words[1:] if "=" not in word]
        return [f"make {target}" for target in targets if target not in TARGETS]
    if "exec" in words:  # docker compose exec SERVICE COMMAND
        words = words[words.index("exec") + 2 :]
    if words[:1] != ["mmlora"]:
        return []
    rest = words[1:]
    verb = typer.main.get_command(app)
    while rest and not rest[0].startswith("-") and (children := getattr(verb, "commands", None)):
        if rest[0] not in children:
            return [f"mmlora {rest[0]}"]
        verb = children[rest.pop(0)]
    options = {name for param in verb.params for name in (*param.opts, *param.secondary_opts)}
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    return [f"{verb.name} {option}" for option in given if option not in options | {"--help"}]


def _split(words: list[str]) -> list[list[str]]:
    """Return the commands between the words ``&&``."""
    place = words.index("&&") if "&&" in words else len(words)
    return [words[:place], *(_split(words[place + 1 :]) if place < len(words) else [])]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_with_its_options(page: str) -> None:
    shown = [command for block in blocks(page) if block.language == "bash" for command in block.commands()]
    told = [span for span in spans(page) if not re.search(r"\.\.\.|\[|mmlora [A-Z]", span)]
    assert [fault for command in [*shown, *told] for fault in faults(command)] == []


def test_a_wrong_verb_option_or_target_is_found() -> None:
    assert faults("mmlora scores --date X") == ["mmlora scores"]
    assert faults("mmlora data import a.csv --user b.csv  # --items") == ["import --user"]
    assert faults("ARGS=1 make benches BENCH=x") == ["make benches"]
    assert faults("mmlora init && mmlora gc --everything") == ["gc --everything"]
    assert faults("docker compose exec scheduler mmlora read --domian x") == ["read --domian"]


def test_the_examples_of_every_help_exist() -> None:
    examples, left = [], [typer.main.get_command(app)]
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
        examples += [part.removeprefix("Example: ") for part in paragraphs if part.startswith("Example: ")]
    assert len(examples) > 30
    assert [fault for example in examples for fault in faults(example)] == []


@pytest.mark.parametrize("block", BASH, ids=str)
def test_shell_blocks_are_valid(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_commands_are_in_shell_blocks() -> None:
    indented = re.compile(r"\n\n    (?:mmlora|make|pip|docker|helm|kubectl|airflow) [^\n]*")
    pages = {page: indented.findall((ROOT / page).read_text(encoding="utf-8")) for page in PAGES}
    assert {page: found for page, found in pages.items() if found} == {}, "tests run blocks of ```bash only"


@pytest.mark.parametrize("block", [one for one in ALL if one.language not in ("bash", "sql")], ids=str)
def test_other_blocks_are_valid(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "toml" and block.page == "docs/experiments.md":
        tomllib.loads(block.text)
    elif block.language == "toml":
        text = block.text if block.text.startswith("[") else f"[candidates]\n{block.text}"
        monkeypatch.chdir(tmp_path)
        parts = re.split(r"(?m)^(?=pairs|users)", text) if block.text[0] != "[" else [text]
        for part in parts[1:] or parts:
            head = "" if part.startswith("[") else "[candidates]\n"
            Path("mmlora.toml").write_text(head + part, encoding="utf-8")
            Settings()
    else:
        assert block.language in ("", "text", "docker")


# Running

NAMES = {
    r"\bfarmer\b": "sport",
    r"\bnl\b": "news",
    r"\b2026-03-03\b": "2001-04-10",
    r"\b(2026-03-0[27]|2026-02-28|2000-12-3[01]|DATE)\b": "2001-04-09",
    r"\b(2026-0[123]-01|2000-12-01)\b": "2001-04-08",
    r"\b(2504|--user 12)\b": "u01",
    r"2026, 3, [27]\b": "2001, 4, 9",
    r"2026, 3, 1\b": "2001, 4, 8",
    r"postgresql://\S+/scores": "sqlite:///{home}/warehouse.db",
    r"/srv/mmlora": "{home}",
}
"""What the docs name, and what stands for it in a made-up workspace."""
WHOLE_LISTS = {"MMLORA_SCORING__TOP_K": "0", "MMLORA_CANDIDATES__EXCLUDE": "none"}
"""So that enough clicks are on published pairs to judge a night by."""


@pytest.fixture(scope="module")
def nights(
    trained: tuple[Path, str], made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A workspace with two published nights, a challenger and files to import; the challenger's version."""
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.train import train

    home = tmp_path_factory.mktemp("nights") / "var"
    shutil.copytree(trained[0], home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        for name, value in WHOLE_LISTS.items():
            here.setenv(name, value)
        for day in (8, 9):
            score_and_publish(date(2001, 4, day))
        made = train(date(2001, 4, 9), features="ids", adaptation="none", accept_below_baseline=True)
    assert made.alias == "challenger"
    return home, str(made.model_version)


def files(made_up: MadeUp, folder: Path) -> None:
    """Write the files that the docs name."""
    interactions = pq.read_table(made_up.interactions)
    named = [name.replace("label", "clicked") for name in interactions.column_names]
    (folder / "clicks").mkdir()
    for path in (folder / "clicks.parquet", folder / "clicks/a.parquet"):
        pq.write_table(interactions.rename_columns(named), path)
    (folder / "items").mkdir()
    for path in (folder / "items.parquet", folder / "items/a.parquet"):
        shutil.copy(made_up.items, path)
    csv.write_csv(pq.read_table(made_up.users), folder / "users.csv")
    csv.write_csv(pa.table({"user_id": ["u02", "u03"]}), folder / "requests.csv")


def empty(made_up: MadeUp, folder: Path) -> None:
    """Begin without a workspace."""
    shutil.rmtree(folder / "var")


def new_domain(made_up: MadeUp, folder: Path) -> None:
    """Let the next delivery have a domain that the model doesn't know."""
    rows = pq.read_table(made_up.interactions).slice(5500)
    se = rows.set_column(rows.column_names.index("domain_id"), "domain_id", pa.array(["se"] * len(rows)))
    pq.write_table(pa.concat_tables([rows, se]), folder / "clicks.parquet")


START: dict[str, Callable[[MadeUp, Path], None] | None] = {
    "README.md": empty,
    "docs/api.md": None,
    "docs/deploy.md": None,
    "docs/domains.md": new_domain,
    "docs/import.md": empty,
    "docs/integrity.md": None,
    "docs/judging.md": None,
    "docs/nights.md": None,
    "docs/observability.md": None,
    "docs/quality.md": None,
    "docs/reading.md": None,
    "docs/troubleshooting.md": None,
}
"""How each page's workspace begins: as ``nights``, or changed by a function."""
LONG = ("README.md", "docs/judging.md")
"""Pages that train models."""
ELSEWHERE = {"docs/tutorial.md", "feature_repo/README.md"}
"""Pages that other tests run: ``tests/test_tutorial.py``, and the last one here."""


def test_every_block_is_run_or_says_why_not() -> None:
    run = {block.page for block in ALL if block.language in ("bash", "python", "sql") and not block.not_run}
    assert run == START.keys() | ELSEWHERE


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] * (p in LONG)) for p in START])
def test_the_commands_of_a_page_run(
    page: str,
    nights: tuple[Path, str],
    made_up: MadeUp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "var"
    shutil.copytree(nights[0], home)
    use_workspace(monkeypatch, home)
    for name, value in WHOLE_LISTS.items():
        monkeypatch.setenv(name, value)
    load = published("news", date(2001, 4, 9))[0]["load_id"]
    items = [row["item_id"] for row in published("sport") if row["user_id"] == "u01"]
    files(made_up, tmp_path)
    if start := START[page]:
        start(made_up, tmp_path)
    names = {
        **NAMES,
        r"\b2\d{3}-\d\d-\d\d-\d+-[0-9a-f]{12}\b": load,
        r"--item 260\b": f"--item {items[0]}",
        r"\bVERSION\b": nights[1],
    }
    for block in blocks(page):
        if not block.not_run:
            text = block.text
            for pattern, name in names.items():
                text = re.sub(pattern, name.format(home=home), text)
            _run(block, text, home)


def _run(block: Block, text: str, home: Path) -> None:
    if block.language == "python":
        exec(compile(text, str(block), "exec"), {})
    elif block.language == "sql":
        connection = sqlite3.connect(home / "warehouse.db")
        connection.execute(re.sub(r"= u01\b", "= 'u01'", text)).fetchall()
        connection.close()
    elif block.language == "bash":
        for command in Block(block.page, block.line, "bash", text, "").commands():
            words = shlex.split(command, comments=True)
            if words[0] != "mmlora":
                subprocess.run(["bash", "-c", command.replace("python", sys.executable)], check=True)
                continue
            paths = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words[1:]]
            done = CliRunner().invoke(app, [path for some in paths for path in some])
            assert done.exit_code == 0, f"{block}: {command}\n{done.output}{done.exception!r}"


def test_the_example_of_an_own_feature_view_is_built(
    made_up_workspace: Path, made_up: MadeUp, tmp_path: Path
) -> None:
    (block,) = [block for block in blocks("feature_repo/README.md") if block.language == "python"]
    items = pq.read_table(made_up.items)
    moment = pa.array([datetime(2001, 3, 1, tzinfo=UTC)] * len(items), pa.timestamp("us", tz="UTC"))
    prices = {"item_id": items["item_id"], "event_timestamp": moment, "created_timestamp": moment}
    (tmp_path / "prices").mkdir()
    pq.write_table(
        pa.table({**prices, "price": items["length"].cast(pa.float32())}), tmp_path / "prices/a.parquet"
    )
    (made_up_workspace / "feature_repo").mkdir()
    code = block.text.replace("/data/prices", str(tmp_path / "prices"))
    (made_up_workspace / "feature_repo/prices.py").write_text(code, encoding="utf-8")
    done = CliRunner().invoke(app, ["features", "build", "--through", "2001-04-13"])
    assert done.exit_code == 0, done.output
    names = [field.name for field in open_workspace().feature_repo.contract("all").fields]
    assert "item_price__price" in names
