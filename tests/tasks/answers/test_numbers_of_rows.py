"""Rows with numbers, from the command line to the saved folder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_runs import WORDS, fit, weights
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from small_data import QUIET, SHORT, TINY_RESNET

from lambda_seq import load_predictor
from lambda_seq.models.heads import Numbers
from lambda_seq.tasks import predicting
from lambda_seq.tasks.baselines.linear import RidgeRegression, Sample, choose
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.data.targets import TargetOptions

NUMBERS = "--data.target.kind=numbers"
FIGURES = ("mae", "rmse", "r2")
PRICES = {"lamp": 30.0, "table": 120.0, "chair": 60.0, "rug": 0.0}


def priced(count):
    """Lines of texts and what the things that they name cost together, in thousands."""
    names, random = list(PRICES), np.random.default_rng(0)
    for _ in range(count):
        things = random.permutation(names)[: random.integers(1, 4)]
        yield f"a {' and a '.join(things)},{1000 + sum(map(PRICES.get, things)):.1f}\n"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run on a csv file with a column of numbers, with all that follows it."""
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "prices.csv").write_text("text,price\n" + "".join(priced(100)))
    words = (*WORDS, NUMBERS, "--data.path=prices.csv", "--data.test_fraction=0.2", "--baseline=true")
    return fit(folder, "text_classification", *words, "--model.huber=2", "--trainer.max_epochs=10")


def test_it_learns_and_all_that_follows_a_fit_is_there(fitted):
    run, said = fitted
    assert "Column 'price' is read as label_column" in said
    assert "the best checkpoint is that by val/rmse" in said
    summary = json.loads((run / "summary.json").read_text())
    assert {f"test/{name}" for name in (*FIGURES, "loss")} <= summary.keys()
    assert {f"test/baseline_{name}" for name in FIGURES} <= summary.keys()
    assert summary["test/r2"] > 0.6
    assert summary["test/baseline_r2"] > 0.9
    assert summary["test/mae"] < summary["test/rmse"] < 40
    assert "ridge regression" in json.loads((run / "baseline.json").read_text())["baseline"]
    page = (run / "report.html").read_text()
    assert "confusion" not in page.lower()
    assert "The 12 answers of the test split that are farthest off" in page
    assert page.count("price, ") == 12
    assert "Colours by occlusion" not in page
    assert "1 numbers" in (run / "model" / "README.md").read_text()


def test_the_saved_folder_answers_in_units_of_the_data(fitted, capsys):
    run, _ = fitted
    found = load_predictor(run / "model")("a lamp and a table")
    assert found.numbers["price"] == pytest.approx(1150, abs=30)
    assert found.answer.tolist() == pytest.approx([found.numbers["price"]])
    assert found.label is None
    (run.parent / "new.csv").write_text("text\na lamp and a table\n")
    predicting.main(
        ["predict", f"--model={run / 'model'}", "--input", str(run.parent / "new.csv"), "--output=found.csv"]
    )
    assert f"a lamp and a table: {found.numbers['price']:.6g}" in capsys.readouterr().out
    assert float(read("found.csv")[0]["prediction"]) == pytest.approx(found.numbers["price"], rel=1e-5)


def read(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_predictions_of_the_test_split_stand_beside_the_true_numbers(fitted, cli):
    run, _ = fitted
    words = (*WORDS, NUMBERS, "--data.label_column=price", f"--data.path={run.parent / 'prices.csv'}")
    words += ("--data.test_fraction=0.2", f"--output_dir={run}", "--predictions.path=all.csv", *QUIET)
    cli("predict", "--config", "text_classification", *words)
    rows = read("all.csv")
    errors = [abs(float(row["prediction"]) - float(row["label"])) for row in rows]
    assert np.mean(errors) == pytest.approx(json.loads((run / "summary.json").read_text())["test/mae"], rel=1e-4)


def test_other_training_rows_change_no_answer_of_a_checkpoint(fitted, cli):
    run, _ = fitted
    words = (*WORDS, NUMBERS, "--data.label_column=price", f"--output_dir={run}", *QUIET)
    Path("cheap.csv").write_text("text,price\n" + "a lamp,1.5\na rug,2.5\n" * 4)
    Path("new.csv").write_text("text\na lamp and a table\n")
    words += ("--data.path=cheap.csv", "--data.predict_path=new.csv", "--predictions.path=new_answers.csv")
    cli("predict", "--config", "text_classification", *words)
    (row,) = read("new_answers.csv")
    expected = load_predictor(run / "model")("a lamp and a table").numbers["price"]
    assert float(row["prediction"]) == pytest.approx(expected, rel=1e-5)
    said = cli("predict", "--config", "text_classification", *words, "--data.target.kind=classes", code=1).err
    assert "has learned numbers of rows, and the data have classes; give the data it was trained with" in said


def test_a_run_on_pictures_that_is_stopped_goes_on_bit_by_bit(cli):
    words = (
        "--recipe=null",
        *TINY_RESNET,
        "--data.path=sklearn:digits",
        NUMBERS,
        "--data.batch_size=200",
        "--model.mixup=0.2",
    )
    command = ("fit", "--config", "image_classification", *words, *SHORT, "--test_after_fit=false", "--export=false")
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=3")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    found, expected = weights("part"), weights("whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_figures_are_scikit_learns_whatever_the_batches():
    random = np.random.default_rng(0)
    y = 1e5 + random.standard_normal((50, 2)) * (1, 30)
    answers = y + random.standard_normal((50, 2))
    target = {"kind": "numbers", "mean": [1e5, 1e5], "std": [1.0, 30.0]}
    facts = {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 9}, "target": target}
    task = Classification("lambda_encoder", {"dim": 8, "depth": 1}, facts=facts)
    assert task.network.options["head_options"] == {"mean": [1e5, 1e5], "std": [1.0, 30.0]}
    for sizes in ([50], [7, 1, 42]):
        metrics = task.metrics("test")
        for part, own in zip(np.split(answers, np.cumsum(sizes)), np.split(y, np.cumsum(sizes)), strict=True):
            metrics.update(torch.tensor(part), torch.tensor(own))
        found = {name: float(value) for name, value in metrics.compute().items()}
        expected = RidgeRegression.figures(answers, y)
        assert found == pytest.approx(expected, rel=1e-9)
        assert expected["mae"] == pytest.approx(mean_absolute_error(y, answers))
        assert expected["rmse"] == pytest.approx(root_mean_squared_error(y, answers))
        assert expected["r2"] == pytest.approx(r2_score(y, answers))


def test_the_head_answers_in_units_and_learns_in_deviations():
    head = Numbers(mean=[100.0], std=[10.0])
    logits, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[110.0], [100.0]])
    assert head.answers(logits).tolist() == [[100.0], [130.0]]
    assert torch.equal(head.logits(head.answers(logits)), logits)
    assert head.losses(logits, y).tolist() == [[1.0], [9.0]]
    assert Numbers(mean=[100.0], std=[10.0], huber=1.0).losses(logits, y).tolist() == [[1.0], [5.0]]
    with pytest.raises(ValueError, match=r"huber=0: expected a number above 0"):
        Numbers(huber=0)
    with pytest.raises(ValueError, match=r"mean=\[1.0\], std=None: expected as many of both"):
        Numbers(mean=[1.0])
    with pytest.raises(ValueError, match=r"std=\[0.0\]: expected numbers above 0"):
        Numbers(mean=[1.0], std=[0.0])


def test_ridge_is_stronger_where_there_is_noise():
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 30)).astype(np.float32)
    clean, noise = x[:, :1] * 5 + 3, random.standard_normal((60, 1)) * 20
    assert choose(Sample(x, clean), None, 1, RidgeRegression).score > 0.9
    assert choose(Sample(x, noise), None, 1, RidgeRegression).strength < 1


def test_several_numbers_and_rows_without_any(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("text,width,height\n" + "x,1.5,2\ny,3,4\nz,,5\n" * 4)
    options = TargetOptions(kind="numbers", columns=["width", "height"])
    with pytest.raises(ValueError, match=r"4 of 12 rows have no number in columns width, height: row 2, row 5"):
        TextData(str(tmp_path / "a.csv"), target=options).setup()
    data = TextData(str(tmp_path / "a.csv"), target=options, drop_incomplete=True, validation_fraction=0)
    assert data.labels == ["width", "height"]
    assert data.facts.target.mean == [2.25, 3.0]
    assert "4 of 12 rows are left out" in caplog.text
    assert data.split("train").labels.shape == (8, 2)
