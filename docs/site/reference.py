"""The reference: tables and texts made from the code while the site is built.

``generate("settings", "training")`` answers ``<!-- generated: settings training -->`` in a page.
"""

from __future__ import annotations

import ast
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo


def generate(kind: str, name: str) -> str:
    """Return a part of the reference as Markdown.

    Raises:
        KeyError: there is no such part; the build of the site ends with it.
    """
    return _PARTS[kind](name)


def _table(head: str, rows: list[list[str]]) -> str:
    """Return a table; a cell's line breaks become spaces, and pipes outside of code are escaped."""
    cells = [[re.sub(r"(`[^`]*`)|\|", _escaped, " ".join(cell.split())) for cell in row] for row in rows]
    rule = "|".join("---" for _ in head.split("|"))
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in cells)])


def _escaped(found: re.Match[str]) -> str:
    return found[1] or "\\|"


# --- settings


def settings(section: str) -> str:
    """Return the settings of a section, or those outside of one, with what each means."""
    from pydantic import BaseModel

    from mmlora.settings import Settings

    fields = Settings.model_fields
    if section:
        kind = fields[section].annotation
        assert kind is not None
        fields = kind.model_fields
    rows = [
        [f"`{name}`", _default(field), _valid(field), _meaning(field)]
        for name, field in fields.items()
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
    ]
    return _table("setting | default | valid | meaning", rows)


def _meaning(field: FieldInfo) -> str:
    from mmlora.hyperparameters.setting import Setting

    declared = next((part for part in field.metadata if isinstance(part, Setting)), None)
    return declared.help if declared else field.description or ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value in ("", (), {}, []):
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _valid(field: FieldInfo) -> str:
    from mmlora.hyperparameters.setting import Bounds, Setting

    declared = next((part for part in field.metadata if isinstance(part, Setting)), None)
    if declared and declared.valid:
        return declared.valid
    bounds = next((part for part in field.metadata if isinstance(part, Bounds)), None)
    limits = {
        sign: getattr(part, name)
        for part in field.metadata
        for name, sign in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "to"))
        if not isinstance(part, Setting | Bounds) and hasattr(part, name)
    }
    numbers = str(bounds) if bounds else " ".join(f"{sign} {limit:g}" for sign, limit in limits.items())
    return f"{_type(field.annotation)} {numbers}".strip()


def _type(kind: Any) -> str:
    """Return a type as a user writes its values."""
    names = {int: "integer", float: "number", bool: "`true`, `false`", str: "text", Path: "path"}
    if kind in names:
        return names[kind]
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not type(None)]
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is dict:
        return "table"
    if origin in (list, tuple):
        inner = {_type(part) for part in parts if part is not Ellipsis}
        return f"list of {', '.join(sorted(inner))}"
    if hasattr(kind, "__metadata__"):
        return _type(parts[0])
    return " or ".join(map(_type, parts)) if parts else kind.__name__


def checks(_: str) -> str:
    """Return every check with a threshold."""
    from mmlora.check_rules import RULES

    return _table(
        "check | of the | the figure | passes | severity | owner",
        [
            [
                f"`{rule.name}`",
                rule.stage,
                rule.meaning,
                _limit(rule),
                f"`{rule.severity}`",
                f"`{rule.owner}`",
            ]
            for rule in RULES
        ],
    )


def _limit(rule: Any) -> str:
    return f"at {'least' if rule.least else 'most'} `{rule.setting}`" if rule.setting else rule.limit


# --- the command line


def commands(_: str) -> str:
    """Return every command with its help, arguments, options and examples."""
    import typer

    from mmlora_cli.main import app

    return "\n\n".join(_command(names, command) for names, command in _leaves(typer.main.get_command(app)))


def _linked(text: str) -> str:
    """Return a text of the code with the pages that it names as links."""
    return re.sub(r"docs/([\w/]+\.md)", r"[\1](\1)", text)


def _leaves(command: Any, names: tuple[str, ...] = ("mmlora",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield names, command
        return
    for name, child in children.items():
        yield from _leaves(child, (*names, name))


def _command(names: tuple[str, ...], command: Any) -> str:
    context = command.context_class(command, info_name=" ".join(names))
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    parts = [f"### {' '.join(names)}", f"```text\n{usage}\n```"]
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        text = " ".join(paragraph.split())
        if text.startswith("Example: "):
            text = f"```bash\n{text.removeprefix('Example: ')}\n```"
        parts.append(_linked(text))
    records = [record for part in command.params if (record := part.get_help_record(context))]
    if records:
        parts.append(
            _table(
                "argument or option | meaning",
                [[f"`{left.replace('|', ' | ')}`", right] for left, right in records],
            )
        )
    return "\n\n".join(parts)


# --- Python


def python(_: str) -> str:
    """Return the public functions and classes, as directives of mkdocstrings."""
    import mmlora

    places = {name: f"{mmlora._MODULES[name]}.{name}" for name in mmlora.__all__ if name in mmlora._MODULES}
    return "\n\n".join(
        f"::: {place}\n    options:\n      heading: {name}\n      toc_label: {name}"
        for name, place in sorted(places.items(), key=lambda one: one[0].lower())
    )


def errors(_: str) -> str:
    """Return each class of error: exit status, when it is raised, what to do."""
    from mmlora import errors as module

    rows = []
    for node in ast.parse(inspect.getsource(module)).body:
        kind = getattr(module, getattr(node, "name", ""), None)
        if isinstance(node, ast.ClassDef) and inspect.isclass(kind) and issubclass(kind, module.MmloraError):
            when, *more = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
            remedy = next((part.removeprefix("What to do: ") for part in more if part.startswith("What")), "")
            rows.append([f"`{node.name}`", str(kind.exit_code), when, _linked(remedy)])
    return _table("error | exit status | when | what to do", rows)


def file(path: str) -> str:
    """Return a program of the repository as a block."""
    text = (Path(__file__).parents[2] / path).read_text(encoding="utf-8")
    return f"```python\n{text}```"


# --- the warehouse


def tables(_: str) -> str:
    """Return the warehouse's tables: columns, types, keys, meaning."""
    from mmlora.schema import IdTypes
    from mmlora.warehouse.tables import tables

    found = tables(IdTypes("int64", "int64", "int64")).metadata.tables
    return "\n\n".join(_described(table) for _, table in sorted(found.items()))


def _described(table: Any) -> str:
    rows = [
        [f"`{column.name}`", _sql_type(column.name, column.type), _facts(column), column.doc or ""]
        for column in table.columns
    ]
    return f"### {table.name}\n\n{table.info['doc']}\n\n{_table('column | type |  | meaning', rows)}"


def _facts(column: Any) -> str:
    return "key" if column.primary_key else "may be null" if column.nullable else ""


def _sql_type(name: str, kind: Any) -> str:
    import sqlalchemy as sa

    if name in ("user_id", "item_id", "domain_id"):
        return "bigint or text"
    bare = getattr(kind, "impl", kind)
    return sa.types.to_instance(bare).__visit_name__.replace("_", " ").lower()


def views(_: str) -> str:
    """Return the warehouse's views: their columns as DuckDB describes them, and the comments of sql/views."""
    import duckdb

    from mmlora.resources import resource
    from mmlora.schema import IdTypes
    from mmlora.warehouse.tables import views
    from mmlora.warehouse.warehouse import Warehouse

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.duckdb"
        Warehouse.migrate(f"duckdb:///{path}", ids=IdTypes("int64", "int64", "int64")).close()
        with duckdb.connect(str(path), read_only=True) as connection:
            columns = {name: connection.sql(f"DESCRIBE {name}").fetchall() for name in views()}
    parts, meaning = [], {}
    for name in sorted(columns, key=lambda view: view != "scores_published"):
        comments = re.findall(
            r"^-- ?(.*)$", resource(f"sql/views/{name}.sql").read_text("utf-8"), re.MULTILINE
        )
        for names, told in re.findall(r"^  ((?:\w+, )*\w+)  +(\S.*)$", "\n".join(comments), re.MULTILINE):
            if not told.startswith("as in"):
                meaning |= dict.fromkeys(names.split(", "), told)
        prose = " ".join(line for line in comments if not line.startswith("  "))
        rows = [
            [f"`{column}`", _view_type(column, kind), meaning.get(column, "")]
            for column, kind, *_ in columns[name]
        ]
        parts.append(f"### {name}\n\n{prose}\n\n{_table('column | type | meaning', rows)}")
    return "\n\n".join(parts)


def _view_type(name: str, kind: str) -> str:
    names = {"VARCHAR": "text", "FLOAT": "real", "DOUBLE": "double", "HUGEINT": "integer"}
    return "bigint or text" if name in ("user_id", "item_id", "domain_id") else names.get(kind, kind.lower())


_PARTS: dict[str, Callable[[str], str]] = {
    "settings": settings,
    "checks": checks,
    "commands": commands,
    "python": python,
    "errors": errors,
    "file": file,
    "tables": tables,
    "views": views,
}
