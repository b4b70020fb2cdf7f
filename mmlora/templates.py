"""HTML pages from Jinja2 templates: what is filled in is escaped, and a name that isn't given is an error."""

from __future__ import annotations


def render(package: str, template: str, **values: object) -> str:
    """Return a page.

    Args:
        package: whose folder ``templates`` holds the template, e.g. ``mmlora.checks``.
        template: its file name.
        **values: what it refers to.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
