from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from mmlora.data.negatives import draw_negatives, true_probability
from mmlora.data.store import OfflineStore
from mmlora.data.taobao import read_taobao
from mmlora.errors import DataError, UsageError
from mmlora.pipeline.data import import_taobao
from mmlora_cli.main import app

CLICKS = {1: 900, 2: 600, 3: 300, 4: 40}
"""Made-up clicks by theme."""


def _vectors(path: Path, ids: list[int], rng: np.random.Generator, header: str = "id,embedding\n") -> None:
    lines = (f"{i},{' '.join(f'{x:.5g}' for x in rng.normal(size=128))}\n" for i in ids)
    path.write_text(header + "".join(lines))


@pytest.fixture(scope="module")
def made_up_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("taobao"), np.random.default_rng(5)
    theme = rng.permutation(np.repeat(list(CLICKS), list(CLICKS.values())))
    user, item = rng.integers(1, 81, len(theme)), rng.integers(0, 60, len(theme)) + 100 * theme
    seconds = pd.to_datetime(1_560_000_000 + np.sort(rng.integers(0, 864_000, len(theme))), unit="s")
    log = pd.DataFrame({"user_id": user, "item_id": item, "theme_id": theme, "reach_time": seconds})
    log.to_csv(folder / "theme_click_log.csv", index=False, date_format="%Y-%m-%d %H:%M:%S")
    _vectors(folder / "user_embedding.csv", list(range(1, 91)), rng)
    _vectors(folder / "item_embedding.csv", sorted(set(item.tolist())), rng)
    return folder


@pytest.fixture
def edited(made_up_log: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the files, one of them changed."""

    def make(name: str, change: Callable[[str], str | None]) -> Path:
        for path in made_up_log.iterdir():
            text = change(path.read_text()) if path.name == name else path.read_text()
            if text is not None:
                (tmp_path / path.name).write_text(text)
        return tmp_path

    return make


def test_the_largest_themes_become_domains_and_every_click_a_row(made_up_log: Path) -> None:
    data = read_taobao(made_up_log, themes=3)
    log = pd.read_csv(made_up_log / "theme_click_log.csv", parse_dates=["reach_time"])
    log = log[log.theme_id.isin([1, 2, 3])].drop_duplicates()
    frame = data.interactions.to_pandas()
    clicks = frame[frame.label == 1]
    assert data.interactions.schema.field("domain_id").type == pa.int64()
    columns = ["user_id", "item_id", "domain_id"]
    assert sorted(map(tuple, clicks[columns].to_numpy())) == sorted(
        map(tuple, log[["user_id", "item_id", "theme_id"]].to_numpy())
    )
    assert clicks.event_timestamp.dt.tz_localize(None).tolist() == log.reach_time.sort_values().tolist()
    assert frame.event_timestamp.is_monotonic_increasing
    assert data.without_vector == 0


def test_negatives_are_of_the_theme_never_clicked_there_by_the_user_and_at_the_clicks_time(
    made_up_log: Path,
) -> None:
    frame = read_taobao(made_up_log, themes=4).interactions.to_pandas()
    clicks, negatives = frame[frame.label == 1], frame[frame.label == 0]
    clicked = set(zip(clicks.user_id, clicks.item_id, clicks.domain_id, strict=True))
    assert not clicked & set(zip(negatives.user_id, negatives.item_id, negatives.domain_id, strict=True))
    assert (negatives.item_id // 100 == negatives.domain_id).all()
    key = ["user_id", "domain_id", "event_timestamp"]
    assert negatives.merge(clicks[key].drop_duplicates(), on=key).shape[0] == len(negatives)
    assert not frame.duplicated([*key, "item_id"]).any()
    share = len(negatives) / len(clicks)
    assert 2 <= share <= 5


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_label_rates_agree_before_and_after_any_moment(made_up_log: Path, cut: float) -> None:
    data = read_taobao(made_up_log, themes=3)
    rate = dict(
        zip(*(data.sampling[n].to_pylist() for n in ("domain_id", "negatives_per_click")), strict=True)
    )
    frame = data.interactions.to_pandas()
    before = frame[frame.event_timestamp < frame.event_timestamp.quantile(cut)]
    for theme, rows in before.groupby("domain_id"):
        clicks = rows.label.sum()
        assert len(rows) - clicks == pytest.approx(clicks * rate[theme], abs=2)


def test_the_sampling_rate_leads_back_to_the_true_ctr(made_up_log: Path) -> None:
    sampling = read_taobao(made_up_log, themes=2).sampling.to_pylist()
    for row in sampling:
        assert row["negatives"] == pytest.approx(row["clicks"] * row["negatives_per_click"])
        assert row["short"] == 0
        pairs = row["negatives"] / row["sampling_rate"]
        sampled = row["clicks"] / (row["clicks"] + row["negatives"])
        found = true_probability(sampled, row["sampling_rate"])
        assert found == pytest.approx(row["clicks"] / (row["clicks"] + pairs))
        known = 0.03  # the same with a CTR known from elsewhere
        weight = row["negatives_per_click"] * known / (1 - known)
        assert true_probability(sampled, weight) == pytest.approx(known)


def test_vectors_become_profiles_of_those_who_have_rows(made_up_log: Path) -> None:
    data = read_taobao(made_up_log, themes=1)
    seen = set(data.interactions["user_id"].to_pylist())
    assert set(data.profiles["user"]["user_id"].to_pylist()) == seen
    table = data.profiles["user"]
    assert table.schema.field("vector").type == pa.list_(pa.float32())
    lines = (made_up_log / "user_embedding.csv").read_text().splitlines()[1:]
    wanted = {int(i): text for i, text in (line.split(",") for line in lines)}
    for user, vector in zip(table["user_id"].to_pylist(), table["vector"].to_pylist(), strict=True):
        np.testing.assert_allclose(vector, np.array(wanted[user].split(), float), rtol=1e-6)


def test_the_same_seed_draws_the_same_whatever_the_order_of_the_file(
    made_up_log: Path, edited: Callable[..., Path]
) -> None:
    def reverse(text: str) -> str:
        header, *rows = text.splitlines()
        return "\n".join([header, *reversed(rows)]) + "\n"

    first = read_taobao(made_up_log, themes=2).interactions
    assert first.equals(read_taobao(edited("theme_click_log.csv", reverse), themes=2).interactions)
    assert not first.equals(read_taobao(made_up_log, themes=2, seed=1).interactions)


def test_times_may_be_epoch_seconds_and_embeddings_may_lack_a_header(
    made_up_log: Path, edited: Callable[..., Path], tmp_path: Path
) -> None:
    def epoch(text: str) -> str:
        header, *rows = text.splitlines()
        pairs = [row.rsplit(",", 1) for row in rows]
        return "\n".join(
            [header, *(f"{a},{int(pd.Timestamp(time, tz='UTC').timestamp())}" for a, time in pairs)]
        )

    folder = edited("theme_click_log.csv", epoch)
    users = folder / "user_embedding.csv"
    users.write_text(users.read_text().split("\n", 1)[1])
    expected, found = read_taobao(made_up_log, themes=2), read_taobao(folder, themes=2)
    assert found.interactions.equals(expected.interactions)
    assert found.profiles["user"].equals(expected.profiles["user"])


def test_clicks_without_a_vector_are_left_out_and_counted(
    made_up_log: Path, edited: Callable[..., Path]
) -> None:
    log = pd.read_csv(made_up_log / "theme_click_log.csv")
    folder = edited("user_embedding.csv", lambda text: text.replace("\n7,", "\n707,"))
    data = read_taobao(folder, themes=2)
    assert data.without_vector == (log.user_id == 7).sum()
    assert 7 not in data.interactions["user_id"].to_pylist()


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("theme_click_log.csv", lambda text: text.replace("theme_id", "topic", 1), ["theme_id", "topic"]),
        (
            "theme_click_log.csv",
            lambda text: text + ",8,1,yesterday\n3,,1,2019-06-09 00:00:00\n",
            ["null in user_id", "null in item_id", "not a timestamp", "1 rows", "yesterday"],
        ),
        ("theme_click_log.csv", lambda text: text.splitlines()[0] + "\n", ["no rows"]),
        (
            "user_embedding.csv",
            lambda text: text + "5001,0.5 0.25\n5002,x" + " 1" * 127 + "\n",
            ["'vector'", "not 128 numbers", "2 rows", "id='5001'"],
        ),
        ("item_embedding.csv", lambda text: text + text.splitlines()[1] + "\n", ["more than once", "2 rows"]),
        ("item_embedding.csv", lambda text: text.replace(" ", ","), ["129 values", "2 columns"]),
        (
            "item_embedding.csv",
            lambda text: text.replace(" ", ",").split("\n", 1)[1],
            ["129 columns", "128 floats"],
        ),
        ("item_embedding.csv", lambda text: None, ["item_embedding.csv missing"]),
    ],
)
def test_faults_name_file_column_count_and_first_rows(
    name: str, change: Callable[[str], str | None], parts: list[str], edited: Callable[..., Path]
) -> None:
    with pytest.raises(DataError) as caught:
        read_taobao(edited(name, change), themes=2)
    assert [part for part in [name, *parts] if part not in str(caught.value)] == []


def test_too_many_themes_and_wrong_paths_are_refused(made_up_log: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 themes; ask for that many or fewer, not 10"):
        read_taobao(made_up_log, themes=10)
    with pytest.raises(UsageError, match="folder does not exist"):
        read_taobao(tmp_path / "nowhere", themes=10)
    with pytest.raises(UsageError, match="themes 0"):
        read_taobao(made_up_log, themes=0)


@pytest.mark.parametrize("items", [1, 4, 6, 300])
def test_few_eligible_items_give_fewer_negatives_and_never_a_wrong_or_double_one(items: int) -> None:
    rng = np.random.default_rng(items)
    user, item = rng.integers(0, 9, 400), rng.integers(0, items, 400)
    user[: min(items, 300) - 1], item[: min(items, 300) - 1] = 8, np.arange(min(items, 300) - 1)
    moment, domain = np.arange(400) // 3, np.zeros(400, np.int64)
    drawn = draw_negatives(user, item, domain, moment, np.array([4.5]), seed=2)
    found = list(zip(user[drawn.click], drawn.item, moment[drawn.click], strict=True))
    assert len(set(found)) == len(found)
    assert not {(u, i) for u, i, _ in found} & set(zip(user, item, strict=True))
    frame = pd.DataFrame({"user": user, "moment": moment, "wanted": drawn.wanted, "free": drawn.eligible})
    groups = frame.groupby(["user", "moment"]).agg({"wanted": "sum", "free": "first"})
    assert len(found) == np.minimum(groups.wanted, groups.free).sum()


def test_the_import_keeps_the_sampling_rates_and_refuses_to_mix(
    made_up_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    report = import_taobao(made_up_log, themes=2)
    assert OfflineStore(tmp_path / "var" / "offline").domains() == [1, 2]
    kept = json.loads(Path(report.sampling_file).read_text())
    assert kept == list(report.sampling)
    assert sum(row["clicks"] + row["negatives"] for row in kept) == report.interactions
    assert import_taobao(made_up_log, themes=2).interactions == 0
    with pytest.raises(UsageError, match="holds other data"):
        import_taobao(made_up_log, themes=3)
    arguments = ["data", "taobao", "--path", str(made_up_log), "--themes", "2"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "sampled negatives by theme" in shown
