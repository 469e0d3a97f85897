"""What is said of a training that went wrong, and that nothing is said of one that went well."""

import math

import pytest

from lambda_seq.tasks.report import advice


def steps(losses, every=10):
    return [[every * (index + 1), loss] for index, loss in enumerate(losses)]


def test_a_flat_loss():
    (said,) = advice.of_training(
        {"train/loss": steps([0.694, 0.694, 0.7, 0.693] + [0.8] * 5 + [0.692] * 3), "lr": steps([1e-5, 0])}
    )
    assert "flat loss: 0.696 in the first steps, 0.692 in the last" in said
    assert "the greatest was 1e-05" in said
    assert "--model.optimizer.lr" in said


@pytest.mark.parametrize(
    "losses",
    [
        [1 - 0.05 * index for index in range(12)],  # falls
        [0.001] * 12,  # nothing left to learn
        [0.7] * 4,  # too few to say
        [math.nan] * 12,  # which the training has said
        [],
    ],
)
def test_other_losses(losses):
    assert advice.of_training({"train/loss": steps(losses)}) == []


def points(name, trained, validated, losses=(1.0, 1.0)):
    return {f"train/{name}": steps(trained), f"val/{name}": steps(validated), "val/loss": steps(losses)}


def test_over_fitting():
    (said,) = advice.of_fitting(points("accuracy", [0.6, 0.99], [0.6, 0.7]), "accuracy")
    assert "over-fitting: accuracy 0.990 on the training split, 0.700 on validation" in said
    assert "--model.options.dropout" in said
    (said,) = advice.of_fitting(points("bits_per_byte", [3.0, 1.0], [3.0, 2.0]), "bits_per_byte")
    assert "bits per byte 1.000 on the training split, 2.000 on validation" in said
    own = {"train/loss_epoch": steps([1.0, 0.2]), "val/loss": steps([1.0, 0.9])}
    assert "over-fitting: loss 0.200" in advice.of_fitting(own, None)[0]
    (said,) = advice.of_fitting(points("accuracy", [0.9], [0.9], [1.0, 0.5, 0.7, 0.9]), "accuracy")
    assert "validation loss rises: 0.5 at its best, step 20, and 0.9 at the end" in said


def test_no_over_fitting():
    for trained, validated in (([0.9], [0.85]), ([0.6], [0.9]), ([], [0.5]), ([0.5], [])):
        assert advice.of_fitting(points("accuracy", trained, validated), "accuracy") == []
    assert advice.of_fitting(points("bits_per_byte", [2.0], [2.1]), "bits_per_byte") == []
    assert advice.of_fitting(points("accuracy", [0.9], [0.9], [1.0, 0.5, 0.9, 0.51]), "accuracy") == []


def report(supports, precisions, accuracy):
    rows = [
        {"label": f"c{index}", "support": support, "precision": precision}
        for index, (support, precision) in enumerate(zip(supports, precisions, strict=True))
    ]
    return {"split": "test", "rows": sum(supports), "classes": rows, "metrics": {"accuracy": accuracy}}


def test_a_class_that_is_never_predicted():
    (said,) = advice.of_classes(report([50, 7, 3, 0], [0.9, None, None, None], 0.9))
    assert "never predicted: 2 of 4 classes, 'c1' (7 rows), 'c2' (3 rows), of the test split" in said
    assert "--best.monitor val/f1" in said
    (said,) = advice.of_classes(report([50] + [1] * 8, [0.9] + [None] * 8, 0.95))
    assert "'c5' (1 rows) and 3 more" in said


def test_an_accuracy_that_one_answer_reaches():
    (said,) = advice.of_classes(report([8, 2], [0.8, 0.5], 0.8))
    assert "no better than one answer: accuracy 0.800, and 'c0' to all 10 rows reaches 0.800" in said
    assert advice.of_classes(report([8, 2], [0.9, 0.5], 0.9)) == []
    assert advice.of_classes(report([0, 0], [None, None], math.nan)) == []


def test_a_baseline_that_is_not_reached():
    final = {"test/accuracy": 0.7, "test/f1": 0.6, "test/baseline_accuracy": 0.8, "test/baseline_f1": 0.8}
    (said,) = advice.of_baselines(final | {"test/baseline_majority": 0.9}, "accuracy")
    assert "not above the baseline: accuracy 0.700, and test/baseline_accuracy 0.800" in said
    assert "--recipe" in said
    (said,) = advice.of_baselines(final, "accuracy", "texts")
    assert said.endswith("Recipe texts has chosen sizes and rates; more rows may help, or take the baseline")
    assert advice.of_baselines(final | {"test/accuracy": 0.81}, "accuracy") == []
    assert len(advice.of_baselines({"val/accuracy": 0.1, "val/baseline_chance": 0.5}, "accuracy")) == 1  # of the data
    bits = {"test/bits_per_byte": 2.0, "test/baseline_bits_per_byte": 2.5}
    assert advice.of_baselines(bits, "bits_per_byte") == []
    assert len(advice.of_baselines(bits | {"test/bits_per_byte": 2.6}, "bits_per_byte")) == 1
    assert advice.of_baselines(bits, None) == []
