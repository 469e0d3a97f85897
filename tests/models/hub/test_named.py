"""Trained networks by name."""

import json

import pytest
import torch
from saved_models import build

import lambda_seq
from lambda_seq.models.hub import named
from lambda_seq.models.hub.folder import CARD, CONFIG, WEIGHTS
from lambda_seq.models.hub.named import INDEX, keep, pretrained
from lambda_seq.tasks.transfer import read_source


@pytest.fixture(autouse=True)
def none_shipped(monkeypatch, tmp_path):
    """Without those of the package, which test_shipped.py looks at."""
    monkeypatch.setattr(named, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def saved(tmp_path):
    """A network and the folder it was saved to."""
    model = build()
    model.save_pretrained(tmp_path / "saved", labels=["a", "b", "c"])
    return model, tmp_path / "saved"


@pytest.fixture
def place(tmp_path, monkeypatch, saved):
    """A folder of networks with one in it, which the environment names."""
    keep(tmp_path / "models", "one", saved[1], {"data": "some", "figures": {"test/accuracy": 0.9}})
    monkeypatch.setenv("LAMBDA_SEQ_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def test_a_network_comes_by_its_name(saved, place):
    model = lambda_seq.from_pretrained("one")
    assert model.labels == ["a", "b", "c"]
    for name, tensor in saved[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert lambda_seq.list_pretrained() == ["one"]
    found = pretrained()["one"]
    assert found.folder == place / "one"
    assert found.about == {"data": "some", "figures": {"test/accuracy": 0.9}}
    assert {*found.sha256} == {WEIGHTS, CONFIG, CARD} == {file.name for file in found.folder.iterdir()}


def test_folders_come_in_the_order_of_the_variable(saved, place, tmp_path, monkeypatch):
    for name in ("one", "two"):
        keep(tmp_path / "others", name, saved[1], {"from": "others"})
    monkeypatch.setenv("LAMBDA_SEQ_MODELS", f"{tmp_path / 'none'}:{place}:{tmp_path / 'others'}")
    assert lambda_seq.list_pretrained() == ["one", "two"]
    assert [found.about.get("from") for found in pretrained().values()] == [None, "others"]


def test_without_the_variable_they_are_in_the_cache(saved, monkeypatch, tmp_path):
    monkeypatch.delenv("LAMBDA_SEQ_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lambda_seq.list_pretrained() == []
    keep(tmp_path / ".cache" / "lambda_seq" / "models", "one", saved[1], {})
    assert lambda_seq.list_pretrained() == ["one"]


def test_those_of_the_package_come_last(saved, place, tmp_path):
    for name in ("one", "two"):
        keep(tmp_path / "shipped", name, saved[1], {"from": "the package"})
    assert [found.about.get("from") for found in pretrained().values()] == [None, "the package"]
    assert lambda_seq.from_pretrained("two").labels == ["a", "b", "c"]


@pytest.mark.parametrize("where", ["run/model", "it's/model"])
def test_a_card_says_the_name_and_not_the_folder(saved, tmp_path, where):
    folder = tmp_path / where
    folder.parent.mkdir()
    saved[0].save_pretrained(folder, labels=["a", "word('b')", "c"])
    keep(tmp_path / "models", "one", folder, {})
    card = (tmp_path / "models" / "one" / CARD).read_text()
    assert "from_pretrained('one')" in card
    assert str(folder) not in card
    assert "word('b')" in card


def test_a_folder_goes_before_a_name(place, tmp_path):
    build("lambda_lm_tiny").save_pretrained(tmp_path / "one")
    assert lambda_seq.from_pretrained("one").name == "lambda_lm_tiny"


def test_a_network_of_the_same_name_is_replaced(place, tmp_path):
    build("lambda_lm_tiny").save_pretrained(tmp_path / "newer")
    keep(place, "one", tmp_path / "newer", {"data": "others"})
    assert lambda_seq.from_pretrained("one").name == "lambda_lm_tiny"
    assert pretrained()["one"].about == {"data": "others"}


def test_training_starts_from_a_name(place, saved):
    source = read_source("one")
    assert source.weights.keys() == saved[0].state_dict().keys()
    with pytest.raises(FileNotFoundError, match=r"init_from='ones': .* or one of lambda_seq.list_pretrained"):
        read_source("ones")


def test_an_unknown_name_is_told_from_those_there_are(place):
    expected = r"name_or_path='ones' is no folder here, none of the trained networks \(one\), and no name"
    with pytest.raises(FileNotFoundError, match=expected):
        lambda_seq.from_pretrained("ones")


def test_files_that_are_not_those_of_the_index(place):
    file = place / "one" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model.safetensors is not the one that pretrained.json beside it lists"):
        lambda_seq.from_pretrained("one")
    file.unlink()
    with pytest.raises(ValueError, match=r"model.safetensors is missing: download 'one' again"):
        lambda_seq.from_pretrained("one")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"one": 3}', '{"one": {"about": {}}}', '{"../one": {"about": {}, "sha256": {}}}']
)
def test_a_damaged_index(place, text):
    (place / INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"pretrained.json is (damaged|no index).*: download it again"):
        lambda_seq.list_pretrained()


def test_an_index_names_no_other_files(place):
    entries = json.loads((place / INDEX).read_text())
    entries["one"]["sha256"]["../../secret"] = "0" * 64
    (place / INDEX).write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="no index of trained networks"):
        lambda_seq.list_pretrained()


def test_what_is_not_kept(saved, tmp_path):
    with pytest.raises(ValueError, match=r"name='a/b': expected letters"):
        keep(tmp_path / "models", "a/b", saved[1], {})
    with pytest.raises(FileNotFoundError, match=r"there is no .*config.json"):
        keep(tmp_path / "models", "one", tmp_path / "nowhere", {})
    assert not (tmp_path / "models").exists()
