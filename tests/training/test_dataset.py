from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmlora.encoding import Encoder
from mmlora.errors import DataError, UsageError
from mmlora.schema import FeatureContract, FeatureField
from mmlora.training import dataset
from mmlora.training.dataset import EncodedRows, TrainingSet, user_codes


def make_field(name, kind, **tags):
    return FeatureField(name, "", (name,), "STRING", kind, tuple(sorted(tags.items())))


CONTRACT = FeatureContract(
    "service",
    (
        make_field("user_id", "categorical"),
        make_field("domain_id", "categorical"),
        make_field("age", "dense"),
        make_field("taste/of: all", "vector"),
        make_field("genres", "bag"),
        make_field("genres: ctr", "weights", weights="genres"),
    ),
)


def table_of(rows: int, seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    return pa.table(
        {
            "user_id": draw.integers(0, 20, rows),
            "domain_id": draw.choice(["a", "b"], rows),
            "age": draw.random(rows),
            "taste/of: all": list(draw.random((rows, 3))),
            "genres": [["x", "y", "z"][: n % 4] for n in range(rows)],
            "genres: ctr": [[n / 8, n / 16, n / 32][: n % 4] for n in range(rows)],
        }
    )


def chunks_of(encoder: Encoder, table: pa.Table, size: int = 64):
    users = user_codes(table["user_id"])
    for start in range(0, table.num_rows, size):
        rows = np.arange(start, min(start + size, table.num_rows))
        yield EncodedRows(
            columns=encoder.encode(table.slice(start, size)),
            label=(rows % 3 == 0).astype(np.int8),
            split=(rows % 5).clip(2) - 2,
            user=users[rows],
        )


@pytest.fixture
def table() -> pa.Table:
    return table_of(300)


@pytest.fixture
def encoder(table) -> Encoder:
    return Encoder.fit(CONTRACT, table, domains=["a", "b"])


def write(path: Path, encoder: Encoder, table: pa.Table, **more) -> TrainingSet:
    return TrainingSet.write(path, chunks_of(encoder, table), encoder=encoder, fingerprint="f", **more)


def test_a_batch_holds_the_rows_asked_for_in_order(tmp_path, encoder, table):
    data = write(tmp_path / "set", encoder, table)
    rows = np.array([299, 0, 130, 130])
    batch = data.batch(rows)
    expected = encoder.assemble([(encoder.encode(table), rows)], label=(rows % 3 == 0))
    for name in ("categorical", "dense", "domain", "label"):
        found, wanted = getattr(batch, name), getattr(expected, name)
        assert found.dtype == wanted.dtype and found.equal(wanted)
    assert batch.vectors.keys() == expected.vectors.keys() == {"taste/of: all", "genres: ctr"}
    assert all(batch.vectors[name].equal(values) for name, values in expected.vectors.items())
    assert batch.bags["genres"].equal(expected.bags["genres"])
    batch.dense.add_(1)  # a batch is a copy: the set on disk can't change
    assert data.batch(rows).dense.equal(expected.dense)


def test_columns_are_mapped_not_read(tmp_path, encoder, table):
    data = write(tmp_path / "set", encoder, table)
    assert not data.label.flags.owndata and not data.label.flags.writeable


def test_splits_partition_the_rows_and_the_manifest_counts_them(tmp_path, encoder, table):
    data = write(tmp_path / "set", encoder, table, info={"as_of": "2001-01-01"})
    parts = [data.rows(name) for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(300)) and len(data) == 300
    manifest = TrainingSet.open(tmp_path / "set").manifest
    assert list(manifest.splits.values()) == [len(part) for part in parts]
    assert np.array(manifest.domain_splits).sum(0).tolist() == [len(part) for part in parts]
    assert manifest.domain_splits[1][0] == int((data.domain[parts[0]] == 1).sum())
    assert (manifest.positives, manifest.fingerprint, manifest.info) == (100, "f", {"as_of": "2001-01-01"})
    assert manifest.contract == CONTRACT and data.domains == ["a", "b"] and data.num_domains == 2


@pytest.mark.parametrize("at_once", [7, 1 << 20])
def test_rows_of_a_split_are_arranged_by_domain_in_a_file(tmp_path, encoder, table, monkeypatch, at_once):
    monkeypatch.setattr(dataset, "INDEX_ROWS", at_once)
    data = write(tmp_path / "set", encoder, table)
    for name, number in (("train", 0), ("validation", 1), ("test", 2)):
        own = np.flatnonzero(data.split == number)
        expected = own[np.argsort(data.domain[own], kind="stable")]
        np.testing.assert_array_equal(data.rows(name), expected)
        assert not data.rows(name).flags.owndata


def test_the_encoder_is_loaded_as_stored(tmp_path, encoder, table):
    write(tmp_path / "set", encoder, table)
    assert TrainingSet.open(tmp_path / "set").encoder == encoder


def test_user_codes_are_distinct():
    codes = user_codes(pa.chunked_array([["b", "a"], ["b", "c"]]))
    assert codes.tolist() == [0, 1, 0, 2] and codes.dtype == np.int32


def test_ids_only_sets_have_no_dense_columns(tmp_path):
    contract = FeatureContract("", CONTRACT.fields[:2])
    table = table_of(5).select(["user_id", "domain_id"])
    encoder = Encoder.fit(contract, table, domains=["a", "b"])
    assert write(tmp_path / "set", encoder, table).batch(np.arange(5)).dense.shape == (5, 0)


def test_a_failed_write_leaves_nothing_and_a_finished_set_is_kept(tmp_path, encoder, table):
    def broken():
        yield from chunks_of(encoder, table)
        raise RuntimeError("retrieval failed")

    path = tmp_path / "sets" / "one"
    with pytest.raises(RuntimeError):
        TrainingSet.write(path, broken(), encoder=encoder, fingerprint="f")
    with pytest.raises(UsageError, match="no training set"):
        TrainingSet.open(path)
    assert [p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")] == []
    write(path, encoder, table)
    again = TrainingSet.write(path, broken(), encoder=encoder, fingerprint="other")
    assert again.manifest.fingerprint == "f"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_dataset import *
    table = table_of(300)
    encoder = Encoder.fit(CONTRACT, table, domains=["a", "b"])
    def chunks():
        for number, chunk in enumerate(chunks_of(encoder, table)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk
    TrainingSet.write(Path(sys.argv[1]), chunks(), encoder=encoder, fingerprint="f")
"""


def test_a_killed_writer_leaves_no_set_and_the_next_one_completes(tmp_path, encoder, table):
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "set"), str(here.parent)],
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    assert len(write(tmp_path / "set", encoder, table)) == 300
    assert not (tmp_path / ".set.partial").exists()


def test_rows_of_no_training_domain_and_empty_sets_are_refused(tmp_path, table):
    encoder = Encoder.fit(CONTRACT, table, domains=["a"])
    with pytest.raises(DataError, match="not a training domain"):
        write(tmp_path / "set", encoder, table)
    with pytest.raises(DataError, match="no rows to train on"):
        write(tmp_path / "set", encoder, table.slice(0, 0))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figure")
def test_memory_does_not_grow_with_rows(tmp_path, encoder):
    table = table_of(20_000)
    (chunk,) = chunks_of(encoder, table, 20_000)

    def anonymous_kib() -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
        return int(line.split()[1])

    def growth(path: Path, chunks: int) -> int:
        seen = []
        chunks_seen = (seen.append(anonymous_kib()) or chunk for _ in range(chunks))
        TrainingSet.write(path, chunks_seen, encoder=encoder, fingerprint="f")
        return max(seen) - seen[1]

    assert growth(tmp_path / "many", 60) < 8_000  # KiB; the chunks are 60 MiB
    data = TrainingSet.open(tmp_path / "many")
    assert len(data) == 1_200_000
    assert torch.equal(data.batch(np.arange(20_000)).dense, data.batch(np.arange(1_180_000, 1_200_000)).dense)
