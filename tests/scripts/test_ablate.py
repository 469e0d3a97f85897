"""The ablation of options, on generated texts."""

import json
import subprocess
from types import SimpleNamespace

import ablate
import pytest


@pytest.fixture
def command(small, tmp_path):
    """Arguments of a small ablation in a folder of its own."""
    configuration, folder = small
    places = ("--out", str(tmp_path / "results"), "--work", str(tmp_path / "work"))
    return [configuration, "--path", folder, *places]


def test_variants_are_options_of_the_command_line():
    varied = ["layer_scale=null,0.1", "model.position_lr=0.1", "scope=[3,null],5", "ff=gelu,gated+ff_ratio=1.33"]
    found = ablate.variants_of(varied)
    assert found == {
        "base": [],
        "layer_scale=null": ["--model.options.layer_scale=null"],
        "layer_scale=0.1": ["--model.options.layer_scale=0.1"],
        "model.position_lr=0.1": ["--model.position_lr=0.1"],
        "scope=[3,null]": ["--model.options.scope=[3,null]"],
        "scope=5": ["--model.options.scope=5"],
        "ff=gelu": ["--model.options.ff=gelu"],
        "ff=gated+ff_ratio=1.33": ["--model.options.ff=gated", "--model.options.ff_ratio=1.33"],
    }
    grid = ablate.variants_of(["depth=1,2", "model.optimizer.lr=1e-3,1e+0"], grid=True)
    assert list(grid) == ["base"] + [
        f"depth={depth}+model.optimizer.lr={lr}" for depth in (1, 2) for lr in ("1e-3", "1e+0")
    ]
    assert grid["depth=2+model.optimizer.lr=1e+0"] == ["--model.options.depth=2", "--model.optimizer.lr=1e+0"]


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        (["ff"], "--vary ff: expected OPTION=VALUE,VALUE"),
        (["ff="], "--vary ff=: expected OPTION=VALUE,VALUE"),
        (["ff=gelu", "ff=gated"], "--vary ff=gated: ff is varied already; give all its values at once"),
    ],
)
def test_what_cannot_be_varied(command, varied, message, capsys):
    assert ablate.main([*command, *(word for one in varied for word in ("--vary", one))]) == 2
    assert message in capsys.readouterr().err


def record(validation, test=None):
    return {"metric": "val/f1", "validation": validation, "test": test, "parameters": 1234, "epochs": 2, "seconds": 5.0}


def test_a_table_of_means_and_differences(command, monkeypatch, tmp_path):
    given, scores = [], {("base", 0): 0.5, ("base", 1): 0.6, ("ff=gated", 0): 0.7, ("ff=gated", 1): 0.7}

    def run(fit, **options):
        given.append([one for one in fit if one.startswith(("--model", "--seed", "--test"))])
        return SimpleNamespace(returncode=0)

    def measure(folder, metric):
        assert metric is None
        name, seed, _ = folder.name.rsplit("-", 2)
        return record(scores[name, int(seed)], 0.4 if given[-1][1] == "--test_after_fit=true" else None)

    monkeypatch.setattr("evidence.trainings.subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(ablate, "scored", measure)
    command = [*command, "--vary", "ff=gated", "--seeds", "0", "1"]
    assert ablate.main(command) == 0
    untested = "--test_after_fit=false"
    gated = "--model.options.ff=gated"
    assert sorted(given) == sorted(
        [seed, *chosen, untested] for seed in ("--seed_everything=0", "--seed_everything=1") for chosen in ([], [gated])
    )
    table = (tmp_path / "results" / "ablation_small.md").read_text()
    assert "| variant | val/f1 | difference | parameters | epochs | s | seeds |" in table
    assert "| base | 0.5500 ± 0.0707 |  | 1,234 | 2 | 5 | 2 |" in table
    assert "| ff=gated | 0.7000 ± 0.0000 | +0.1500 ± 0.0707 | 1,234 | 2 | 5 | 2 |" in table
    given.clear()
    assert ablate.main(command) == 0
    assert not given  # all is there


def test_a_failed_training_is_named(command, capfd, tmp_path):
    assert ablate.main([*command, "--vary", "ff=relu", "--", "--trainer.max_epochs=none_such"]) == 1
    said = (tmp_path / "results" / "ablation_small.md").read_text()
    assert "ff=relu, seed 0: failed" in said
    assert "base, seed 0: failed" in said


@pytest.mark.slow
def test_trains_goes_on_and_tests_at_the_end(command, tmp_path, monkeypatch, capfd):
    command = [*command, "--vary", "layer_scale=0.1", "--vary", "scope=[3,5]+share_blocks=false"]
    assert ablate.main(command) == 0
    file = tmp_path / "results" / "ablation_small.json"
    records = json.loads(file.read_text())["records"]
    assert [one["key"]["variant"] for one in records] == ["base", "layer_scale=0.1", "scope=[3,5]+share_blocks=false"]
    assert all(one["epochs"] == 2 and one["seconds"] > 0 and one["metric"] == "val/accuracy" for one in records)
    assert all(one["test"] is None and 0 <= one["validation"] <= 1 for one in records)
    assert records[1]["parameters"] == records[0]["parameters"] + 2 * 2 * 8

    assert ablate.main([*command, "--test"]) == 0  # trains no step more
    tested = json.loads(file.read_text())["records"]
    assert all(0 <= one.pop("test") <= 1 for one in tested)
    for one, before in zip(tested, records, strict=True):
        assert {**one, "seconds": 0, "test": None} == {**before, "seconds": 0}
    assert "nothing is left to train" in capfd.readouterr().err
    monkeypatch.setattr(subprocess, "run", lambda *given, **options: pytest.fail("trained again"))
    assert ablate.main([*command, "--test"]) == 0
    with pytest.raises(pytest.fail.Exception):  # another recipe is another training
        ablate.main([*command, "--", "--trainer.max_epochs=1"])
