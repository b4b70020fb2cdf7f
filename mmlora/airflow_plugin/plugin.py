"""Airflow's plugin: it puts the page "mmlora" into the navigation.

Scheduler and workers import this too, so what the page needs is imported at its first request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin


async def page(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Serve a request by the page's app."""
    from mmlora.airflow_plugin.page import app

    await app(scope, receive, send)


class MmloraPlugin(AirflowPlugin):  # type: ignore[misc]
    """The page, and its entry in the navigation."""

    name = "mmlora"
    fastapi_apps: ClassVar = [{"app": page, "url_prefix": "/mmlora", "name": "mmlora"}]
    # The address is relative, because Airflow may be below a path of its own.
    external_views: ClassVar = [{"name": "mmlora", "href": "mmlora/", "url_route": "mmlora"}]
