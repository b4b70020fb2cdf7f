"""Secrets that settings and variables hold, kept out of all that is said: messages, logs, the ledger, MLflow.

A URL's secrets are remembered when it is read from the settings. :func:`redact` then hides them wherever they
stand in a text, also where a library put them, and hides what looks like a password in any URL.
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
    "PGPASSWORD",
)
_SHORTEST = 4
"""Shorter secrets are hidden in URLs only, or half of a text would go."""
_USERINFO = re.compile(r"(://[^\s/:@'\"]*):(?!password@)[^\s'\"]*@")
_PARAMETER = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|access_key))(\s?=\s?)('[^']*'|[^\s&'\",;)]+)"
)
_secrets: set[str] = set()


def remember(url: str) -> None:
    """Remember what is secret in a URL, whether or not it can be parsed."""
    for secret in _secrets_in(url):
        # What is a user's or database's name as well, or a driver's, can't be told from it.
        if len(secret) >= _SHORTEST and secret not in _names_in(url):
            for plain in (secret, unquote(secret), unquote_plus(secret)):
                _secrets.update({plain, quote(plain, safe=""), quote(plain, safe=" +"), quote_plus(plain)})


def secrets() -> frozenset[str]:
    """Return what is known to be secret, of URLs and variables."""
    variables = {value for name in _VARIABLES if len(value := os.environ.get(name, "")) >= _SHORTEST}
    return frozenset(_secrets | variables)


def redact(text: str) -> str:
    """Return a text with its secrets hidden."""
    for secret in sorted(secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USERINFO.sub(rf"\1:{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1\2{HIDDEN}", text)


class RedactingFormatter(logging.Formatter):
    """Formats log records, tracebacks included, with their secrets hidden."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        return redact(super().format(record))


def _names_in(url: str) -> set[str]:
    """Return the driver, user, hosts and database that a URL names."""
    scheme, parted, rest = url.partition("://")
    if not parted:
        scheme, rest = "", url
    userinfo, _, server = rest.partition("?")[0].rpartition("@")
    return {userinfo.partition(":")[0], *re.split(r"\W+", scheme), *re.split(r"[:/,]+", server)}


def _secrets_in(url: str) -> set[str]:
    """Return the passwords that a URL may hold, read generously: one that can't be parsed has them too."""
    rest = url.partition("://")[2] or url
    before_query, _, query = rest.partition("?")
    found = {value for *_, value in _PARAMETER.findall(query or rest)}
    for userinfo in (rest.partition("@")[0], before_query.rpartition("@")[0]):
        if "@" in rest and ":" in userinfo:
            found |= {userinfo.partition(":")[2], userinfo.rpartition(":")[2]}
    return {secret.strip("'") for secret in found} - {""}
