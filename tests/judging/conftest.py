"""A training set on disk whose clicks follow crosses, so that each baseline has something to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmlora.encoding import Encoder
from mmlora.judging.rows import Rows
from mmlora.schema import FeatureContract, FeatureField
from mmlora.training.dataset import EncodedRows, TrainingSet, user_codes

USER, ITEM, DOMAIN = ("user_id",), ("item_id",), ("domain_id",)
CONTRACT = FeatureContract(
    "service",
    (
        FeatureField("user_id", "", USER, "INT64", "categorical"),
        FeatureField("item_id", "", ITEM, "INT64", "categorical"),
        FeatureField("domain_id", "", DOMAIN, "STRING", "categorical"),
        FeatureField("user__age", "user", USER, "STRING", "categorical"),
        FeatureField("item__category", "item", ITEM, "STRING", "categorical"),
        FeatureField("item__price", "item", ITEM, "FLOAT", "dense"),
        FeatureField("item__look", "item", ITEM, "FLOAT_LIST", "vector"),
        FeatureField("item__tags", "item", ITEM, "STRING_LIST", "bag"),
        FeatureField("user__met", "user", USER, "STRING_LIST", "bag"),
        FeatureField("user__met_lift", "user", USER, "FLOAT_LIST", "weights", (("weights", "user__met"),)),
    ),
)
DOMAINS = ("a", "b")


@pytest.fixture
def make_rows(tmp_path: Path) -> Callable[..., Rows]:
    """Make rows of 10 days: domain ``b`` dislikes the categories that ``a`` likes.

    Days 0 to 5 are training rows, 6 and 7 validation rows, 8 and 9 test rows.
    """

    def make(rows: int = 6000, seed: int = 0, **columns: Any) -> Rows:
        draw = np.random.default_rng(seed)
        user, item = draw.integers(0, 50, rows), draw.integers(0, 40, rows)
        domain = draw.integers(0, 2, rows)
        category, age = item % 4, user % 3
        liked = np.where(domain == 0, category < 2, category >= 2)
        day = np.sort(draw.integers(0, 10, rows))
        table = pa.table(
            {
                "user_id": user,
                "item_id": item,
                "domain_id": np.array(DOMAINS)[domain],
                "user__age": np.array(["young", "middle", "old"])[age],
                "item__category": np.array(list("wxyz"))[category],
                "item__price": item * 1.5,
                "item__look": list(np.stack([item % 7, item % 5], 1).astype(float)),
                "item__tags": [["t1", "t2", "t3"][: n % 4] for n in item.tolist()],
                "user__met": [["w", "x"][: n % 3] for n in user.tolist()],
                "user__met_lift": [[0.5, 2.0][: n % 3] for n in user.tolist()],
            }
        )
        label = (draw.random(rows) < np.where(liked, 0.5, 0.1)).astype(np.int8)
        values = {"label": label, "day": day, "split": np.digitize(day, (6, 8)), **columns}
        train = table.filter(pa.array(values["split"] == 0))
        encoder = Encoder.fit(CONTRACT, train, domains=DOMAINS)
        users = user_codes(table["user_id"])
        chunk = EncodedRows(encoder.encode(table), values["label"], values["split"].astype(np.int8), users)
        folder = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
        data = TrainingSet.write(folder, [chunk], encoder=encoder, fingerprint="made up")
        return Rows(data, item.astype(np.int32), np.asarray(values["day"]).astype(np.int32))

    return make


@pytest.fixture
def rows(make_rows: Callable[..., Rows]) -> Rows:
    return make_rows()
