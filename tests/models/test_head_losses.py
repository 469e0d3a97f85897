"""Losses of heads with weights of classes and smoothed labels, beside loops over their definition."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from lambda_seq.models.heads import make_objective
from lambda_seq.models.heads.base import IGNORED
from lambda_seq.models.heads.losses import binary_cross_entropy, cross_entropy

WEIGHT = torch.tensor([0.4, 2.5, 0.0, 4.7])


def random(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def shares(rows, classes):
    return random(rows, classes).softmax(1)


def by_definition(logits, parts, weight, smoothing):
    """Of logits (B, classes) and what a target has of each class (B, classes)."""
    nats, classes = -logits.log_softmax(1), logits.shape[1]
    found = torch.zeros(len(logits), dtype=logits.dtype)
    for row, one, other in itertools.product(range(len(logits)), range(classes), range(classes)):
        smoothed = (1 - smoothing) * (one == other) + smoothing / classes
        found[row] += weight[one] * parts[row, one] * smoothed * nats[row, other]
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_its_definition(smoothing, weighted):
    logits, parts = random(6, 4), shares(6, 4)
    weight = WEIGHT.double() if weighted else None
    said = torch.ones(4) if weight is None else weight
    found = cross_entropy(logits, parts, weight, smoothing)
    torch.testing.assert_close(found, by_definition(logits, parts, said, smoothing))
    target = torch.tensor([0, 1, 2, 3, 1, IGNORED])
    found = cross_entropy(logits, target, weight, smoothing)
    expected = by_definition(logits[:5], F.one_hot(target[:5], 4).double(), said, smoothing)
    torch.testing.assert_close(found, torch.cat([expected, torch.zeros(1)]))
    positions = cross_entropy(logits.view(2, 3, 4).movedim(-1, 1), target.view(2, 3), weight, smoothing)
    assert torch.equal(positions.flatten(), found)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_its_definition(smoothing, weighted):
    logits, target = random(6, 4), random(6, 4).sigmoid().round(decimals=1)
    target[:3] = target[:3].round()
    weight = WEIGHT.double() if weighted else None
    found = binary_cross_entropy(logits, target, weight, smoothing)
    for row, label in itertools.product(range(6), range(4)):
        two = torch.stack([torch.zeros((), dtype=torch.float64), logits[row, label]])[
            None
        ]  # of not having it, and of it
        parts = torch.stack([1 - target[row, label], target[row, label]])[None]
        said = torch.tensor([1.0, WEIGHT[label] if weighted else 1.0])
        torch.testing.assert_close(found[row, label], by_definition(two, parts, said, smoothing)[0])


def test_without_smoothing_weights_are_those_of_torch():
    logits, parts, target = random(6, 4), shares(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    weight = WEIGHT.double()
    for given in (parts, target):
        expected = F.cross_entropy(logits, given, weight=weight, reduction="none")
        torch.testing.assert_close(cross_entropy(logits, given, weight), expected)
    expected = F.binary_cross_entropy_with_logits(logits, parts, pos_weight=weight, reduction="none")
    torch.testing.assert_close(binary_cross_entropy(logits, parts, weight), expected)


@pytest.mark.parametrize("head", ["classes", "positions"])
def test_the_best_answer_to_a_row_is_its_own_class_however_others_weigh(head):
    """A fifteenth of a target, times 20, is more than the rest of it, times 0.4."""
    weight, smoothing = (0.4, 2.4, 20.0), 0.2
    smoothed = torch.full((3, 3), smoothing / 3).fill_diagonal_(1 - smoothing + smoothing / 3)
    logits = smoothed.log().requires_grad_()
    objective = make_objective(head, {"weight": weight, "label_smoothing": smoothing})
    given = (logits, torch.arange(3)) if head == "classes" else (logits[None], torch.arange(3)[None])
    objective.loss(*given)[0].backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3, 3))


def test_the_best_answer_of_a_label_is_its_own_however_it_weighs():
    logits = torch.tensor([[0.1, 0.9]]).logit().requires_grad_()
    objective = make_objective("labels", {"weight": (20.0, 20.0), "label_smoothing": 0.2})
    objective.loss(logits, torch.tensor([[0.0, 1.0]]))[0].backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_classes_that_weigh_nothing_have_no_loss_and_no_gradient(dtype):
    logits = random(3, 2).to(dtype).requires_grad_()
    one, none = torch.eye(2, dtype=dtype)
    for target in (torch.ones(3, dtype=torch.long), none.expand(3, 2)):
        cross_entropy(logits, target, one, 0.1).sum().backward()
    binary_cross_entropy(logits, torch.ones_like(logits), torch.zeros_like(one), 0.1).sum().backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
