"""The queries that aggregate interactions to one row of figures per domain: see :mod:`mmlora.checks.figures`.

Variables: ``as_of``, ``window_days``. The tables build on each other in the order of :data:`STATEMENTS`.
"""

from __future__ import annotations

# Younger domains have no meaningful mean day to compare with: their first days are the launch.
MIN_HISTORY_DAYS = 7

TRAILING_DAYS = 7
"""Days before the last one with which its users, items and hours are compared."""
LEAST_OF_HOUR, LEAST_EXPECTED = 6, 18
"""Visits that were expected in each missing hour, and in all of them, for their absence to be no chance."""
LEAST_WEEK = 100
"""Rows of the seven days before that the last day's users and items can be compared with."""
LEAST_BUSY = 20
"""Rows of a day that any user may have."""
LEAST_VISITS = 100
"""Users of the seven days before, each day's counted, whose busiest one the last day's is compared with."""
ALIKE = 0.1
"""How much alike the labels of one user's rows of a day are: their correlation."""

_AS_OF = "getvariable('as_of')"
# A time of zero, in any time zone, is a missing time. Clocks differ by seconds and batches by minutes; an
# event known an hour before it happened has a wrong time zone.
_FUTURE = "known_at < event_timestamp - INTERVAL 1 HOUR"
_OUT_OF_RANGE = f"event_timestamp < TIMESTAMPTZ '1970-01-02 00:00:00+00' OR {_FUTURE}"

# Condition of the rows to count, by column of the frame.
FAULTS = {
    "wrong_type": "wrong_type_found IS NOT NULL",
    "null_user_id": "user_id IS NULL",
    "null_item_id": "item_id IS NULL",
    "null_domain_id": "domain_id IS NULL",
    "null_event_timestamp": "event_timestamp IS NULL",
    "null_known_at": "known_at IS NULL",
    "null_label": "label IS NULL",
    "label_not_0_or_1": "label NOT IN (-1, 0, 1)",
    "time_out_of_range": _OUT_OF_RANGE,
    "wrong_day_folder": "event_timestamp IS NOT NULL AND (day IS NULL "
    "OR epoch_us(event_timestamp) // 86400000000 <> day - DATE '1970-01-01')",
}

_VISIBLE = f"""
CREATE TEMP VIEW visible AS SELECT * FROM interactions
WHERE coalesce(known_at <= {_AS_OF}, true) AND coalesce(event_timestamp < {_AS_OF} OR {_FUTURE}, true)
"""

_FAULTS = f"""
CREATE TEMP TABLE faults AS
SELECT domain_id, min(event_timestamp) FILTER (NOT ({_OUT_OF_RANGE})) AS first_seen,
    {", ".join(f"count(*) FILTER ({rows}) AS {name}" for name, rows in FAULTS.items())},
    min(file || coalesce(' (' || wrong_type_found || ')', ''))
        FILTER ({" OR ".join(f"({rows})" for rows in FAULTS.values())}) AS first_file_at_fault
FROM visible GROUP BY domain_id
"""

_CLEAN = f"""
CREATE TEMP VIEW clean AS SELECT * FROM visible
WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND domain_id IS NOT NULL AND known_at IS NOT NULL
    AND event_timestamp < {_AS_OF}
"""

# Keys that occur more than once are rare, and hashes, which are grouped faster than five columns, find them.
_DUPLICATES = """
CREATE TEMP TABLE duplicates AS
WITH repeated AS (
    SELECT hash(domain_id, user_id, item_id, event_timestamp, known_at) AS hash FROM clean
    GROUP BY hash HAVING count(*) > 1
)
SELECT domain_id, sum(copies - 1)::BIGINT AS duplicate_keys FROM (
    SELECT domain_id, count(*) AS copies FROM clean
    WHERE hash(domain_id, user_id, item_id, event_timestamp, known_at) IN (FROM repeated)
    GROUP BY domain_id, user_id, item_id, event_timestamp, known_at HAVING count(*) > 1
) GROUP BY domain_id
"""

# The versions of the keys of the last day and the window before it.
_VERSIONS = f"""
CREATE TEMP TABLE versions AS
SELECT user_id, item_id, domain_id, event_timestamp, known_at, label,
    hash(user_id, item_id, domain_id, event_timestamp) AS hash
FROM clean WHERE event_timestamp >= {_AS_OF} - to_days(1 + getvariable('window_days'))
"""

# The latest version of each key that isn't withdrawn (label -1).
_RECENT = f"""
CREATE TEMP TABLE recent AS
WITH repeated AS (SELECT hash FROM versions GROUP BY hash HAVING count(*) > 1), latest AS (
    SELECT * EXCLUDE (known_at, hash) FROM versions WHERE hash NOT IN (FROM repeated)
    UNION ALL
    SELECT user_id, item_id, domain_id, event_timestamp, arg_max(label, known_at) FROM versions
    WHERE hash IN (FROM repeated) GROUP BY ALL
)
SELECT *, (epoch_us({_AS_OF}) - epoch_us(event_timestamp) - 1) // 86400000000 AS days_before,
    epoch_us(event_timestamp) // 3600000000 % 24 AS hour
FROM latest WHERE coalesce(label, 0) >= 0
"""

# On which of the days before a domain's users and items were there first and last.
_ENTITIES = """
CREATE TEMP TABLE {entity}s AS
SELECT domain_id, {entity}_id, max(days_before) AS first_day, min(days_before) AS newest_day
FROM recent GROUP BY domain_id, {entity}_id
"""

_COUNTS = """
CREATE TEMP TABLE counts AS
SELECT * FROM (
    SELECT domain_id, count(*) FILTER (days_before < getvariable('window_days')) AS rows,
        count(*) FILTER (days_before < getvariable('window_days') AND label = 1) AS positives,
        count(*) FILTER (days_before = 0) AS last_day_rows, count(*) FILTER (days_before > 0) AS earlier_rows
    FROM recent GROUP BY domain_id
) JOIN (
    SELECT domain_id, count(*) FILTER (newest_day < getvariable('window_days')) AS users
    FROM users GROUP BY domain_id
) USING (domain_id) JOIN (
    SELECT domain_id, count(*) FILTER (newest_day < getvariable('window_days')) AS items
    FROM items GROUP BY domain_id
) USING (domain_id)
"""

# The number of days without rows up to the as-of date, and what the days before the last one were like.
_VOLUMES = """
CREATE TEMP TABLE volumes AS
SELECT domain_id, min(days_before) AS silent_days, sum(rows * rows) FILTER (days_before > 0) AS squares,
    min(rows) FILTER (days_before > 0) AS quietest_day, max(rows) FILTER (days_before > 0) AS busiest_day,
    sum(clicks) FILTER (days_before = 0) AS last_clicks,
    sum(clicks) FILTER (days_before > 0) / sum(rows) FILTER (days_before > 0) AS earlier_ctr
FROM (
    SELECT domain_id, days_before, count(*) AS rows, count(*) FILTER (label = 1) AS clicks
    FROM recent GROUP BY ALL
) GROUP BY domain_id
"""

# Who and what was shown on the last day and on each of the seven days before: the rows of the busiest user,
# the share of rows that repeat a pair of that day or the day before, and of rows of new users and items.
# Rows come in visits of `visit` rows: the variance of a user's rows of a day over their mean. It is 1 where
# each user's rows fall on the days by chance, and all of a user's rows where each is there on one day only.
_DAYS = f"""
CREATE TEMP TABLE days AS
WITH pairs AS (
    SELECT domain_id, days_before, user_id, item_id, count(*) AS rows,
        lag(days_before) OVER (PARTITION BY domain_id, user_id, item_id ORDER BY days_before DESC) AS earlier
    FROM recent WHERE days_before <= {TRAILING_DAYS} + 1 GROUP BY domain_id, days_before, user_id, item_id
),
user_days AS (
    SELECT domain_id, days_before, user_id, sum(rows) AS rows,
        sum(rows - (earlier IS DISTINCT FROM days_before + 1)::INTEGER) AS repeats
    FROM pairs WHERE days_before <= {TRAILING_DAYS} GROUP BY ALL
),
item_days AS (SELECT domain_id, days_before, item_id, sum(rows) AS rows FROM pairs
    WHERE days_before <= {TRAILING_DAYS} GROUP BY ALL),
by_user AS (
    SELECT domain_id, days_before, sum(rows) AS day_rows, max(rows) AS busiest,
        count(*) AS day_visits, sum(repeats) / sum(rows) AS repeats,
        coalesce(sum(rows) FILTER (first_day = days_before), 0) / sum(rows) AS new_users
    FROM user_days JOIN users USING (domain_id, user_id) GROUP BY ALL
),
visits AS (
    SELECT domain_id, days / (days - 1) * sum(squares - rows * rows / days) / sum(rows) AS dispersion
    FROM (
        SELECT domain_id, sum(rows) AS rows, sum(rows * rows) AS squares,
            least({TRAILING_DAYS}, getvariable('window_days')) + 1 AS days
        FROM user_days GROUP BY domain_id, user_id
    ) GROUP BY domain_id, days
),
by_item AS (
    SELECT domain_id, days_before,
        coalesce(sum(rows) FILTER (first_day = days_before), 0) / sum(rows) AS new_items
    FROM item_days JOIN items USING (domain_id, item_id) GROUP BY ALL
)
SELECT domain_id, sum(day_rows) FILTER (days_before > 0) AS week_rows,
    sum(day_visits) FILTER (days_before > 0) AS week_visits, greatest(1, any_value(dispersion)) AS visit, {
    ", ".join(
        f"max({name}) FILTER (days_before = 0) AS {name}, "
        f"max({name}) FILTER (days_before > 0) AS {name}_before"
        for name in ("busiest", "repeats", "new_users", "new_items")
    )
}
FROM by_user JOIN by_item USING (domain_id, days_before) JOIN visits USING (domain_id) GROUP BY domain_id
"""

# The share of a usual day's rows in hours that have none on the last day, though enough were expected and
# each of the days before had some.
_HOURS = f"""
CREATE TEMP TABLE hours AS
WITH counts AS (
    SELECT domain_id, hour, count(*) FILTER (days_before = 0) AS now,
        count(*) FILTER (days_before > 0) AS before,
        count(DISTINCT days_before) FILTER (days_before > 0) AS days
    FROM recent WHERE days_before <= {TRAILING_DAYS} GROUP BY ALL
),
shares AS (
    SELECT domain_id, now, days, before / nullif(sum(before) OVER of_domain, 0) AS share,
        sum(now) OVER of_domain AS rows
    FROM counts WINDOW of_domain AS (PARTITION BY domain_id)
)
SELECT domain_id,
    CASE WHEN sum(share * rows / visit) >= {LEAST_EXPECTED} THEN sum(share) ELSE 0 END AS missing_hours
FROM shares JOIN days USING (domain_id)
WHERE now = 0 AND shares.days = {TRAILING_DAYS} AND share * rows / visit >= {LEAST_OF_HOUR} GROUP BY domain_id
"""

# Of the rows that became known on the last day, the share of those that happened on earlier days.
_LATE = f"""
CREATE TEMP TABLE late AS
SELECT domain_id, count(*) FILTER (event_timestamp < {_AS_OF} - to_days(1)) / count(*) AS late_share
FROM clean WHERE known_at >= {_AS_OF} - to_days(1) GROUP BY domain_id
"""


def _change(clicks: str, rows: str, before: str, visit: str) -> str:
    """Return how many times a day's label rate is above or below that of before, beyond chance."""
    clump = f"(1 + {ALIKE} * ({visit} - 1))"
    count, of = f"({clicks} / {clump})", f"({rows} / {clump})"
    deviation = f"3 * sqrt({count} * (1 - {clicks} / {rows}) + 2.25)"
    return f"""greatest(1,
            ({count} + 4.5 - {deviation}) / ({of} + 9) / nullif({before}, 0),
            {before} * ({of} + 9) / ({count} + 4.5 + {deviation}))"""


def _beyond(name: str) -> str:
    """Return how far a share of the last day's rows is above that of any day before, beyond chance."""
    visits = "(last_day_rows / visit)"
    deviation = f"3 * sqrt({name} * (1 - {name}) * {visits} + 2.25)"
    beyond = f"({name} * {visits} + 4.5 - {deviation}) / ({visits} + 9) - {name}_before"
    return f"CASE WHEN week_rows >= {LEAST_WEEK} THEN {beyond} END"


# The bounds of rates and shares are Wilson's at three standard deviations: five rows without a click prove
# nothing. That of the last day's rows is similar, but rows arrive in clumps: by the visit, of which chance
# decides as a whole, and by what makes whole days differ (`spread`, the ratio of the variance to the mean of
# the days before). The chance of silence is the probability that all clumps fell on the days before it.
FRAME = f"""
WITH figures AS (
    SELECT e.domain, e.number, {", ".join(f"coalesce(f.{name}, 0) AS {name}" for name in FAULTS)},
        coalesce(d.duplicate_keys, 0) AS duplicate_keys, f.first_file_at_fault,
        coalesce(c.rows, 0) AS rows, coalesce(c.positives, 0) AS positives, coalesce(c.users, 0) AS users,
        coalesce(c.items, 0) AS items, coalesce(c.last_day_rows, 0) AS last_day_rows,
        CASE WHEN f.first_seen IS NOT NULL
            THEN least(date_diff('day', f.first_seen, {_AS_OF}) - 1, $window_days) END AS history_days,
        CASE WHEN history_days >= least({MIN_HISTORY_DAYS}, $window_days)
            THEN coalesce(c.earlier_rows, 0) / history_days END AS mean_day_rows,
        greatest(1, (v.squares / history_days - mean_day_rows ** 2) / nullif(mean_day_rows, 0)) AS spread,
        coalesce(v.silent_days, 0) AS silent_days, v.quietest_day, v.busiest_day, v.earlier_ctr,
        coalesce(v.last_clicks, 0) AS last_clicks, y.* EXCLUDE (domain_id), h.missing_hours, l.late_share
    FROM expected e LEFT JOIN faults f ON f.domain_id IS NOT DISTINCT FROM e.domain_id
        LEFT JOIN duplicates d ON d.domain_id = e.domain_id LEFT JOIN counts c ON c.domain_id = e.domain_id
        LEFT JOIN volumes v ON v.domain_id = e.domain_id LEFT JOIN days y ON y.domain_id = e.domain_id
        LEFT JOIN hours h ON h.domain_id = e.domain_id LEFT JOIN late l ON l.domain_id = e.domain_id
), comparable AS (
    SELECT *, {_change("last_clicks", "last_day_rows", "earlier_ctr", "visit")} AS change
    FROM figures WHERE mean_day_rows IS NOT NULL AND earlier_ctr IS NOT NULL AND last_day_rows > 0
), most AS (
    SELECT arg_max(number, change) AS changed_most FROM comparable
), together AS (  -- all but the domain that changed most, which alone would make it look as if all changed
    SELECT any_value(changed_most) AS changed_most, sum(last_clicks) AS all_clicks,
        sum(last_day_rows) AS all_rows, sum(visit * last_day_rows) / nullif(all_rows, 0) AS all_visit,
        sum(earlier_ctr * last_day_rows) / nullif(all_rows, 0) AS all_ctr
    FROM comparable, most WHERE number <> changed_most
)
SELECT * EXCLUDE (number, missing_hours, repeats, new_users, new_items, all_clicks, all_rows, all_ctr,
        all_visit, changed_most),
    coalesce(rows / nullif(users * items, 0), 0) AS density, positives / nullif(rows, 0) AS ctr,
    (positives + 4.5 - 3 * sqrt(positives * (1 - ctr) + 2.25)) / (rows + 9) AS ctr_at_least,
    (positives + 4.5 + 3 * sqrt(positives * (1 - ctr) + 2.25)) / (rows + 9) AS ctr_at_most,
    CASE WHEN mean_day_rows IS NOT NULL
        THEN last_day_rows / greatest(mean_day_rows, $volume_min_mean) END AS last_day_over_mean,
    CASE WHEN last_day_rows > 0 AND NOT $declared_empty
        THEN (last_day_rows + spread * (4.5 + 3 * sqrt(last_day_rows / spread + 2.25)))
            / nullif(mean_day_rows, 0) END AS last_day_under_mean,
    CASE WHEN silent_days > 0 AND NOT $declared_empty THEN (1 - silent_days / (history_days + 1))
        ** (mean_day_rows * history_days / spread) END AS silence_chance,
    CASE WHEN mean_day_rows IS NOT NULL AND last_day_rows > 0 THEN {{
        'quiet_day': CASE WHEN NOT $declared_empty
            THEN (last_day_rows + visit * (4.5 + 3 * sqrt(last_day_rows / visit + 2.25))) / quietest_day END,
        'busy_day': (last_day_rows - 3 * sqrt(last_day_rows * visit)) / greatest(busiest_day, 1),
        'label_rate_change': CASE WHEN $labels_mature
            THEN {_change("last_clicks", "last_day_rows", "earlier_ctr", "visit")} END,
        'label_rate_change_all': CASE WHEN $labels_mature
                AND (2 * last_day_rows <= all_rows OR number = changed_most) THEN least(
            {_change("all_clicks", "all_rows", "all_ctr", "all_visit")},
            greatest((last_clicks + 1) / (earlier_ctr * last_day_rows + 1),
                (earlier_ctr * last_day_rows + 1) / (last_clicks + 1))) END,
        'busiest_user': CASE WHEN week_visits >= {LEAST_VISITS}
            THEN (busiest - 3 * sqrt(busiest)) / greatest(busiest_before, {LEAST_BUSY}) END,
        'repeated_pairs': {_beyond("repeats")},
        'new_users': {_beyond("new_users")},
        'new_items': {_beyond("new_items")},
        'missing_hours': CASE WHEN $declared_empty THEN 0 ELSE coalesce(missing_hours, 0) END
    }} END AS last_day
FROM figures, together ORDER BY number
"""


STATEMENTS = (
    *(_VISIBLE, _FAULTS, _CLEAN, _DUPLICATES, _VERSIONS, _RECENT),
    *(_ENTITIES.format(entity="user"), _ENTITIES.format(entity="item")),
    *(_COUNTS, _VOLUMES, _DAYS, _HOURS, _LATE),
)
