"""Experiment files: their distinct cells, and the messages for invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmlora.errors import UsageError
from mmlora.experiments.plan import Experiment, read_experiment
from mmlora.settings import TrainingSettings
from mmlora.training import TRAINING_REVISION

MADE = '[data.made]\nsource = "synthetic"\nrows = 1000\n'
GRID = '[grid]\nbackbone = "wdl"\narm = "mlora"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def _read(file: Path, text: str) -> Experiment:
    file.write_text(text)
    return read_experiment(file)


def _fault(file: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        _read(file, text)
    return str(caught.value)


def test_ignored_axes_of_an_arm_make_no_cells(file: Path) -> None:
    experiment = _read(
        file,
        MADE
        + '[grid]\nbackbone = "wdl"\narm = ["pooled_domain", "mlora", "uniform_gate", "moe_mlora"]\n'
        + 'experts_per_domain = [1, 2]\ngate = ["domain", "sample"]\nseed = [0, 1]\n'
        + "[grid.settings]\nrank = [2, 4]\ngate_learning_rate = [0.01, 0.1]\ndropout = [0.0, 0.5]\n",
    )
    of_arm = {
        arm: [cell for cell in experiment.cells if cell.arm == arm]
        for arm in {c.arm for c in experiment.cells}
    }
    each = 2 * 2  # seeds and dropouts
    assert len(of_arm["pooled_domain"]) == each
    assert len(of_arm["mlora"]) == each * 2  # ranks
    assert len(of_arm["uniform_gate"]) == each * 2 * 2  # and experts
    assert len(of_arm["moe_mlora"]) == each * 2 * 2 * 2 * 2  # and gates and the gate's learning rates
    assert len({experiment.key(cell) for cell in experiment.cells}) == len(experiment.cells)
    assert {cell.experts_per_domain for cell in of_arm["mlora"]} == {1}


def test_several_grids_are_combined(file: Path) -> None:
    other = '[[grid]]\nbackbone = "dcn"\narm = ["pooled", "mlora"]\n[grid.settings]\nrank = [2, 4]\n'
    for name in ("grid", "grids"):
        two = (GRID.replace("[grid]", "[[grid]]") + other).replace("grid", name)
        cells = _read(file, MADE + two).cells
        combinations = [(cell.backbone, cell.arm, cell.settings.get("rank")) for cell in cells]
        expected = [("wdl", "mlora", None), ("dcn", "pooled", None), ("dcn", "mlora", 2), ("dcn", "mlora", 4)]
        assert combinations == expected
    message = _fault(
        file, MADE + "[[grid]]\n" + GRID.removeprefix("[grid]\n") + '[[grid]]\nbackbone = "wdl"\n'
    )
    assert "[[grid]] 2 arm is missing" in message


def test_a_dial_with_several_values_is_an_axis_of_data_sets(file: Path) -> None:
    grid = '[grid]\nbackbone = "wdl"\narm = "pooled"\n'
    experiment = _read(file, MADE + "diversity = [0.0, 0.5]\nseed = [0, 1]\n" + grid)
    assert [dict(cell.settings) for cell in experiment.cells] == [
        {"data_seed": seed, "diversity": diversity} for diversity in (0.0, 0.5) for seed in (0, 1)
    ]
    folders = {experiment.sources["made"].folder_name(cell.settings) for cell in experiment.cells}
    assert len(folders) == 4
    assert experiment.definition(experiment.cells[3]) == {
        "source": "synthetic",
        "rows": 1000,
        "diversity": 0.5,
        "seed": 1,
    }


def test_settings_of_all_cells_are_in_their_keys(file: Path) -> None:
    grid = '[grid]\nbackbone = "wdl"\narm = "pooled"\n'
    keys = [
        experiment.key(experiment.cells[0])
        for settings in ("", "[settings]\ndropout = 0.1\n", "[settings]\ndropout = 0.1\n")
        for experiment in [_read(file, MADE + grid + settings)]
    ]
    assert keys[0] != keys[1] == keys[2]


def test_cells_are_trained_from_scratch(file: Path) -> None:
    grid = '[grid]\nbackbone = "wdl"\narm = "pooled"\n'
    assert "start warm: cells are trained from scratch" in _fault(
        file, MADE + grid + '[settings]\nstart = "warm"\n'
    )


def test_a_joint_arm_has_one_learning_rate(file: Path) -> None:
    rates = "expert_learning_rate = [0.1, 0.2]\ngate_learning_rate = [0.1, 0.2]\nlearning_rate = [0.1, 0.2]\n"
    experiment = _read(file, MADE + '[grid]\nbackbone = "wdl"\narm = "joint"\n[grid.settings]\n' + rates)
    assert [dict(cell.settings) for cell in experiment.cells] == [
        {"learning_rate": rate} for rate in (0.1, 0.2)
    ]


def _key(file: Path, text: str) -> str:
    experiment = _read(file, text)
    return experiment.key(experiment.cells[0])


def test_keys_follow_from_the_training_code_and_from_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MADE + '[grid]\nbackbone = "wdl"\narm = "pooled"\n'
    before = _key(file, text)
    defaults = TrainingSettings()
    assert _key(file, text + f"[settings]\ndropout = {defaults.dropout}\n") == before
    monkeypatch.setattr("mmlora.experiments.plan.TRAINING_REVISION", TRAINING_REVISION + 1)
    assert _key(file, text) != before


def test_keys_follow_from_the_activity_features_where_they_are_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for weight in ("20", "30"):
        monkeypatch.setenv("MMLORA_FEATURES__PRIOR_WEIGHT", weight)
        grid = '[grid]\nbackbone = "wdl"\narm = "pooled"\nsplit = "time"\nfeatures = '
        keys.append([_key(file, f'{MADE}{grid}"{features}"\n') for features in ("all", "ids")])
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]


def test_changed_files_are_another_data_set(file: Path, tmp_path: Path) -> None:
    (log := tmp_path / "logs" / "theme_click_log.csv").parent.mkdir()
    text = f'[data.t]\nsource = "taobao"\npath = "{log.parent}"\n[grid]\nbackbone = "wdl"\narm = "pooled"\n'
    keys, folders = [], []
    for content in ("a", "a", "ab"):
        if not log.exists() or log.read_text() != content:
            log.write_text(content)
        keys.append(_key(file, text))
        folders.append(_read(file, text).sources["t"].folder_name({}))
    assert keys[0] == keys[1] != keys[2] and folders[0] == folders[1] != folders[2]


def test_every_fault_of_a_file_is_reported_with_what_is_valid(file: Path) -> None:
    message = _fault(
        file,
        'tittle = "x"\n[data.a]\nsource = "movielens"\ndomain_by = "zip"\nthemes = 3\n'
        '[data.b]\nsource = "netflix"\n[data.c]\nsource = "synthetic"\ndiversity = [0.5, 7]\n'
        '[data.d]\nsource = "workspace"\n[data.e]\nsource = "movielens"\ndomain_by = "zip"\n'
        '[grid]\nbackbone = ["wdl", "bert"]\narm = ["moe"]\nexperts_per_domain = [0]\nseed = ["a"]\n'
        'gates = ["domain"]\nsplit = ["file"]\n[grid.settings]\nranks = [1]\n[settings]\nseed = 3\n',
    )
    for part in (
        "'tittle' is unknown: valid are title, description",
        "[data.a] themes: source movielens takes domain_by, positive_rating, path",
        "[data.b] source 'netflix': use one of movielens, synthetic, taobao, workspace",
        "diversity 7: valid are 0 to 1",
        "[data.d] as_of is missing: give a date",
        "[data.e] domain_by 'zip': use one of gender, age",
        "backbone 'bert' is unknown: use some of wdl, nfm",
        "arm 'moe' is unknown: use some of pooled, pooled_domain",
        "experts_per_domain 0: give whole numbers from 1",
        "seed 'a': give whole numbers from 0",
        "'gates' is unknown: valid are data, features, backbone",
        "split 'file' is unknown: use some of random, user, time",
        "'ranks' is unknown: valid are split_fractions",
        "[settings] 'seed' is unknown",
    ):
        assert part in message, message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no data"),
        (MADE, "there is no [grid]"),
        (
            MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\n[settings]\nprecision = "float16"\n',
            "settings: precision: Input should be 'float32' or 'bfloat16' (got 'float16')",
        ),
        (MADE + '[grid]\nbackbone = "wdl"\n', "arm is missing"),
        (MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\n[settings]\ndropout = 2\n', "dropout"),
        (
            MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\n[settings]\nhidden_units = [4]\nrank = 8\n',
            "rank 8 is above",
        ),
        (MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\nfeatures = "all"\n', "split random"),
        ("[data", "is not TOML"),
        (
            MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\n[settings]\nrank = 2.5\n',
            "settings: rank: Input should be a valid integer, got a number with a fractional part; or: ",
        ),
        (MADE + '[grid]\nbackbone = "wdl"\narm = "mlora"\n[grid.settings]\nrank = []\n', "rank is empty"),
        (MADE + "diversity = []\n" + GRID, "[data.made] diversity is empty: give one value or more"),
        (MADE + "users = [10, 'many']\n" + GRID, "[data.made] users 'many': give a whole number from 1"),
        (MADE + 'sparsity = "low"\n' + GRID, "[data.made] sparsity 'low': give a number from 0 to 1"),
        ('[data.t]\nsource = ["taobao"]\n' + GRID, "[data.t] source ['taobao']: use one of movielens"),
        ('[data]\nt = "taobao"\n' + GRID, "[data.t] source is missing: use one of movielens"),
        ('[data.t]\nsource = "taobao"\npath = 3\n' + GRID, "[data.t] path 3: give a text in quotes"),
        (
            '[data.t]\nsource = "taobao"\npath = "log"\nthemes = "ten"\n' + GRID,
            "[data.t] themes 'ten': give a whole number from 1",
        ),
        (
            '[data.w]\nsource = "workspace"\nas_of = 2001-01-01T00:00:00\n' + GRID,
            "[data.w] as_of '2001-01-01 00:00:00': give a date without quotes",
        ),
    ],
)
def test_invalid_files_are_refused(file: Path, text: str, message: str) -> None:
    assert message in _fault(file, text)


@pytest.mark.parametrize("arm", ["placebo_mlora", "placebo_moe_mlora"])
def test_a_placebo_with_cross_terms_is_refused(file: Path, arm: str) -> None:
    placebo = MADE + GRID.replace('"mlora"', f'["mlora", "{arm}"]')
    message = _fault(file, placebo).splitlines()[1:]  # cross terms are the default
    assert len(message) == 1 and message[0].startswith(
        f"  arm {arm} with crosses true: cross terms read the domain"
    )
    assert _fault(file, placebo + "[grid.settings]\ncrosses = [false, true]\n").splitlines()[1:] == message
    assert len(_read(file, placebo + "[settings]\ncrosses = false\n").cells) == 2


def test_missing_data_is_reported_once(file: Path) -> None:
    assert _fault(file, GRID).splitlines()[1:] == [
        '  there is no data: give a table such as [data.gender] with source = "movielens"'
    ]


def test_a_missing_file_is_an_error(file: Path) -> None:
    with pytest.raises(UsageError, match=r"some\.toml.*give the experiment's TOML file"):
        read_experiment(file)


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_the_experiments_of_the_repository_can_be_read(path: Path) -> None:
    experiment = read_experiment(path)
    assert (
        (experiment.cells or experiment.tuning) and experiment.title != path.stem and experiment.description
    )


TUNE = MADE + '[tune]\nbackbone = "wdl"\narm = "moe_mlora"\n'


def test_the_default_search_space_follows_from_the_arm(file: Path) -> None:
    spaces = {
        arm: tuning.space
        for arm in ("pooled_domain", "mlora", "moe_mlora", "joint")
        if (tuning := _read(file, TUNE.replace("moe_mlora", arm)).tuning)
    }
    of_backbone = {"dropout", "learning_rate", "weight_decay"}
    of_expert = {"rank", "alpha", "expert_learning_rate"}
    assert spaces["pooled_domain"].keys() == of_backbone
    assert spaces["mlora"].keys() == of_backbone | of_expert
    assert spaces["moe_mlora"].keys() == spaces["mlora"].keys() | {"experts_per_domain", "gate_learning_rate"}
    assert spaces["joint"].keys() == of_backbone | {"rank", "alpha", "experts_per_domain"}
    narrow = _read(file, TUNE + "[settings]\nhidden_units = [16, 5]\nrank = 1\n").tuning
    assert narrow and narrow.space["rank"].probes == (2, 4)


def test_a_trial_is_the_untuned_cell_with_other_settings(file: Path) -> None:
    experiment = _read(file, TUNE + "experts_per_domain = 2\n[settings]\nrank = 4\n")
    tuning = experiment.tuning
    assert tuning and (tuning.untuned.experts_per_domain, dict(tuning.untuned.settings)) == (2, {})
    trial = tuning.cell({"rank": 16, "experts_per_domain": 3})
    assert (trial.experts_per_domain, dict(trial.settings)) == (3, {"rank": 16})
    assert [experiment.training_settings(cell).rank for cell in (tuning.untuned, trial)] == [4, 16]


def test_every_fault_of_a_tune_table_is_reported(file: Path) -> None:
    message = _fault(
        file,
        MADE + '[data.more]\nsource = "synthetic"\n'
        '[tune]\ntrials = 0\nminutes = -1\nbackbone = "bert"\narm = "moe"\nrank = 3\n'
        "[tune.space]\nrank = 4\nexpert_learning_rate = {low = 1, high = inf}\n"
        "alpha = {low = 3, high = 2}\ndropout = []\n"
        "learning_rate = {low = 0, high = 1, log = true, step = 2}\nexperts_per_domain = [0]\n",
    )
    for part in (
        "[tune] 'rank' is unknown: valid are trials, minutes, data",
        "[tune] data is missing: give some of made, more",
        "[tune] trials 0: give a whole number from 1",
        "[tune] minutes -1: give a number above 0",
        "[tune] backbone 'bert' is unknown",
        "[tune] arm 'moe' is unknown",
        "[tune.space] rank is 4: give a list of numbers, or {low = ..., high = ...}",
        "[tune.space] alpha low 3, high 2: give two numbers, the lower one first",
        "[tune.space] expert_learning_rate low 1, high inf: give two numbers, the lower one first",
        "[tune.space] dropout is []",
        "[tune.space] learning_rate: 'step' is unknown: valid are low, high, log",
        "[tune.space] learning_rate log True: valid are true, with low above 0",
        "[tune.space] experts_per_domain 0: give whole numbers from 1",
    ):
        assert part in message, message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TUNE + "[tune.space]\nspeed = [1]\n", "arm moe_mlora: 'speed' is unknown: valid are dropout"),
        (
            TUNE.replace("moe_mlora", "pooled_domain") + "[tune.space]\nrank = [1]\n",
            "arm pooled_domain: 'rank' is unknown: valid are dropout, learning_rate, weight_decay",
        ),
        (TUNE.replace("moe_mlora", "placebo_mlora"), "a placebo cannot be tuned"),
        (TUNE.replace("rows = 1000", "rows = [1000, 2000]"), "data made: rows has several values"),
        (TUNE + "[tune.space]\nrank = [8, 600]\n", "rank 600 is above the smallest hidden width"),
        (TUNE + "[tune.space]\ndropout = {low = 0.5, high = 1.5}\n", "settings: dropout"),
    ],
)
def test_invalid_tune_tables_are_refused(file: Path, text: str, message: str) -> None:
    assert message in _fault(file, text)
