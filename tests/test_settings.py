"""Settings keep the type that was meant, wherever they come from."""

import pytest

from mmlora.errors import UsageError
from mmlora.pipeline.setup import init_workspace
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


def test_removing_the_hash_of_any_setting_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init_workspace()
    path = tmp_path / "mmlora.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if line.startswith("# ") and " = " in line]
    assert len(settings) > 50
    for number in settings:
        changed = [*lines[:number], lines[number].removeprefix("# "), *lines[number + 1 :]]
        path.write_text("\n".join(changed), encoding="utf-8")
        load_settings()


def test_a_setting_outside_of_its_section_is_told_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmlora.toml").write_text("rank = 4\nwindow_days = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"rank belongs under \[training\]") as caught:
        load_settings()
    assert "window_days belongs under [checks] or [training]" in str(caught.value)
