"""The file of predictions."""

import csv
import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from lambda_seq.tasks.callbacks.predictions import PredictionFile
from lambda_seq.tasks.language_modelling import DocumentTable
from lambda_seq.tasks.predictions.tables import AnswerTable

MODEL = SimpleNamespace(labels=["cät", "dog, small"])
TRAINER = SimpleNamespace(strategy=None, distributed_sampler_kwargs=None)
BATCHES = (
    {"id": ["a b.png", "1"], "probabilities": torch.tensor([[0.25, 0.75], [1.0, 0.0]])},
    {"id": ["2"], "probabilities": torch.tensor([[0.5, 0.5]])},
)
COLUMNS = ["id", "prediction", "probability: cät", "probability: dog, small"]
ROWS = [["a b.png", "dog, small", 0.25, 0.75], ["1", "cät", 1.0, 0.0], ["2", "cät", 0.5, 0.5]]


def write(path, trainer=TRAINER, model=MODEL, batches=BATCHES):
    writer = PredictionFile(str(path))
    writer.on_predict_start(trainer, model)
    for index, batch in enumerate(batches):
        writer.write_on_batch_end(trainer, model, batch, None, None, index, 0)
    return writer


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_each_kind_of_file(tmp_path, suffix, capsys):
    path = tmp_path / "new folder" / f"predictions.{suffix}"
    writer = write(path)
    assert not path.exists()  # until it is whole
    writer.on_predict_end(TRAINER, MODEL)
    assert capsys.readouterr() == (f"3 predictions: {path}\n", "")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if suffix == "parquet":
        found = [list(row.values()) for row in pq.read_table(path).to_pylist()]
        assert pq.read_table(path).column_names == COLUMNS
    elif suffix == "jsonl":
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert list(records[0]) == COLUMNS
        found = [list(record.values()) for record in records]
    else:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        assert header == COLUMNS
        found = [[name, label, *map(float, chances)] for name, label, *chances in lines]
    assert found == ROWS


NAN = float("nan")
NO_NUMBERS = {
    "classes": (None, "probabilities", [[0.25, 0.75], [NAN, 0.5], [0.5, 0.5]], ["dog, small", "", "cät"]),
    "answers": (AnswerTable, "answers", [[1.0, 2.0], [float("inf"), 0.0], [0.0, 0.0]], None),
    "documents": (DocumentTable, "nats", [1.0, NAN, 2.0], ["1", "1", "1"]),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_answers_that_are_no_numbers_are_said(tmp_path, kind, capsys):
    """And name no class: where probabilities are NaN, none is likeliest."""
    table, name, values, second = NO_NUMBERS[kind]
    model = MODEL if table is None else SimpleNamespace(prediction_table=table)
    batch = {"id": ["a", "b", "c"], name: torch.tensor(values), "tokens": torch.ones(3).long(), "bytes": torch.ones(3)}
    writer = write(tmp_path / "found.csv", model=model, batches=[batch])
    writer.on_predict_end(TRAINER, model)
    assert "warning: 1 predictions hold numbers that are not finite, the first is that of b;" in capsys.readouterr().err
    rows = list(csv.reader((tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()))[1:]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert second is None or [row[1] for row in rows] == second


def test_an_interrupted_prediction_leaves_the_former_file(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("former")
    write(path).on_exception(TRAINER, MODEL, KeyboardInterrupt())
    assert path.read_text() == "former"


def test_two_predictions_at_once_are_not_mixed(tmp_path):
    path = tmp_path / "predictions.csv"
    first = write(path)
    with pytest.raises(ValueError, match=r"predictions.path: another prediction is writing .*predictions.csv; wait"):
        write(path)
    first.on_predict_end(TRAINER, MODEL)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4
    write(path).on_exception(TRAINER, MODEL, KeyboardInterrupt())
    write(path).on_predict_end(TRAINER, MODEL)  # one that has ended is in no one's way
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


def test_each_process_has_its_own_file(tmp_path):
    share = {"num_replicas": 2, "rank": 1}
    trainer = SimpleNamespace(strategy=None, distributed_sampler_kwargs=share)
    write(tmp_path / "predictions.csv", trainer).on_predict_end(trainer, MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions-1.csv"]


def test_who_shares_the_rows_with_another_writes_nothing(tmp_path):
    trainer = SimpleNamespace(strategy=SimpleNamespace(leads=False), distributed_sampler_kwargs=None)
    write(tmp_path / "predictions.csv", trainer).on_predict_end(trainer, MODEL)
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_of_file():
    with pytest.raises(ValueError, match=r"predictions.path='x.txt': unknown kind of file; expected .csv, .jsonl"):
        PredictionFile("x.txt")
