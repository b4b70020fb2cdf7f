"""When the training DAG runs: the setting ``[training] schedule`` as a cron expression, in UTC."""

from __future__ import annotations

NAMED = {"nightly": "0 6 * * *", "weekly": "0 6 * * mon", "never": None}
"""The named schedules. They begin after the night's scoring; ``never`` leaves runs to people."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_VALID = "valid are nightly, weekly, never, or a cron expression in UTC such as '30 5 * * sun'"


def cron_of(schedule: str) -> str | None:
    """Return the cron expression of a schedule, or None for ``never``.

    Args:
        schedule: a name of :data:`NAMED`, or five fields: minute, hour, day of the month, month, day of the
            week. A field is ``*``, a number, a range ``1-5``, either with a step ``/2``, or a list of these;
            months and days of the week may be written as ``jan`` and ``mon``.

    Raises:
        ValueError: it is none of these, or no date fits it.
    """
    if schedule in NAMED:
        return NAMED[schedule]
    fields = schedule.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(_VALID)
    values = [_values(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
    _, _, days, months, weekdays = values
    # Cron runs on the days that fit either the day of the month or that of the week, if it has both.
    every_weekday = len({day % 7 for day in weekdays}) == 7
    if every_weekday and min(days) > max(_LONGEST[month - 1] for month in months):
        raise ValueError(f"no date has this day and month; {_VALID}")
    return " ".join(fields)


def _values(text: str, name: str, least: int, most: int, words: tuple[str, ...]) -> set[int]:
    """Return the numbers that a field stands for."""
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _number(first, least, words)
            high = _number(last, least, words) if dash else low
        bad_step = bool(slash) and (not _is_number(step) or int(step) < 1 or not (dash or span == "*"))
        if not least <= low <= high <= most or bad_step:
            raise ValueError(f"the {name} {text!r} is not from {least} to {most}; {_VALID}")
        values.update(range(low, high + 1, int(step or 1)))
    return values


def _number(text: str, least: int, words: tuple[str, ...]) -> int:
    """Return a number written in digits or as a word; -1, which is in no field, if it is neither."""
    if text in words:
        return words.index(text) + least
    return int(text) if _is_number(text) else -1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
