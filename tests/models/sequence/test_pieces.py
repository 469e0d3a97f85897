"""Gradients of sequences in pieces: those of the whole, or cut where a piece begins."""

import gc

import pytest
import torch
from torch.nn import functional as F

from lambda_seq import LambdaLayer1d, create_model
from lambda_seq.models import backward_in_pieces

KINDS = {
    "local": {"scope": 7},
    "content": {"position": False},
    "exponential": {"scope": None, "position": "exponential"},
    "multiscale": {"scope": None, "position": "multiscale"},
    "dropout": {"scope": 7, "dropout": 0.5},
}
N = 37


@pytest.fixture(params=KINDS)
def case(request):
    """A language model in float64 and float64's gradients of the whole sequence by its losses of each token."""
    torch.manual_seed(0)
    model = create_model("lambda_lm", dim=8, depth=2, heads=2, vocab_size=11, **KINDS[request.param]).double()
    model.train() if "dropout" in KINDS[request.param] else model.eval()
    tokens, targets = torch.randint(0, 11, (2, 2, N))

    def loss(logits, where):
        return F.cross_entropy(logits.flatten(0, 1), targets[:, where].flatten(), reduction="sum") / targets.numel()

    return model, tokens, loss


def gradients(model):
    found = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("length", [1, 10, N, 50])
def test_gradients_are_those_of_the_whole(case, length):
    model, tokens, loss = case
    if model.training:
        pytest.skip("dropout draws anew in each piece")
    whole = loss(model(tokens), slice(None))
    whole.backward()
    expected = gradients(model)
    found, state = backward_in_pieces(model, tokens, loss, length)
    torch.testing.assert_close(found, whole.detach(), rtol=1e-9, atol=0)
    assert state.seen == N
    for name, grad in gradients(model).items():
        assert (grad - expected[name]).abs().max() < 1e-9 * max(1, expected[name].abs().max()), name


def test_dropout_is_the_same_when_computed_again(case):
    """The gradients of a graph that keeps all pieces, drawn alike."""
    model, tokens, loss = case
    torch.manual_seed(1)
    state, total = model.init_state(2), 0
    for start in range(0, N, 10):
        where = slice(start, min(start + 10, N))
        output, state = model.step(tokens[:, where], state)
        total = total + loss(output, where)
    total.backward()
    expected = gradients(model)
    torch.manual_seed(1)
    found, _ = backward_in_pieces(model, tokens, loss, 10)
    torch.testing.assert_close(found, total.detach())
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], msg=name)


def test_cut_gradients_end_where_a_piece_begins(case):
    model, tokens, loss = case
    torch.manual_seed(1)
    state = model.init_state(2)
    for start in range(0, N, 10):
        where = slice(start, min(start + 10, N))
        output, state = model.step(tokens[:, where], state.detach())
        loss(output, where).backward()
    expected = gradients(model)
    torch.manual_seed(1)
    _, after = backward_in_pieces(model, tokens, loss, 10, cut=True)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=0, atol=0, msg=name)
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves(after) if torch.is_tensor(leaf))


def test_cut_gradients_keep_nothing_of_earlier_pieces(case):
    """As many tensors are alive at the last piece as at the third, losses of earlier pieces included."""
    model, tokens, loss = case
    alive = []

    def counted(logits, where):
        gc.collect()
        alive.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
        return loss(logits, where)

    backward_in_pieces(model, tokens, counted, 4, cut=True)
    assert len(alive) == 10
    assert alive[2:-1] == [alive[2]] * 7  # the last piece has one position, which a local layer computes otherwise


def test_a_sequence_goes_on_where_another_ended(case):
    model, tokens, loss = case
    if model.training:
        pytest.skip("dropout draws anew in each piece")
    whole, _ = backward_in_pieces(model, tokens, loss, 10)
    first, state = backward_in_pieces(model, tokens[:, :20], loss, 10)
    second, _ = backward_in_pieces(
        model, tokens[:, 20:], lambda y, at: loss(y, slice(at.start + 20, at.stop + 20)), 10, state=state
    )
    torch.testing.assert_close(first + second, whole, rtol=1e-9, atol=0)


def test_an_encoder_answers_after_the_last_piece():
    torch.manual_seed(0)
    options = {"stem": "waveform", "strides": [2], "dim": 8, "depth": 1, "heads": 2, "scope": 5, "num_classes": 3}
    model = create_model("lambda_encoder", causal=True, norm="layer", **options).double().eval()
    x, label = torch.randn(2, 41, dtype=torch.float64), torch.tensor([0, 2])
    F.cross_entropy(model(x), label).backward()
    expected = gradients(model)

    def loss(logits, where):
        return F.cross_entropy(logits, label) if where.stop == 41 else None

    backward_in_pieces(model, x, loss, 12)
    for name, grad in gradients(model).items():
        assert (grad - expected[name]).abs().max() < 1e-9, name


def test_inputs_get_gradients_too():
    layer = LambdaLayer1d(8, heads=2, scope=5, causal=True).double().eval()
    x = torch.randn(1, 23, 8, dtype=torch.float64, requires_grad=True)
    layer(x).square().sum().backward()
    expected, x.grad = x.grad, None
    backward_in_pieces(layer, x, lambda y, where: y.square().sum(), 6)
    assert (x.grad - expected).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0"),
        ({"x": torch.zeros(2, 0, 8)}, r"x has the shape \(2, 0, 8\)"),
        ({"loss": lambda y, where: None}, "loss: it returned None for all pieces"),
    ],
)
def test_wrong_use(options, message):
    layer = LambdaLayer1d(8, heads=2, scope=5, causal=True).eval()
    given = {"x": torch.zeros(2, 9, 8), "loss": lambda y, where: y.sum(), "length": 4, **options}
    with pytest.raises(ValueError, match=message):
        backward_in_pieces(layer, **given)
