"""Reports on classes: tables, files, pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from rich.console import Console
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET

from lambda_seq.tasks.callbacks.pictures import draw_confusion
from lambda_seq.tasks.callbacks.reports import as_table, summarise, write
from lambda_seq.tasks.metrics import report_metrics

TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=3", *TINY_ENCODER)
LABELS = torch.tensor([0, 0, 0, 2, 2])
PREDICTED = torch.tensor([0, 0, 2, 2, 0])  # class 1 neither occurs nor is predicted; 3 is predicted once, below


def report(labels=("cät", "b", "$c_d$ [x]", "d"), extra=True):
    metrics = report_metrics(len(labels))
    answers = torch.full((5, len(labels)), 0.1)
    answers[torch.arange(5), PREDICTED] = 0.7
    metrics.update(answers, LABELS)
    if extra:
        metrics.update(torch.eye(4)[[3]], torch.tensor([2]))
    return summarise(metrics.compute(), list(labels), "test", {"accuracy": 0.5})


def test_figures_of_each_class():
    rows = {row["label"]: row for row in report()["classes"]}
    assert rows["cät"] == {"label": "cät", "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)} | {
        "f1": pytest.approx(2 / 3),
        "support": 3,
    }
    assert rows["b"] == {"label": "b", "precision": None, "recall": None, "f1": None, "support": 0}
    assert rows["d"] == {"label": "d", "precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    assert rows["$c_d$ [x]"]["recall"] == pytest.approx(1 / 3)
    assert report()["confusion_matrix"] == [[2, 0, 1, 0], [0] * 4, [1, 0, 1, 1], [0] * 4]
    assert report()["rows"] == 6


def test_files(tmp_path):
    write(report(), tmp_path)
    with (tmp_path / "test_report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["cät", "b", "$c_d$ [x]", "d"]
    assert rows[1] == {"label": "b", "precision": "", "recall": "", "f1": "", "support": "0"}
    assert json.loads((tmp_path / "test_report.json").read_text(encoding="utf-8")) == report()


def printed(table):
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_the_printed_table():
    shown = printed(as_table(report()))
    assert "test: 4 classes, 6 rows" in shown
    assert "$c_d$ [x]" in shown
    assert "–" in shown


def test_of_many_classes_the_worst_are_printed():
    found = report()
    found["classes"] = [
        {"label": f"class {index}", "precision": 0.5, "recall": 0.5, "f1": index / 100, "support": 1}
        for index in reversed(range(60))
    ]
    shown = " ".join(printed(as_table(found)).split())
    assert "the 40 with the smallest F1" in shown
    assert "class 0 │" in shown
    assert "class 39" in shown
    assert "class 40" not in shown


@pytest.mark.parametrize("classes", [2, 31, 120])
def test_the_picture(tmp_path, classes):
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 3, (classes, classes)) + 40 * np.eye(classes, dtype=int)
    counts[1] = 0  # a class without rows
    names = ["名前", "$x_", *(f"a name that is much too long for an axis {index}" for index in range(classes - 2))]
    bins = [{"rows": index % 3, "confidence": (index + 0.5) / 15, "accuracy": 0.5} for index in range(15)]
    bins[0] = {"rows": 0, "confidence": None, "accuracy": None}
    path = tmp_path / "new" / "matrix.png"
    draw_confusion(counts.tolist(), names, bins, path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[0] < 2600
    assert ((pixels[..., 2] - pixels[..., 0]) > 60).sum() > 2000  # blue: the diagonal, and bars


def test_reports_of_the_command_line(cli, stories):
    fitted = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run")
    assert "run/test_report.csv" in fitted.out
    assert "support" in fitted.out
    assert not Path("run/val_report.csv").exists()  # nothing is counted while training
    found = json.loads(Path("run/test_report.json").read_text())
    assert found["rows"] == 8  # in batches of 3, 3 and 2
    assert [row["label"] for row in found["classes"]] == ["canine", "feline"]
    assert [row["support"] for row in found["classes"]] == [4, 4]
    summary = json.loads(Path("run/summary.json").read_text())
    for name in ("accuracy", "f1", "calibration_error", "loss"):
        assert found["metrics"][name] == pytest.approx(summary[f"test/{name}"], abs=1e-6)
    matrix = np.array(found["confusion_matrix"])
    assert np.trace(matrix) / 8 == pytest.approx(summary["test/accuracy"])
    assert Path(summary["confusion matrix"]).read_bytes().startswith(b"\x89PNG")

    shown = cli("validate", *TEXTS, "--data.path", stories, *QUIET, "--output_dir=run", "--reports.picture=false")
    assert "val: 2 classes, 8 rows" in shown.out
    assert Path("run/val_report.csv").is_file()
    assert not Path("run/val_confusion_matrix.png").exists()

    off = ("--reports.table=false", "--reports.files=false", "--reports.picture=false")
    shown = cli("test", *TEXTS, "--data.path", stories, *QUIET, "--output_dir=run", *off, "--reports.folder=other")
    assert "support" not in shown.out
    assert not Path("other").exists()


def test_a_class_absent_from_the_test_split(cli, stories):
    lines = (stories / "test.jsonl").read_text().splitlines()
    (stories / "test.jsonl").write_text("\n".join(line for line in lines if "feline" in line) + "\n")
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run")
    canine, feline = json.loads(Path("run/test_report.json").read_text())["classes"]
    assert canine["support"] == 0
    assert canine["recall"] is None
    assert feline["support"] == 4


@pytest.mark.slow
def test_two_processes_count_each_row_once(cli, pictures):
    """7 rows of a class, so that one process gets a row again; batch norms, so that steps must be in step."""
    (pictures / "test" / "up" / "03.png").unlink()
    command = ("--config", "tasks/configs/image_classification.yaml", "--data.path", str(pictures), *TINY_RESNET)
    command = (*command, "--data.batch_size=3", *QUIET, "--trainer.accelerator=cpu")
    cli("fit", *command, *SHORT, "--output_dir=run")
    cli("test", *command, "--output_dir=run")
    expected = json.loads(Path("run/test_report.json").read_text())
    both = ("--trainer.devices=2", "--trainer.strategy=ddp", "--output_dir=run", "--reports.folder=both")
    assert run("test", *command, *both).count("support") == 1  # printed once
    found = json.loads(Path("both/test_report.json").read_text())
    assert found["rows"] == expected["rows"] == 7
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    for name in expected["metrics"]:
        assert found["metrics"][name] == pytest.approx(expected["metrics"][name], abs=1e-5), name
