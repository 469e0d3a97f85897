"""The networks that the documentation shows: what is trained, and the table that is made of the records."""

import json
from types import SimpleNamespace

import datasets
import pytest
import torch
import trained_networks
from evidence.folds import make_folds
from evidence.shown import SHOWN, UNMIXED
from paths import ROOT

from lambda_seq.models import create_model, from_pretrained
from lambda_seq.models.hub.named import pretrained
from lambda_seq.tasks.configurations import configuration

PAGE = "before\n<!-- trained networks -->\nstale\n<!-- end -->\nafter\n"


@pytest.fixture
def command(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for one in SHOWN:
        (tmp_path / "data" / one.pack).mkdir(parents=True)
    places = {"data": "data", "out": "results", "work": "work", "page": "page.md"}
    return [word for name, place in places.items() for word in (f"--{name}", str(tmp_path / place))]


@pytest.fixture
def given(monkeypatch):
    """Options of the trainings that would have run."""
    found = []

    def run(fit, **options):
        found.append(fit)
        return SimpleNamespace(returncode=0)

    def measured(folder, metric):
        seed = int(folder.name.rsplit("-", 2)[1])
        figures = {"metric": metric or "val/monitored", "validation": 0.9, "test": 0.8 + seed / 10, "baseline": 0.7}
        return figures | {"parameters": 1234, "epochs": 2, "seconds": 60.0}

    monkeypatch.setattr("evidence.trainings.subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(trained_networks, "measured", measured)
    return found


def test_seeds_are_tested_and_one_is_without_mixing(command, given, tmp_path):
    command = [*command, "--only", "spoken digits", "--seeds", "0", "2", "--", "--trainer.max_epochs=1"]
    assert trained_networks.main(command) == 0
    tested, without = given[:2], given[2:]
    assert [any(f"--seed_everything={seed}" in fit for fit in tested) for seed in (0, 2)] == [True, True]
    assert all({"--test_after_fit=true", "--baseline=true", "--trainer.max_epochs=1"} <= set(fit) for fit in tested)
    assert len(without) == 1
    assert {"--seed_everything=0", "--test_after_fit=false", *UNMIXED} <= set(without[0])
    line = "| `spoken_digits` | 1,234 | 60 | 0.9000 ± 0.1414 | 0 2 | 0.967 (log-mel statistics, logistic regression) "
    text = (tmp_path / "page.md").read_text()
    assert line + "| 0.700 | 0.9000 ± 0.0000 | 0.9000 |" in text
    assert text.startswith("before\n<!-- trained networks -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "stale" not in text

    (tmp_path / "page.md").write_text(PAGE)
    given.clear()
    assert trained_networks.main([*command[: command.index("--only")], "--table"]) == 0
    assert (tmp_path / "page.md").read_text() == text
    assert trained_networks.main(command) == 0
    assert not given  # all is there


def test_without_mixing_no_option_of_a_network_or_of_the_command_brings_it_back(command, given):
    mixed = [one for one in SHOWN if one.unmixed is not None and one.folds is None]
    assert any(option.startswith("--model.options.scope=") for one in mixed for option in one.options)
    names = [one.name for one in mixed]
    assert trained_networks.main([*command, "--only", *names, "--seeds", "0", "--", "--model.options.scope=15"]) == 0
    without = [dict(word.split("=", 1) for word in fit if "=" in word) for fit in given[1::2]]
    assert len(without) == len(mixed)
    for options in without:
        assert {f"{name}={options[name]}" for name in (one.partition("=")[0] for one in UNMIXED)} == set(UNMIXED)


def test_those_trained_anew_leave_the_others_alone(command, given, tmp_path):
    def keys():
        whole = json.loads((tmp_path / "results" / trained_networks.FILE).read_text())
        return [record["key"]["network"] for record in whole["records"]]

    assert trained_networks.main([*command, "--only", "reviews", "spoken digits", "--seeds", "0"]) == 0
    given.clear()
    assert trained_networks.main([*command, "--only", "spoken digits", "--seeds", "0", "--fresh"]) == 0
    assert len(given) == 2
    assert keys() == ["reviews", "spoken digits", "spoken digits, without mixing"]
    (tmp_path / "results" / trained_networks.FILE).write_text("{")
    assert trained_networks.main([*command, "--only", "spoken digits", "--fresh"]) == 2  # what cannot be read stays
    assert (tmp_path / "results" / trained_networks.FILE).read_text() == "{"


def test_a_figure_that_is_not_the_monitored_one(command, given, tmp_path):
    assert trained_networks.main([*command, "--only", "reviews", "proposals", "--seeds", "0"]) == 0
    records = json.loads((tmp_path / "results" / trained_networks.FILE).read_text())["records"]
    assert [record["metric"] for record in records] == ["val/monitored", "val/accuracy"]


def test_networks_are_kept_by_name(command, given, tmp_path, monkeypatch, capsys):
    """That of the first seed, trained again where there is a record but no network; none that is large."""
    digits = [*command, "--only", "spoken digits", "--seeds", "1", "0"]
    assert trained_networks.main(digits) == 0
    given.clear()
    seen, models = trained_networks.measured, tmp_path / "models"

    def measured(folder, metric):
        create_model("lambda_encoder", stem="waveform", dim=8, depth=1, num_classes=2).save_pretrained(folder / "model")
        return seen(folder, metric)

    monkeypatch.setattr(trained_networks, "measured", measured)
    assert trained_networks.main([*digits, "--models", str(models)]) == 0
    assert len(given) == 1
    assert {"--seed_everything=1", "--export=true"} <= set(given[0])
    monkeypatch.setenv("LAMBDA_SEQ_MODELS", str(models))
    about = pretrained()["spoken_digits"].about
    assert about["figures"] == {"val/monitored": 0.9, "test/monitored": 0.9}
    assert (about["seed"], about["parameters"], about["configuration"]) == (1, 1234, "spoken_digits")
    assert about["bytes"] < 100_000
    assert "--models" in about["command"]
    assert from_pretrained("spoken_digits").num_classes == 2
    assert "| 0 1 |" in (tmp_path / "page.md").read_text()
    given.clear()
    assert trained_networks.main([*digits, "--models", str(models)]) == 0
    assert not given  # all is there
    monkeypatch.setattr(trained_networks, "MOST", 100)
    assert trained_networks.main([*digits, "--models", str(tmp_path / "others")]) == 0
    assert "are too many to be kept" in capsys.readouterr().err
    assert not (tmp_path / "others").exists()


def test_each_fold_is_tested_by_a_network_of_its_own(command, given, tmp_path):
    rows = {"x": list(range(10)), "fold": [3, 1, 2, 5, 4] * 2}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "esc10" / "train.parquet")
    command = [*command, "--only", "environmental sounds"]
    assert trained_networks.main(command) == 0
    wholes, without = given[:5], given[5:]
    assert len(wholes) == len(without) == 5
    assert all("--seed_everything=0" in fit for fit in given)
    for place, fit in enumerate(wholes):
        (folder,) = (word.removeprefix("--data.path=") for word in fit if word.startswith("--data.path="))
        found = {
            split: set(datasets.Dataset.from_parquet(f"{folder}/{split}.parquet")["fold"])
            for split in ("train", "validation", "test")
        }
        before = (place - 1) % 5 + 1
        assert found == {"test": {place + 1}, "validation": {before}, "train": {1, 2, 3, 4, 5} - {place + 1, before}}
    line = (
        "| 0.8000 ± 0.0000 | 0, 5 folds | 0.750 (log-mel statistics, logistic regression) | 0.700 | 0.9000 ± 0.0000 |"
    )
    assert line in (tmp_path / "page.md").read_text()


def test_folds_that_cannot_be_made(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    datasets.Dataset.from_dict({"x": [1, 2], "fold": [1, 2]}).to_parquet(data / "train.parquet")
    with pytest.raises(ValueError, match=r"column='part': .* has no such column; expected one of x, fold"):
        make_folds(data, "part", tmp_path)
    with pytest.raises(ValueError, match=r"column='fold': .* has 2 folds; expected 3, to train, validate and test"):
        make_folds(data, "fold", tmp_path)


def test_what_cannot_begin(command, tmp_path, capsys):
    (tmp_path / "data" / "fsdd").rmdir()
    assert trained_networks.main(command) == 2
    assert f"there is no {tmp_path / 'data' / 'fsdd'}; --only leaves others out" in capsys.readouterr().err
    assert trained_networks.main([*command, "--table"]) == 2
    assert "there is no trained_networks.json, whose records the table is made of" in capsys.readouterr().err


def test_the_documentation_has_the_table_of_the_records(tmp_path):
    records = ROOT / "scripts" / "results" / trained_networks.FILE
    page = tmp_path / "results.md"
    page.write_text(trained_networks.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    trained_networks.write_page(json.loads(records.read_text(encoding="utf-8"))["records"], page)
    assert page.read_text(encoding="utf-8") == trained_networks.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.name)
def test_they_can_be_made(shown):
    assert configuration(shown.config).is_file()


def test_without_mixing_positions_do_not_meet():
    chosen = dict(option.removeprefix("--model.options.").split("=") for option in UNMIXED)
    options = {"content": chosen["content"] == "true", "scope": int(chosen["scope"]), "position": chosen["position"]}
    network = create_model("lambda_encoder", stem="features", in_channels=3, dim=8, depth=2, num_classes=2, **options)
    x = torch.randn(1, 9, 3, requires_grad=True)
    network.eval().features(x)[0][:, 4].square().sum().backward()
    assert x.grad.abs().sum(-1).nonzero()[:, 1].tolist() == [4]
