"""Hide secrets of settings and variables in all output: messages, logs, the ledger, MLflow.

A URL's secrets are remembered when it is read from the settings. :func:`redact` then hides them in any text,
even from a library, and hides what looks like a password in any URL.
"""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "OPENLINEAGE_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "PGPASSWORD",
)
_SHORTEST = 4
"""Shorter secrets are hidden in URLs only, because they may occur in any text."""
_USERINFO = re.compile(r"(://[^\s/:@'\"]*):(?!password@)[^\s'\"]*@")
_PARAMETER = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|access_key))(\s?=\s?)('[^']*'|[^\s&'\",;)]+)"
)
remembered: set[str] = set()
"""The secrets remembered so far in this process."""


def remember(url: str) -> None:
    """Remember the secrets in a URL, even if it can't be parsed."""
    for secret in _secrets_in(url):
        # A secret that is also the name of a user, database or driver can't be told from the name.
        if len(secret) >= _SHORTEST and secret not in _names_in(url):
            for plain in (secret, unquote(secret), unquote_plus(secret)):
                remembered.update({plain, quote(plain, safe=""), quote(plain, safe=" +"), quote_plus(plain)})


def remember_whole(url: str) -> None:
    """Remember a URL that is a secret as a whole, because whoever knows it may use it."""
    if len(url) >= _SHORTEST:
        remembered.add(url)


def secrets() -> frozenset[str]:
    """Return the known secrets of URLs and variables."""
    variables = {value for name in _VARIABLES if len(value := os.environ.get(name, "")) >= _SHORTEST}
    return frozenset(remembered | variables)


def redact(text: str) -> str:
    """Return a text with its secrets hidden."""
    for secret in sorted(secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USERINFO.sub(rf"\1:{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1\2{HIDDEN}", text)


class RedactingFormatter(logging.Formatter):
    """A formatter that hides secrets in log records, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        return redact(super().format(record))


def _names_in(url: str) -> set[str]:
    """Return the driver, user, hosts and database in a URL."""
    scheme, parted, rest = url.partition("://")
    if not parted:
        scheme, rest = "", url
    userinfo, _, server = rest.partition("?")[0].rpartition("@")
    return {userinfo.partition(":")[0], *re.split(r"\W+", scheme), *re.split(r"[:/,]+", server)}


def _secrets_in(url: str) -> set[str]:
    """Return everything in a URL that may be a password, even if the URL can't be parsed."""
    rest = url.partition("://")[2] or url
    before_query, _, query = rest.partition("?")
    passwords = {value for *_, value in _PARAMETER.findall(query or rest)}
    for userinfo in (rest.partition("@")[0], before_query.rpartition("@")[0]):
        if "@" in rest and ":" in userinfo:
            passwords |= {userinfo.partition(":")[2], userinfo.rpartition(":")[2]}
    return {secret.strip("'") for secret in passwords} - {""}
