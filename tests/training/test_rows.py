import numpy as np
import pytest

from mmlora.errors import TransientError
from mmlora.training import rows as module
from mmlora.training.rows import blocks, domains_of, of_domain, scratch


def test_blocks_cover_the_rows_in_order():
    rows = np.arange(10, 20)
    found = list(blocks(rows, 4))
    assert [(place.start, place.stop) for place, _ in found] == [(0, 4), (4, 8), (8, 10)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), rows)


def test_contiguous_rows_of_a_domain_are_a_slice(data):
    apart = data.rows("train")
    together = apart[np.argsort(data.domain[apart], kind="stable")]
    for domain in range(3):
        expected = apart[data.domain[apart] == domain]
        np.testing.assert_array_equal(of_domain(data, apart, domain), expected)
        found = of_domain(data, together, domain)
        np.testing.assert_array_equal(found, expected)
        assert np.shares_memory(found, together)
    assert len(of_domain(data, together, 7)) == 0
    assert domains_of(data, together[:5]).tolist() == [True, False, False]


def test_scratch_beyond_the_limit_is_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "IN_MEMORY", 100)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    small, large = scratch(25, np.float32), scratch(26, np.float32)
    assert small.base is None and large.base is not None and large.dtype == np.float32
    large[:] = np.arange(26)
    assert large.sum() == 325 and not list(tmp_path.iterdir())


def test_a_full_disk_says_what_to_do(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(TransientError, match="set TMPDIR"):
        scratch(100 << 20, np.uint8)
