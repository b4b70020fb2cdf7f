"""Settings keep the type that was meant, wherever they come from."""

import pytest

from mmlora.errors import UsageError
from mmlora.settings import load_settings


@pytest.mark.parametrize("source", ["toml", "variable"])
@pytest.mark.parametrize(("text", "rank"), [("8", 8), ("0.25", 0.25)])
def test_a_rank_is_a_whole_number_or_a_share(tmp_path, monkeypatch, source, text, rank):
    monkeypatch.chdir(tmp_path)
    if source == "toml":
        (tmp_path / "mmlora.toml").write_text(f"[training]\nrank = {text}\n", encoding="utf-8")
    else:
        monkeypatch.setenv("MMLORA_TRAINING__RANK", text)
    found = load_settings().training.rank
    assert (found, type(found)) == (rank, type(rank))


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "-0.25"])
def test_any_other_rank_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_TRAINING__RANK", text)
    with pytest.raises(UsageError, match=r"training\.rank"):
        load_settings()
