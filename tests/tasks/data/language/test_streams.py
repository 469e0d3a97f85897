"""Rows from documents that are read as they come: shares, order, and going on exactly where reading stopped."""

import gc

import datasets
import pytest
import torch
from small_data import write_jsonl
from torch.utils.data import DataLoader

from lambda_seq.tasks.data import CorpusData
from lambda_seq.tasks.data.language.packs import IGNORED
from lambda_seq.tasks.data.language.streams import StreamedRows, StreamedWindows, StreamLoader, stream_features
from lambda_seq.tasks.data.reading.sources import load_rows
from lambda_seq.tasks.data.reading.tokens import Tokens

SHARDS, EACH = 4, 6


@pytest.fixture
def folder(tmp_path):
    """Parquet files: four of training, with six documents each that say where they are from; one of validation."""
    for shard in range(SHARDS):
        texts = [f"<{shard}.{number}>" * (1 + number) for number in range(EACH)]
        datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "data" / f"train-{shard}.parquet")
    texts = ["", *(f"document {number}, " * number for number in range(7)), "x"]
    datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "data" / "validation.parquet")
    return tmp_path / "data"


def rows_of(folder, **options):
    source = load_rows(str(folder), streaming=True)["train"]
    options = {"length": 8, "block": 4, "seed": 0} | options
    return StreamedRows(source, "text", Tokens(), **options)


def take(rows, count):
    return [row for row, _ in zip(rows, range(count), strict=False)]


def text(row):
    return Tokens().decode(row["target"].tolist())


def first_pass(rows):
    found = []
    for row in rows:
        if row["state"]["epoch"]:
            return found
        found.append(row)
    return found


def test_rows_come_from_all_documents_and_again_in_another_order(folder):
    rows = rows_of(folder, block=6)
    found = first_pass(rows)
    letters = sum(len(text(row)) for row in found)
    whole = SHARDS * sum(5 * (1 + number) for number in range(EACH))
    assert whole - SHARDS * 8 < letters + SHARDS * EACH <= whole + SHARDS * EACH  # a block loses less than a row
    assert all(len(row["x"]) == 8 for row in found)
    again = [row for row in take(rows, 2 * len(found)) if row["state"]["epoch"] == 1]
    assert len(again) == len(found)
    assert [text(row) for row in again] != [text(row) for row in found]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_processes_have_shares_of_their_own(folder, replicas):
    seen = [
        {
            row["id"][0] and name
            for row in first_pass(rows_of(folder, replicas=replicas, rank=rank))
            for name in shards(row)
        }
        for rank in range(replicas)
    ]
    if SHARDS % replicas == 0:
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert set().union(*seen) == {str(shard) for shard in range(SHARDS)}


def shards(row):
    """Shards of which a row has documents."""
    parts = text(row).split("<")[1:]
    return {part[0] for part in parts if part}


@pytest.mark.parametrize(
    ("workers", "stop"),
    [
        *[(0, stop) for stop in (1, 4, 9, 18, 23)],
        *[(2, stop) for stop in (4, 23)],
        *[pytest.param(2, stop, marks=pytest.mark.slow) for stop in (1, 9, 18)],
        pytest.param(1, 23, marks=pytest.mark.slow),
    ],
)
def test_a_loader_goes_on_where_training_stopped(folder, workers, stop):
    trained = 0

    def loader():
        options = {"batch_size": 3, "num_workers": workers, "collate_fn": collate}
        return StreamLoader(rows_of(folder), trained=lambda: trained, **options)

    def texts(batches, count):
        return [batch for batch, _ in zip(batches, range(count), strict=False)]

    first, whole = loader(), []
    ahead = iter(first)
    for _ in range(30):
        whole.append(next(ahead))
        trained = max(len(whole) - 1, 0)  # a batch is asked for before the one before it is trained
        if trained == stop:
            state = first.reached()
    del ahead
    second = loader()
    second.go_on(state)
    trained = stop
    assert texts(iter(second), 30 - stop) == whole[stop:]


def collate(rows):
    return {"texts": [text(row) for row in rows]}


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_loader_goes_on_in_the_next_epoch(folder, ahead):
    """Batches that were asked for but not trained come again."""
    loader = StreamLoader(rows_of(folder), trained=lambda: 0, batch_size=2, collate_fn=collate)
    whole = [batch for batch, _ in zip(iter(loader), range(6), strict=False)]
    trained = 0
    loader = StreamLoader(rows_of(folder), trained=lambda: trained, batch_size=2, collate_fn=collate)
    parts = []
    for _ in range(3):
        batches = iter(loader)
        for _ in range(2):
            parts.append(next(batches))
            trained += 1
        for _ in range(ahead):
            next(batches)
    assert parts == whole


def test_a_stream_goes_on_with_as_many_workers_as_before(folder):
    loader = StreamLoader(rows_of(folder), trained=lambda: 0, batch_size=2, collate_fn=collate)
    state = {"workers": 3, "processes": [{"states": {}, "skip": 0}]}
    with pytest.raises(ValueError, match=r"3 in each of 1 processes, not 1 in each of 1; give --data.num_workers 3"):
        loader.go_on(state)
    with pytest.raises(ValueError, match=r"num_workers=5: the training data come in 4 parts"):
        StreamLoader(rows_of(folder), trained=lambda: 0, batch_size=2, collate_fn=collate, num_workers=5)


def loader_of(folder, done, *, batch_size=2, workers=0, **options):
    rows = rows_of(folder, **options)
    given = {"batch_size": batch_size, "num_workers": workers, "collate_fn": lambda batch: {"rows": batch}}
    return StreamLoader(rows, trained=lambda: done[0], **given)


def test_a_stream_goes_on_with_other_batches(folder):
    """Its place is that of a row."""
    done = [0]
    whole = [text(row) for row in take(rows_of(folder), 12)]
    first = loader_of(folder, done)
    seen = [text(row) for batch in take(first, 3) for row in batch["rows"]]
    done[0] = 3
    second = loader_of(folder, done, batch_size=3)
    second.go_on(first.reached())
    seen += [text(row) for batch in take(second, 2) for row in batch["rows"]]
    assert seen == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block": 5}, "the shuffle_buffer by which .* give --data.shuffle_buffer 4"),
        ({"length": 9}, "the length by which .* give --data.length 8"),
        ({"length": 9, "block": 5}, "shuffle_buffer and length .* --data.shuffle_buffer 4 --data.length 8"),
        ({"batch_size": 3, "workers": 2}, "the batch_size by which .* --data.batch_size 2"),
    ],
)
def test_a_stream_does_not_go_on_in_other_pieces(folder, options, words):
    done = [0]
    workers = options.get("workers", 0)  # which take turns: after three batches one of two is ahead
    first = loader_of(folder, done, workers=workers)
    take(first, 3)
    done[0] = 3
    with pytest.raises(ValueError, match=words):
        loader_of(folder, done, **options).go_on(first.reached())


@pytest.mark.parametrize(("replicas", "workers"), [(1, 0), (3, 0), (2, 2)])
def test_windows_predict_each_token_once(folder, replicas, workers):
    texts = load_rows(str(folder))["validation"]["text"]
    found, counts = [], set()
    for rank in range(replicas):
        source = load_rows(str(folder), streaming=True)["validation"]
        options = {"length": 16, "stride": 8, "block": 4, "replicas": replicas, "rank": rank}
        rows = StreamedWindows(source, "text", Tokens(), **options)
        parts = list(DataLoader(rows, batch_size=None, num_workers=workers))
        counts.add(len(parts))
        for row in parts:
            for piece, name in enumerate(row["id"]):
                place = (row["documents"] == piece) & (row["target"] != IGNORED)
                found.append((int(name), row["target"][place].tolist()))
    assert len(counts) == 1
    by_document = {number: [] for number in range(len(texts))}
    for name, ids in sorted(found, key=lambda item: item[0]):
        by_document[name] += ids
    for number, expected in enumerate(texts):
        wanted = sorted([*(byte + 1 for byte in expected.encode()), *([0] if expected else [])])
        assert sorted(by_document[number]) == wanted


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # datasets and pandas, of csv
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_columns_of_files_that_do_not_say_them(tmp_path, suffix):
    table = datasets.Dataset.from_dict({"text": ["one two", "three"], "page": [1, 2]})
    file = tmp_path / f"train.{suffix}"
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[suffix](file)
    source = stream_features(load_rows(str(file), streaming=True)["train"])
    assert source.features["text"].dtype == "string"
    rows = take(StreamedRows(source, "text", Tokens(), length=5, block=10, seed=0), 5)
    assert {len(row["x"]) for row in rows} == {5}
    data = CorpusData(str(file), streaming=True, validation_fraction=0, length=5, batch_size=2)
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (2, 5)
    assert "state" not in batch
    gc.collect()  # what is left open of the streams is found here, where the warnings above are expected


def test_a_saved_data_set_streams(tmp_path):
    table = datasets.Dataset.from_dict({"text": ["one two", "three"]})
    datasets.DatasetDict(train=table, validation=table).save_to_disk(tmp_path / "saved")
    data = CorpusData(str(tmp_path / "saved"), streaming=True, length=5, batch_size=4)
    targets = torch.cat([batch["target"].flatten() for batch in data.val_dataloader()])
    assert Tokens().decode(targets[targets >= 0].tolist()) == "one twothree"


def test_streams_that_cannot_be(tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": "abc"}])
    with pytest.raises(ValueError, match=r"of a stream nothing can be held out.*--data.validation_fraction 0"):
        _ = CorpusData(str(file), streaming=True).splits
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(ValueError, match=r"\.txt files are read in place"):
        _ = CorpusData(str(tmp_path / "a.txt"), streaming=True).splits
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"text": ""}, {"text": None}])
    data = CorpusData(str(empty), streaming=True, validation_fraction=0)
    with pytest.raises(ValueError, match="there is no text in all the documents"):
        next(iter(data.train_dataloader()))
