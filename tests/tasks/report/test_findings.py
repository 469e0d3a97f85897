"""What is kept of a test: no more than was asked for, the same for any batches and processes."""

from types import SimpleNamespace

import torch

from lambda_seq.tasks.answers import answer_for
from lambda_seq.tasks.facts import Facts, Target
from lambda_seq.tasks.report.findings import Findings

GENERATOR = torch.Generator().manual_seed(0)
LENGTHS = torch.randint(1, 200, (60,), generator=GENERATOR)
LABELS = torch.randint(0, 3, (60,), generator=GENERATOR)
CHANCES = torch.randn(60, 3, generator=GENERATOR).softmax(-1)


def task(kind="classes", **options):
    facts = Facts(kind="tokens", labels=["a", "b", "c"], target=Target(kind=kind, **options))
    return SimpleNamespace(answers=answer_for(facts))


def batch(rows):
    most = int(LENGTHS[rows].max())
    mask = torch.arange(most) < LENGTHS[rows][:, None]
    x = torch.where(mask, rows[:, None] + 1, 0)
    return {"x": x, "mask": mask, "id": [str(int(row)) for row in rows]}


def outputs(rows):
    return {"probabilities": CHANCES[rows], "labels": LABELS[rows]}


def found(size, kept=5, rows=60):
    findings = Findings(kept)
    for part in torch.arange(rows).split(size):
        findings.add(batch(part), outputs(part), task())
    findings.gather()
    return findings


def told(findings):
    return [(one.name, one.mistake, one.x.tolist()) for one in findings.wrong], findings.lengths


def test_the_surest_mistakes_with_their_inputs():
    surest, answers = CHANCES.max(-1)
    wrong = torch.where(answers != LABELS, surest, 0).argsort(descending=True)[:5].tolist()
    findings = found(7)
    assert [one.name for one in findings.wrong] == [str(row) for row in wrong]
    for one, row in zip(findings.wrong, wrong, strict=True):
        assert one.x.tolist() == [row + 1] * int(LENGTHS[row])  # without padding
        assert one.mistake == (surest[row], answers[row], 1, CHANCES[row, LABELS[row]], LABELS[row])


def test_batches_make_no_difference():
    assert told(found(7)) == told(found(60)) == told(found(1))


def test_lengths_are_counted_in_a_few_bins():
    lengths = found(7).lengths
    assert len(lengths) <= 4 * 8
    assert sum(rows for rows, *_ in lengths.values()) == 60
    assert sum(right for _, right, *_ in lengths.values()) == int((CHANCES.argmax(-1) == LABELS).sum())
    assert min(least for *_, least, _ in lengths.values()) == int(LENGTHS.min())
    assert max(most for *_, most in lengths.values()) == int(LENGTHS.max())


def test_rows_that_another_process_has_do_not_count():
    findings = Findings()
    rows = torch.arange(10)
    findings.add(batch(rows), {name: part[:9] for name, part in outputs(rows).items()}, task())
    findings.gather()
    assert sum(count for count, *_ in findings.lengths.values()) == 9


def test_answers_that_are_not_numbers_are_wrong_and_not_shown():
    findings, rows = Findings(), torch.arange(2)
    chances = torch.tensor([[0.1, torch.nan, 0.2], [0.1, 0.2, 0.7]])
    findings.add(batch(rows), {"probabilities": chances, "labels": torch.tensor([0, 2])}, task())
    findings.gather()
    assert findings.wrong == []
    assert sum(right for _, right, *_ in findings.lengths.values()) == 1


def test_windows_of_a_document_are_one_row():
    findings = Findings()
    x = torch.arange(1, 13).view(3, 4)
    windows = {"x": x, "mask": x > 0, "document": torch.tensor([0, 1, 1]), "id": ["a", "b"]}
    answers = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    findings.add(windows, {"probabilities": answers, "labels": torch.tensor([0, 1])}, task())
    findings.gather()
    (wrong,) = findings.wrong
    assert (wrong.name, wrong.windows, wrong.x.tolist()) == ("b", 2, [5, 6, 7, 8])
    assert sorted(findings.lengths.values()) == [(1, 0, 8, 8), (1, 1, 4, 4)]


def test_other_outputs_are_passed_by():
    findings = Findings()
    answers = {"answers": torch.zeros(3, 1), "labels": torch.zeros(3)}
    findings.add(batch(torch.arange(3)), answers, SimpleNamespace())  # of another task
    findings.add(batch(torch.arange(3)), answers, task("tags"))
    findings.add({}, None, task())
    findings.gather()
    assert findings.wrong == []
    assert findings.lengths == {}


def worst(kind, answers, labels, **options):
    given, findings = task(kind, **options), Findings(2)
    name = "answers" if kind == "numbers" else "probabilities"
    found = {name: torch.tensor(answers), "labels": torch.tensor(labels)}
    findings.add(batch(torch.arange(len(answers))), found, given)
    findings.gather()
    assert findings.lengths == {}  # no row is simply right or wrong
    return [(one.name, one.sign, *given.answers.told(*one.mistake)) for one in findings.wrong]


def test_of_several_labels_the_surest_that_is_wrong():
    chances = [[0.9, 0.75, 0.1], [0.6, 0.4, 0.25], [0.5, 0.1, 0.125], [0.9, 0.1, 0.9]]
    labels = [[1, 0, 0], [1, 0, 1], [0, 0, 1], [1, 0, 1]]
    assert worst("labels", chances, labels) == [
        ("2", -1, "no c", "87.5%", "c", "12.5%"),
        ("0", 1, "b", "75.0%", "no b", "25.0%"),
    ]


def test_of_numbers_the_farthest_off_in_standard_deviations():
    answers = [[1.0, 20.0, 0.0], [1.5, 10.0, 3.0], [4.0, 10.0, 3.0]]
    labels = [[1.0, 10.0, float("nan")], [1.0, 10.0, 3.0], [4.0, 10.0, 3.0]]
    assert worst("numbers", answers, labels, mean=[0, 0, 0], std=[1, 100, 1]) == [
        ("1", 0, "1.5", "", "1", "a, 0.5 standard deviations off"),
        ("0", 0, "20", "", "10", "b, 0.1 standard deviations off"),
    ]
