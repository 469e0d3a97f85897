"""The trained networks that come with the package: whole, small, and as good as their index says."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from paths import DATA

import lambda_seq
from lambda_seq.models.hub.named import SHIPPED, pretrained

MOST = 1e6  # bytes of all of them, as everyone who installs the package downloads them
NAMES = ("spoken_digits",)


@pytest.fixture(autouse=True)
def no_others(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMBDA_SEQ_MODELS", str(tmp_path))


def test_they_are_listed_and_whole():
    assert tuple(lambda_seq.list_pretrained()) == NAMES
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < MOST
    for name, one in pretrained().items():
        assert one.verify() == SHIPPED / name
        assert {file.name for file in one.folder.iterdir()} == {*one.sha256}
        assert one.about["licence"]
        assert f"load_predictor({name!r})" in (one.folder / "README.md").read_text(encoding="utf-8")


def test_own_networks_go_before_them(tmp_path):
    model = lambda_seq.create_model("lambda_lm_tiny")
    model.save_pretrained(tmp_path / "saved")
    lambda_seq.models.hub.named.keep(tmp_path, "spoken_digits", tmp_path / "saved", {})
    assert lambda_seq.from_pretrained("spoken_digits").name == "lambda_lm_tiny"


@pytest.mark.parametrize("rate", [8000, 44100])
def test_they_answer(rate):
    """A tone of any rate: digits, with probabilities."""
    clip = np.sin(np.arange(rate // 2) * 2 * np.pi * 440 / rate).astype(np.float32)
    found = lambda_seq.load_predictor("spoken_digits")([(clip, rate)])[0]
    assert set(found.probabilities) == set("0123456789")
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert found.label == max(found.probabilities, key=found.probabilities.get)


@pytest.mark.parametrize(("name", "folder"), [("spoken_digits", "fsdd")])
def test_they_are_as_good_as_the_index_says(name, folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"optional data set not found: {DATA / folder} (its folder is LAMBDA_SEQ_DATA or ../shared/data)")
    (file,) = (DATA / folder).rglob("test-*.parquet")
    rows = pq.read_table(file).to_pylist()
    clips = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32") for row in rows]
    found = lambda_seq.load_predictor(name)(clips)
    right = np.mean([answer.label == str(row["label"]) for answer, row in zip(found, rows, strict=True)])
    assert right == pytest.approx(pretrained()[name].about["figures"]["test/accuracy"], abs=1e-6)
