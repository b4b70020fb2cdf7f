"""Settings keep the type that was meant, wherever they come from."""

import pytest

from mmlora.candidates.policy import Policy
from mmlora.errors import UsageError
from mmlora.pipeline.init import init_workspace
from mmlora.redaction import redact
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


def test_candidates_are_a_policy_by_default_and_in_a_domain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Policy(**load_settings().candidates.of("us")) == Policy()
    (tmp_path / "mmlora.toml").write_text(
        '[candidates]\nstock = "stock.parquet"\nexclude_days = 7\navailable = ["launched", ""]\n'
        '[candidates.domains.us]\nexclude = "seen"\nstock = ""\n'
        '[candidates.domains.fr]\npairs = "fr.parquet"\n'
    )
    candidates = load_settings().candidates
    others = Policy(stock="stock.parquet", exclude_days=7, available=("launched", ""))
    assert Policy(**candidates.of("de")) == others
    assert Policy(**candidates.of("us")) == Policy(exclude="seen", exclude_days=7, available=("launched", ""))
    assert Policy(**candidates.of("fr")).deciding() == {"pairs": "fr.parquet"}


def test_a_domain_may_have_candidates_where_the_others_have_a_pair_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmlora.toml").write_text(
        '[candidates]\npairs = "pairs.parquet"\n[candidates.domains.us]\nitems = "domain"\n'
    )
    candidates = load_settings().candidates
    assert Policy(**candidates.of("us")) == Policy(items="domain")
    assert Policy(**candidates.of("de")).pairs == "pairs.parquet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[candidates]\nexclude = "all"', r"candidates\.exclude: .*'none', 'clicked' or 'seen'"),
        ('[candidates.domains.us]\nexclud = "seen"', r"candidates\.domains\.us\.exclud: "),
        ('[candidates]\npairs = "p"\nstock = "s"', r"^settings: candidates: pairs alone .* leave stock out"),
        ("[scoring]\nactive_days = 3", r"scoring\.active_days is now called candidates\.active_days"),
    ],
)
def test_what_is_wrong_with_candidates_is_said(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmlora.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_settings()


def test_a_setting_may_be_a_file_of_the_secrets_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mmlora_warehouse_url").write_text("postgresql://me:pass-word@host/scores\n")
    (tmp_path / "run/MMLORA_ALERTS__WEBHOOK").write_text("https://chat.example/hook")
    (tmp_path / "run/postgres_password").write_text("somebody else's")
    (tmp_path / "mmlora.toml").write_text(
        'warehouse_url = "sqlite:///file.db"\n[alerts]\ndeadline_minutes = 5\n'
    )
    monkeypatch.setenv("MMLORA_SECRETS_DIR", str(tmp_path / "run"))
    found = load_settings()
    assert found.warehouse_url == "postgresql://me:pass-word@host/scores"
    assert (found.alerts.webhook, found.alerts.deadline_minutes) == ("https://chat.example/hook", 5)
    assert redact("no pass-word here") == "no *** here"
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", "duckdb:///file.duckdb")
    assert load_settings().warehouse_url == "duckdb:///file.duckdb", "a variable wins"


def test_a_missing_secrets_folder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"MMLORA_SECRETS_DIR: .*nowhere"):
        load_settings()
