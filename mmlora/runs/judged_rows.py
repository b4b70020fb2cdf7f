"""The rows on which a run's model and its baselines are compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from mmlora.errors import DataError
from mmlora.runs.state import Run
from mmlora.runs.training_set import rows_of
from mmlora.schema import EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID, midnight

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.judging.rows import Rows
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.epoch import RowNumbers
    from mmlora.workspace import Workspace

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class JudgedRows:
    """The rows on which a run is judged.

    Attributes:
        table: the interactions of the training set, in its order.
        rows: the training set, with each row's item and day.
        ids: the user and item ids of the codes in ``rows``.
        numbers: sorted numbers of the rows to score: the test rows and those of the held-out day.
        shown: numbers of the rows of the held-out day.
        day: the held-out day, as days since 1970-01-01; None when ``shown`` are all test rows.
    """

    table: pa.Table
    rows: Rows
    ids: dict[str, pa.Array]
    numbers: RowNumbers
    shown: RowNumbers
    day: int | None


def judged_rows_of(workspace: Workspace, run: Run, data: TrainingSet) -> JudgedRows:
    """Read the rows on which a run is judged.

    Raises:
        DataError: the stored interactions no longer match the training set.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.judging.judgement import judged_rows
    from mmlora.judging.rows import Rows
    from mmlora.judging.shown import held_out
    from mmlora.training.dataset import user_codes

    table, config = rows_of(workspace, data), run.config
    if table.num_rows != len(data) or not np.array_equal(table[LABEL].to_numpy(), data.label):
        raise DataError(
            "judging",
            f"the training set has {len(data):,} rows, but the interactions that it was made of have changed "
            f"since ({table.num_rows:,} now): train again",
        )
    items = table[ITEM_ID].combine_chunks().dictionary_encode()
    users = table[USER_ID].combine_chunks().dictionary_encode()
    assert np.array_equal(users.indices.to_numpy(), user_codes(table[USER_ID]))
    days = pc.cast(pc.cast(pc.floor_temporal(table[EVENT_TIMESTAMP], unit="day"), pa.date32()), pa.int32())
    codes = items.indices.to_numpy().astype(np.int32)
    rows = Rows(data, codes, days.to_numpy(), config.settings.seed)
    matured = midnight(config.as_of) - timedelta(hours=config.settings.label_maturity_hours)
    shown, day = held_out(rows, (matured.date() - _EPOCH).days - 1)
    ids = {"user": users.dictionary, "item": items.dictionary}
    return JudgedRows(table, rows, ids, judged_rows(rows, shown), shown, day)
