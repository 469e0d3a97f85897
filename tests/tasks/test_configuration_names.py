"""Configurations by name: which file is meant, from any folder."""

from pathlib import Path

import pytest
from paths import ROOT

from lambda_seq.tasks.configurations import FOLDER, configurations, located


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("digits", "digits.yaml", "./digits.yaml", "tasks/configs/digits.yaml"),
        *("lambda_seq/tasks/configs/digits.yaml", str(ROOT / "tasks" / "configs" / "digits.yaml")),
    ],
)
def test_names_of_the_librarys(name):
    wanted = str(FOLDER / "digits.yaml")
    assert located(["fit", "--config", name, "--data.path=digits"]) == ["fit", "--config", wanted, "--data.path=digits"]
    assert located(["fit", f"--config={name}"]) == ["fit", f"--config={wanted}"]
    assert located(["fit", "-c", name])[-1] == wanted


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "digits.yml"])
def test_a_file_here_takes_precedence(name):
    Path(name).write_text("seed_everything: 1")
    asked = "digits.yaml" if name == "digits.yaml" else "digits"
    assert located(["--config", asked]) == ["--config", name]


def test_a_folder_here_does_not():
    Path("digits").mkdir()
    assert located(["--config", "digits"]) == ["--config", str(FOLDER / "digits.yaml")]


def test_parts_of_a_configuration_are_found_too():
    assert located(["--trainer", "tasks/configs/digits.yaml"])[1] == str(FOLDER / "digits.yaml")
    assert located(["--trainer=digits.yaml"]) == [f"--trainer={FOLDER / 'digits.yaml'}"]


@pytest.mark.parametrize(
    "words",
    [
        ["--data.path", "digits"],
        ["--config", "null"],
        ["--config", "{seed_everything: 1}"],
        ["--config", "seed_everything: 1\ntrainer:\n"],
        ["--trainer", "unknown.yaml"],
        ["--config"],
        [],
    ],
)
def test_all_else_stays(words):
    assert located(words) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text_clasification", "the nearest are text_classification"),
        ("imagenet.yaml", "the nearest are imagenet_90, imagenet_350"),
        ("tasks/configs/digit.yaml", "the nearest are digits"),
        ("nowhere/digits.yaml", "the nearest are digits"),
        ("q", "those are associative_recall, "),
    ],
)
def test_an_unknown_name(name, words):
    with pytest.raises(ValueError, match="there is no such file, and no configuration of the library") as error:
        located(["fit", "--config", name])
    assert f"--config={name}" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_each_is_introduced():
    found = configurations()
    assert sorted(found) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert all(10 < len(purpose) < 100 for purpose in found.values() if not purpose.startswith("CIFAR")), found
    assert found["text_classification"] == "Classify texts by their words and pairs of words"
