"""What a user would pick instead of mmlora, trained on the shop's exported columns.

Every contender is a function of the rows before the day after, which returns a scorer of any rows. Columns
come from ``users.csv`` and ``items.parquet``, as a user has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmlora.data.shop import START, Impressions
from mmlora.data.shop_truth import ShopTruth

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
TEXTS = ("market", "country", "age_band", "category", "brand")
MODELS = ("item CTR by market", "logistic regression", "logistic regression, crosses", "LightGBM")


@dataclass(frozen=True)
class Rows:
    """Rows as places in the profile tables: ``[N]`` each."""

    user: Ints
    item: Ints
    market: Ints
    day: Ints

    @classmethod
    def of(cls, rows: Impressions, keep: npt.NDArray[np.bool_]) -> Rows:
        return cls(rows.customer[keep], rows.product[keep], rows.market[keep], rows.day[keep])


Scorer = Callable[[Rows], Scores]


class Columns:
    """The exported profiles, gathered for rows: texts by name, and numbers ``[N, columns]``."""

    def __init__(self, folder: Path) -> None:
        users, items = pd.read_csv(folder / "users.csv"), pd.read_parquet(folder / "items.parquet")
        self.country, self.age_band = (users[c].fillna("unknown").to_numpy() for c in ("country", "age_band"))
        self.category, self.brand = items["category"].to_numpy(), items["brand"].to_numpy()
        self.categories = sorted(set(self.category))
        signup = pd.to_datetime(users["signup_date"])
        self.of_user = np.column_stack(
            [
                users["loyalty_points"],
                (signup - pd.Timestamp(START)).dt.days,
                _multi_hot(users["interests"].map(json.loads), self.categories),
            ]
        )
        tags = sorted({tag for row in items["tags"] for tag in row})
        self.of_item = np.column_stack(
            [np.log(items["price"]), np.stack(items["embedding"].to_numpy()), _multi_hot(items["tags"], tags)]
        )
        launched = items["event_timestamp"].dt.tz_convert(None) - pd.Timestamp(START)
        self.launched = launched.dt.days.to_numpy()

    def texts(self, rows: Rows) -> pd.DataFrame:
        values = (
            *(rows.market.astype(str), self.country[rows.user], self.age_band[rows.user]),
            *(self.category[rows.item], self.brand[rows.item]),
        )
        return pd.DataFrame(dict(zip(TEXTS, values, strict=True)))

    def numbers(self, rows: Rows) -> npt.NDArray[np.float64]:
        age = rows.day - self.launched[rows.item]
        return np.column_stack([age, self.of_user[rows.user], self.of_item[rows.item]])

    def match(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return whether the user says it likes the item's category."""
        place = pd.Index(self.categories).get_indexer(self.category)[rows.item]
        return self.of_user[rows.user, 2 + place]


def _multi_hot(lists: Any, names: list[str]) -> npt.NDArray[np.float64]:
    place = {name: number for number, name in enumerate(names)}
    hot = np.zeros((len(lists), len(names)))
    for row, values in zip(hot, lists, strict=True):
        row[[place[value] for value in values]] = 1
    return hot


def fit(model: str, truth: ShopTruth, columns: Columns) -> Scorer:
    """Train one of :data:`MODELS` on the days before the day after."""
    early = truth.impressions.day < truth.dials.days
    rows, label = Rows.of(truth.impressions, early), truth.impressions.label[early]
    if model == "LightGBM":
        return _lightgbm(columns, rows, label, last=truth.dials.days - max(truth.dials.days // 10, 1))
    if model.startswith("logistic"):
        return _logistic(columns, rows, label, crosses=model.endswith("crosses"))
    return lambda rows: truth.item_ctr[rows.market, rows.item]


def _logistic(columns: Columns, rows: Rows, label: Any, *, crosses: bool) -> Scorer:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def texts(rows: Rows) -> pd.DataFrame:
        frame = columns.texts(rows).assign(item=rows.item.astype(str))
        if crosses:
            for left, right in (("market", "category"), ("age_band", "category"), ("market", "brand")):
                frame[f"{left} x {right}"] = frame[left] + "/" + frame[right]
        return frame

    def numbers(rows: Rows) -> Any:
        values = np.nan_to_num(columns.numbers(rows))
        return np.column_stack([values, columns.match(rows)]) if crosses else values

    one_hot = OneHotEncoder(handle_unknown="ignore").fit(texts(rows))
    scale = StandardScaler().fit(numbers(rows))

    def encode(rows: Rows) -> Any:
        return sparse.hstack([one_hot.transform(texts(rows)), scale.transform(numbers(rows))]).tocsr()

    model = LogisticRegression(C=0.1, max_iter=200).fit(encode(rows), label)
    return lambda rows: np.asarray(model.predict_proba(encode(rows))[:, 1])


def _lightgbm(columns: Columns, rows: Rows, label: Any, *, last: int) -> Scorer:
    """Choose the rounds on the rows from day ``last`` on, then train on all."""
    import lightgbm

    codes = {
        name: pd.CategoricalDtype(sorted(values.unique())) for name, values in columns.texts(rows).items()
    }

    def encode(rows: Rows) -> pd.DataFrame:
        texts = columns.texts(rows).astype(codes)
        numbers = pd.DataFrame(columns.numbers(rows)).add_prefix("number_")
        return pd.concat([texts, numbers], axis=1)

    options = {
        **{"objective": "binary", "learning_rate": 0.05, "min_child_samples": 50, "cat_smooth": 20},
        **{"feature_fraction": 0.5, "verbosity": -1, "seed": 0},
    }
    frame, late = encode(rows), rows.day >= last
    trial = lightgbm.train(
        options,
        lightgbm.Dataset(frame[~late], label[~late]),
        600,
        [lightgbm.Dataset(frame[late], label[late])],
        callbacks=[lightgbm.early_stopping(30, verbose=False)],
    )
    model = lightgbm.train(options, lightgbm.Dataset(frame, label), trial.best_iteration)
    return lambda rows: np.asarray(model.predict(encode(rows)))
