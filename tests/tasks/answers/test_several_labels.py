"""Rows with any of several labels, from the command line to the saved folder."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run as command
from labelled_runs import WORDS, fit, multilabel_texts, weights
from PIL import Image
from processes import Processes
from sklearn.metrics import average_precision_score, f1_score
from small_audio import RATE, write_clip
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET, write_jsonl

from lambda_seq import load_predictor
from lambda_seq.models.heads import Classes, Labels
from lambda_seq.tasks import predicting
from lambda_seq.tasks.answers.labels import AveragePrecision
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.data.targets import TargetOptions

FIGURES = ("f1", "f1_micro", "average_precision", "exact_match", "loss")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run on a csv file whose cells hold labels parted by ";", with all that follows it."""
    folder = tmp_path_factory.mktemp("labels")
    lines = [f'"{row["text"]}",{";".join(row["label"])}\n' for row in multilabel_texts(90)]
    (folder / "topics.csv").write_text("text,label\n" + "".join(lines))
    words = (*WORDS, "--data.path=topics.csv", "--data.test_fraction=0.2", "--baseline=true", "--trainer.max_epochs=8")
    return fit(folder, "text_classification", *words)


def test_it_learns_and_all_that_follows_a_fit_is_there(fitted):
    run, said = fitted
    assert "holds several labels in a cell, such as" in said
    assert "training rows have none of the 3 labels" in said
    assert "of such data the best checkpoint is that by val/f1" in said
    summary = json.loads((run / "summary.json").read_text())
    assert {f"test/{name}" for name in FIGURES} <= summary.keys()
    assert {f"test/baseline_{name}" for name in FIGURES} <= summary.keys()
    assert summary["test/f1"] > 0.9
    assert summary["test/baseline_f1"] > 0.9
    assert "one-vs-rest logistic regression" in json.loads((run / "baseline.json").read_text())["baseline"]
    report = json.loads((run / "test_report.json").read_text())
    assert report["rows"] == 18
    assert [row["label"] for row in report["classes"]] == ["cat", "dog", "fish"]
    assert "confusion_matrix" not in report
    page = (run / "report.html").read_text()
    assert "<h2>Labels</h2>" in page
    assert "What is mistaken for what" not in page
    assert "None: all" not in page
    card = (run / "model" / "README.md").read_text()
    assert "logits of 3 labels" in card
    assert "test/average_precision" in card


def test_the_saved_folder_answers_labels(fitted, capsys):
    run, _ = fitted
    predictor = load_predictor(run / "model")
    found = predictor(["the cat and the dog of row", "the rest of row", "the fish of row"])
    assert [one.labels for one in found] == [["cat", "dog"], [], ["fish"]]
    assert found[0].label is None
    (run.parent / "new.csv").write_text("text\nthe cat and the fish of row\nthe rest of row\n")
    predicting.main(
        ["predict", f"--model={run / 'model'}", "--input", str(run.parent / "new.csv"), "--output=found.csv"]
    )
    assert '["cat", "fish"]' in capsys.readouterr().out
    rows = read("found.csv")
    assert [json.loads(row["prediction"]) for row in rows] == [["cat", "fish"], []]
    assert float(rows[0]["probability: fish"]) > 0.5 > float(rows[0]["probability: dog"])


def test_predictions_of_the_test_split_are_a_file_with_the_true_labels(fitted, cli):
    run, _ = fitted
    words = (*WORDS, f"--data.path={run.parent / 'topics.csv'}", "--data.test_fraction=0.2", f"--output_dir={run}")
    cli("predict", "--config", "text_classification", *words, "--predictions.path=all.csv", *QUIET)
    rows = read("all.csv")
    assert len(rows) == 18
    right = [json.loads(row["prediction"]) == [label for label in row["label"].split(";") if label] for row in rows]
    summary = json.loads((run / "summary.json").read_text())
    assert np.mean(right) == pytest.approx(summary["test/exact_match"])


def test_looking_at_the_data_counts_rows_of_each_label(fitted, cli):
    run, _ = fitted
    shown = cli("data", run.parent / "topics.csv", "--output_dir=looked").out
    assert "configuration text_classification" in shown
    assert "3 labels" in shown
    found = json.loads(Path("looked/data.json").read_text())
    assert found["target"] == "labels"
    counts = [sum(split["classes"][name] for split in found["splits"].values()) for name in ("cat", "dog", "fish")]
    assert counts == [sum(name in row["label"] for row in multilabel_texts(90)) for name in ("cat", "dog", "fish")]


@pytest.mark.slow
def test_two_processes_count_what_one_does(fitted):
    run, _ = fitted
    words = ("--config=text_classification", *WORDS, f"--data.path={run.parent / 'topics.csv'}", *QUIET)
    words += ("--data.test_fraction=0.2", "--data.batch_size=5", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}")
    figures = []
    for count in (1, 2):  # 18 rows, in 4 batches and in 2 of each process
        command("test", *words, f"--trainer.devices={count}", "--trainer.accelerator=cpu", f"--output_dir={count}")
        figures.append(json.loads(Path(f"{count}/test_report.json").read_text()))
    assert figures[0]["classes"] == figures[1]["classes"]
    assert figures[0]["metrics"] == pytest.approx(figures[1]["metrics"], abs=1e-6)
    assert {"average_precision", "f1", "exact_match"} <= figures[0]["metrics"].keys()


def read(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_that_is_stopped_goes_on_bit_by_bit_from_lists(cli, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"text": row["text"], "tags": row["label"]} for row in multilabel_texts(40)])
    words = (*TINY_ENCODER, *QUIET, "--data.path=rows.jsonl", "--data.batch_size=4", "--trainer.max_epochs=2")
    words += ("--recipe=null", "--model.class_weight=balanced", "--test_after_fit=false")
    command = ("fit", "--config", "text_classification", *words)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=5")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    found, expected = weights("part"), weights("whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_pictures_and_clips_with_columns_of_0_and_1(cli, tmp_path, caplog):
    random, rows = np.random.default_rng(0), ["image,top,bottom\n"]
    for index in range(24):
        pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        pixels[:4] += 150 * (index % 2)
        pixels[4:] += 150 * (index // 2 % 2)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{index % 2},{index // 2 % 2}\n")
    (tmp_path / "pictures.csv").write_text("".join(rows))
    words = ("--recipe=null", *TINY_RESNET, "--data.path=pictures.csv", "--data.batch_size=8", "--model.mixup=0.2")
    said = cli("fit", "--config", "image_classification", *words, *SHORT, "--output_dir=pictures")
    assert "columns top, bottom of 0 and 1 are read as labels" in caplog.text
    assert "val/average_precision" in said.out
    assert load_predictor("pictures/model")("0.png").probabilities.keys() == {"top", "bottom"}

    for index in range(16):
        time = np.arange(600) / RATE
        tones = [np.sin(2 * np.pi * rate * time) * (index >> bit & 1) for bit, rate in enumerate((300, 900))]
        write_clip(
            tmp_path / f"{index}.wav", (0.3 * sum(tones) + 0.02 * random.standard_normal(600)).astype(np.float32)
        )
    lines = [f"{index}.wav,{'|'.join(['low'] * (index & 1) + ['high'] * (index >> 1 & 1))}\n" for index in range(16)]
    (tmp_path / "clips.csv").write_text("audio,label\n" + "".join(lines))
    words = ("--recipe=null", *TINY_ENCODER, "--data.path=clips.csv", "--data.batch_size=4", "--data.evaluate=windows")
    words += ("--data.crop_seconds=0.1", "--model.options.strides=[4,4]", "--model.options.stem=waveform")
    cli("fit", "--config", "audio_classification", *words, *SHORT, "--output_dir=clips")
    assert load_predictor("clips/model")("3.wav").probabilities.keys() == {"low", "high"}


def test_figures_are_scikit_learns_whatever_the_batches_and_with_labels_that_do_not_occur():
    random = np.random.default_rng(0)
    answers, y = random.random((50, 4)), (random.random((50, 4)) < 0.3).astype(np.float32)
    y[:, 3] = 0
    facts = {"labels": list("abcd"), "input": "tokens", "options": {"num_classes": 4, "vocab_size": 257}}
    task = Classification("lambda_encoder", {"dim": 8, "depth": 1}, facts=facts | {"target": {"kind": "labels"}})
    for sizes in ([50], [7, 1, 42]):
        metrics = task.metrics("test")
        for part, own in zip(np.split(answers, np.cumsum(sizes)), np.split(y, np.cumsum(sizes)), strict=True):
            if len(part):
                metrics.update(torch.tensor(part), torch.tensor(own))
        found = {name: float(value) for name, value in metrics.compute().items()}
        assert found["f1"] == pytest.approx(f1_score(y, answers >= 0.5, average="macro", zero_division=0))
        assert found["f1_micro"] == pytest.approx(f1_score(y, answers >= 0.5, average="micro"))
        assert found["average_precision"] == pytest.approx(average_precision_score(y[:, :3], answers[:, :3]))
        assert found["exact_match"] == pytest.approx(((answers >= 0.5) == y).all(1).mean())


@pytest.mark.slow
def test_a_process_without_rows_counts_what_the_others_do():
    processes = Processes(2)
    try:
        found = processes.run(average_precision)
    finally:
        processes.stop()
    assert found[0] == found[1]
    assert found[0] == pytest.approx(
        average_precision_score([[1, 0], [0, 1], [1, 1]], [[0.9, 0.8], [0.7, 0.6], [0.2, 0.7]])
    )


def average_precision():
    metric = AveragePrecision(2, average="none")
    if torch.distributed.get_rank() == 0:
        metric.update(torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.2, 0.7]]), torch.tensor([[1, 0], [0, 1], [1, 1]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this process has none
        return float(metric.compute())


@pytest.mark.parametrize("cells", ["Oil, gas", "news; one"])
def test_cells_whose_parts_stand_in_no_other_cell_are_classes(tmp_path, cells):
    (tmp_path / "a.csv").write_text("text,label\n" + f'x,"{cells}"\ny,sport\n' * 8)
    data = TextData(str(tmp_path / "a.csv"))
    assert data.facts.target.kind == "classes"
    assert data.labels == sorted([cells, "sport"])
    chosen = TextData(str(tmp_path / "a.csv"), target=TargetOptions(separator=cells[3 if "," in cells else 4]))
    assert chosen.facts.target.kind == "labels"
    assert len(chosen.labels) == 3


def test_cells_that_seem_several_labels_stay_classes_if_asked_for(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "x,a;b\ny,a\nz,b\n" * 8)
    data = TextData(str(tmp_path / "a.csv"), target=TargetOptions(kind="classes"))
    assert data.labels == ["a", "a;b", "b"]


def test_lists_are_no_classes(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": ["a"]}, {"text": "y", "label": ["b"]}] * 4)
    with pytest.raises(ValueError, match=r"label_column='label' of the train .* holds List.*expected one class"):
        TextData(str(tmp_path / "a.jsonl"), target=TargetOptions(kind="classes")).setup()


def test_a_list_that_is_missing_is_not_known_and_an_empty_one_is_none_of_them(tmp_path, caplog):
    rows = [{"text": "x", "label": ["a"]}, {"text": "y", "label": []}, {"text": "z", "label": None}]
    write_jsonl(tmp_path / "a.jsonl", rows * 4)
    with pytest.raises(ValueError, match=r"4 of 12 rows have no list of labels in column 'label': row 2, row 5"):
        TextData(str(tmp_path / "a.jsonl")).setup()
    data = TextData(str(tmp_path / "a.jsonl"), drop_incomplete=True, validation_fraction=0)
    assert data.split("train").labels[:, 0].tolist() == [1, 0] * 4
    assert data.facts.target.counts == [4]
    assert data.facts.target.rows == 8
    assert "4 of 12 rows are left out, 4 without a label" in caplog.text


def test_parts_keep_their_share_of_rare_labels(tmp_path):
    rows = [{"text": str(row), "label": ["often"] * (row % 2) + ["rare"] * (row % 10 == 0)} for row in range(100)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    data = TextData(str(tmp_path / "a.jsonl"), validation_fraction=0.2)
    assert [data.split(name).labels[:, 1].sum() for name in ("train", "validation")] == [8, 2]


def test_weights_are_of_the_loss_of_training_and_batches_of_any_size_learn_the_same():
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
    y = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    plain, weighted = (Labels(weight=weight).losses(logits, y) for weight in (None, (3.0, 1.0)))
    assert torch.allclose(weighted, plain * torch.tensor([[3.0, 1.0], [3.0, 1.0]]))
    number = torch.tensor([0, 1])
    plain, weighted = (Classes(weight=weight).losses(logits, number) for weight in (None, (3.0, 1.0)))
    assert torch.allclose(weighted, plain * torch.tensor([3.0, 1.0]))
    loss, count = Classes(weight=(3.0, 1.0)).loss(logits, number)
    assert float(loss) == pytest.approx(float(weighted.mean()))
    assert count == 2


def test_balanced_weights_count_the_training_rows():
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 257}}
    network = ("lambda_encoder", {"dim": 8, "depth": 1})
    counted = facts | {"target": {"rows": 40, "counts": [30, 10]}}
    task = Classification(*network, facts=counted, class_weight="balanced")
    assert task.objective.weight == pytest.approx((40 / 60, 2.0))
    assert task.network.objective.weight is None  # by which validation counts
    several = facts | {"target": {"kind": "labels", "rows": 40, "counts": [30, 8]}}
    task = Classification(*network, facts=several, class_weight="balanced")
    assert task.objective.weight == pytest.approx((10 / 30, 4.0))
    assert Classification(*network, facts=facts, class_weight={"b": 3}).objective.weight == (1.0, 3.0)
