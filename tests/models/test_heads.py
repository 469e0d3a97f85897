"""Heads by name: shapes, masks, losses and their gradients, what logits answer, and what a network cannot take."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from lambda_seq import LambdaEncoder, create_model, from_pretrained
from lambda_seq.models import TieredLambdaResNet
from lambda_seq.models.heads import IGNORED, Objective, list_heads, make_objective, register_head

TINY = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 4, "scope": 5}
LENGTH = 11
SIZED = ("classes", "labels", "numbers", "positions")
SEQUENCE = ("positions", "tokens", "values")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network(head, **options):
    stem = options.pop("stem", "features" if head == "values" else "tokens")
    sizes = {"num_classes": 5} if head in SIZED else {}
    sizes |= {"vocab_size": 20} if stem == "tokens" else {"in_channels": 3}
    return LambdaEncoder(head=head, stem=stem, **(TINY | sizes | options)).eval()


def batch(model, length=LENGTH):
    mask = torch.arange(length) < torch.tensor([length, length - 4, 3, 0])[:, None]
    if model.input_kind == "tokens":
        return torch.randint(20, (4, length)), mask
    return torch.randn(4, length, 3), mask


def target(model, frames=LENGTH):
    stride = model.stem.stride
    return {
        "classes": lambda: torch.tensor([0, 4, 2, IGNORED]),
        "labels": lambda: torch.tensor([[0.0, 1, 1, 0, math.nan]]).repeat(4, 1),
        "numbers": lambda: torch.tensor([[0.5, -1, math.nan, 0, 3]]).repeat(4, 1),
        "positions": lambda: torch.randint(5, (4, frames)).index_fill(1, torch.tensor([1]), IGNORED),
        "tokens": lambda: torch.randint(20, (4, frames, stride)).squeeze(-1),
        "values": lambda: torch.randn(4, frames, stride * 3),
        "embedding": lambda: torch.randn(4, 8),
    }[model.objective.name]()


def test_all_heads_are_listed():
    assert list_heads() == ["classes", "labels", "numbers", "embedding", "positions", "tokens", "values"]
    assert create_model("lambda_encoder_tiny").objective.name == "classes"
    assert create_model("lambda_encoder_tiny").num_classes == 2


@pytest.mark.parametrize("strides", [None, (2, 2)])
@pytest.mark.parametrize("head", list_heads())
def test_shapes_and_gradients(head, strides):
    model = network(head, strides=strides)
    x, mask = batch(model)
    frames = -(-LENGTH // model.stem.stride)
    logits = model(x, mask)
    outputs = {"tokens": 20 * model.stem.stride, "values": 3 * model.stem.stride, "embedding": 8}.get(head, 5)
    assert logits.shape == ((4, frames, outputs) if head in SEQUENCE else (4, outputs))
    assert model.num_classes == outputs
    features, real = model.features(x, mask)  # for any head
    assert features.shape == (4, frames, 8)
    loss, count = model.objective.loss(logits, target(model, frames), real if head in SEQUENCE else None)
    assert loss.isfinite()
    assert count > 0
    loss.backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert missing == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("head", list_heads())
def test_padding_changes_no_answer_and_no_loss(head):
    model = network(head)
    x, mask = batch(model)
    goal = target(model)
    real = model.features(x, mask)[1]
    loss, count = model.objective.loss(model(x, mask), goal, real if head in SEQUENCE else None)
    other = torch.where(mask if x.ndim == 2 else mask[..., None], x, 7)
    changed = goal.clone()
    if head in SEQUENCE:
        changed[~real] = 1  # what stands at padding is not asked for
    again, counted = model.objective.loss(model(other, mask), changed, real if head in SEQUENCE else None)
    assert torch.equal(loss, again)
    assert count == counted
    if head in SEQUENCE:
        shorter = model(x[1:2, : LENGTH - 4])  # alone, without padding
        torch.testing.assert_close(model(x, mask)[1:2, : LENGTH - 4], shorter)


def test_losses_are_means_over_what_is_known():
    logits = torch.randn(4, 5)
    loss, count = make_objective("classes").loss(logits, torch.tensor([0, 4, 2, IGNORED]))
    torch.testing.assert_close(loss, F.cross_entropy(logits[:3], torch.tensor([0, 4, 2])))
    assert count == 3
    shares = torch.rand(4, 5).softmax(-1)
    smooth = make_objective("classes", {"label_smoothing": 0.1})
    torch.testing.assert_close(smooth.loss(logits, shares)[0], F.cross_entropy(logits, shares, label_smoothing=0.1))
    goal = torch.tensor([[0.0, 1, 1, 0, math.nan]]).repeat(4, 1)
    loss, count = make_objective("labels").loss(logits, goal)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:, :4], goal[:, :4]))
    assert count == 16
    torch.testing.assert_close(make_objective("numbers").loss(logits, goal)[0], F.mse_loss(logits[:, :4], goal[:, :4]))
    at, where = torch.randn(2, 3, 5), torch.tensor([[1, 2, IGNORED], [0, 0, 4]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    loss, count = make_objective("positions").loss(at, where, mask)
    torch.testing.assert_close(loss, F.cross_entropy(at[[0, 0, 1], [0, 1, 0]], torch.tensor([1, 2, 0])))
    assert count == 3
    frames, ids = torch.randn(2, 3, 2 * 20), torch.randint(20, (2, 3, 2))
    loss, count = make_objective("tokens").loss(frames, ids, mask)
    torch.testing.assert_close(
        loss, F.cross_entropy(frames.unflatten(-1, (2, 20))[mask].flatten(0, 1), ids[mask].flatten())
    )
    assert count == 8
    for name in ("classes", "labels", "numbers"):  # nothing known teaches nothing
        nothing = torch.full((4,), IGNORED) if name == "classes" else torch.full((4, 5), math.nan)
        given = logits.clone().requires_grad_()
        loss, count = make_objective(name).loss(given, nothing)
        loss.backward()
        assert (loss, count) == (0, 0)
        assert not given.grad.any()


def test_partners_find_each_other():
    objective, vectors = make_objective("embedding", {"temperature": 0.5}), torch.randn(6, 8)
    near, _ = objective.loss(vectors, 3 * vectors)
    far, count = objective.loss(vectors, vectors.roll(1, 0))
    assert near < far
    assert count == 6
    cosines = F.cosine_similarity(vectors[:, None], vectors.roll(1, 0)[None], dim=-1) / 0.5
    own = torch.arange(6)
    expected = (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.mT, own)) / 2
    torch.testing.assert_close(far, expected)


def test_answers():
    logits = torch.randn(3, 4, dtype=torch.bfloat16)
    for name in ("classes", "positions", "tokens"):
        torch.testing.assert_close(make_objective(name).answers(logits), logits.float().softmax(-1))
    torch.testing.assert_close(make_objective("labels").answers(logits), logits.float().sigmoid())
    for name in ("numbers", "values", "embedding"):
        assert torch.equal(make_objective(name).answers(logits), logits.float())


def test_embeddings_have_length_1_unless_told_otherwise():
    model = network("embedding")
    x, mask = batch(model)
    vectors = model(x, mask)
    torch.testing.assert_close(vectors[:3].norm(dim=-1), torch.ones(3))
    assert torch.equal(vectors[3], torch.zeros(8))  # no real position
    free = network("embedding", head_options={"normalize": False})
    free.load_state_dict(model.state_dict())
    torch.testing.assert_close(F.normalize(free(x, mask), dim=-1), vectors)
    torch.testing.assert_close(free(x, mask), free.pool(*free.features(x, mask)))


def test_a_tied_head_has_the_weights_of_the_embedding(tmp_path):
    model = network("tokens", head_options={"tie": True})
    x, mask = batch(model)
    features, _ = model.features(x, mask)
    torch.testing.assert_close(model(x, mask), features @ model.stem.embedding.weight.T * 8**-0.5)
    assert not [name for name in model.state_dict() if name.startswith("head")]
    other = copy.deepcopy(model)
    other.stem.embedding.weight.data.zero_()
    assert not other(x, mask).any()
    assert model(x, mask).any()
    with torch.device("meta"):
        empty = network("tokens", head_options={"tie": True})
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    torch.testing.assert_close(empty(x, mask), model(x, mask))
    torch.testing.assert_close(from_pretrained(model.save_pretrained(tmp_path / "tied"))(x, mask), model(x, mask))


@pytest.mark.parametrize("head", list_heads())
def test_saved_and_loaded(head, tmp_path):
    model = network(head)
    x, mask = batch(model)
    loaded = from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert loaded.objective == model.objective
    assert torch.equal(loaded(x, mask), model(x, mask))
    card = (tmp_path / "model" / "README.md").read_text()
    assert model.objective.answer.format(model.num_classes) in card


@pytest.mark.parametrize("strides", [None, (2, 2)])
@pytest.mark.parametrize("head", list_heads())
def test_streams(head, strides):
    model = network(head, causal=True, strides=strides)
    x, _ = batch(model)
    state, pieces = model.init_state(4), []
    for piece in x.split(3, 1):
        logits, state = model.step(piece, state)
        pieces.append(logits)
    whole = torch.cat(pieces, 1) if head in SEQUENCE else pieces[-1]
    torch.testing.assert_close(whole, model(x), atol=1e-5, rtol=1e-4)


def test_a_state_of_another_head_is_refused():
    pooled, each = network("classes", causal=True), network("positions", causal=True)
    x, _ = batch(pooled)
    with pytest.raises(ValueError, match="another head"):
        each.step(x, pooled.init_state(4))
    with pytest.raises(ValueError, match="another head"):
        pooled.step(x, each.init_state(4))


def test_documents_of_a_row_are_answered_as_if_each_stood_alone():
    model = network("positions")
    x, _ = batch(model)
    documents = torch.tensor([[0] * 4 + [1] * 7])
    found = model(x[:1], None, documents)
    torch.testing.assert_close(found[:, :4], model(x[:1, :4]))
    torch.testing.assert_close(found[:, 4:], model(x[:1, 4:]))


def test_hidden_frames_are_seen_as_the_vector_that_stands_for_them():
    model = network("values")
    x, mask = batch(model)
    hidden = torch.zeros(4, LENGTH, dtype=torch.bool)
    hidden[0, 3:5] = True
    vector = torch.randn(8)
    features, _ = model.features(x, mask, hidden=(hidden, vector))
    other, _ = model.features(x.masked_fill(hidden[..., None], 7), mask, hidden=(hidden, vector))
    assert torch.equal(features, other)
    assert not torch.allclose(features, model.features(x, mask)[0])
    assert not torch.allclose(features, model.features(x, mask, hidden=(hidden, 2 * vector))[0])


@pytest.mark.parametrize("name", ["lambda_resnet_tiny", "tiered_lambda_resnet"])
@pytest.mark.parametrize("head", ["classes", "labels", "numbers", "embedding"])
def test_pictures(name, head):
    options = {} if name == "lambda_resnet_tiny" else {"blocks": (1, 1), "width": 8, "placement": "L", "scope": 3}
    sizes = {"num_classes": None if head == "embedding" else 5}
    create = create_model if name == "lambda_resnet_tiny" else lambda _, **given: TieredLambdaResNet(**given)
    model = create(name, head=head, **sizes, **options).eval()
    x = torch.randn(4, 3, 16, 16)
    logits, channels = model(x), model.features(x).shape[1]
    assert logits.shape == (4, model.num_classes) == (4, channels if head == "embedding" else 5)
    goal = {"classes": torch.tensor([0, 4, 2, IGNORED]), "embedding": torch.randn(4, channels)}.get(
        head, torch.ones(4, 5)
    )
    model.objective.loss(logits, goal)[0].backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_pictures_have_no_positions():
    with pytest.raises(ValueError, match="head='positions' answers for each position of a sequence"):
        create_model("lambda_resnet_tiny", head="positions")
    with pytest.raises(ValueError, match=r"num_classes=10 does not apply to head='embedding'.* or give None"):
        create_model("lambda_resnet_tiny", head="embedding")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"head": "class"}, ValueError, r"head='class': did you mean 'classes'\? It is one of 'classes', 'labels'"),
        ({"head": 2}, ValueError, "head=2: expected one of 'classes'"),
        ({"head": "values"}, ValueError, "head='values': the network takes tokens.*use head='tokens'"),
        (
            {"head": "tokens", "stem": "waveform"},
            ValueError,
            "the network takes waveform, no tokens: use head='values'",
        ),
        ({"head": "tokens", "num_classes": 3}, ValueError, "num_classes=3 does not apply to head='tokens'"),
        ({"head": "embedding", "num_classes": 3}, ValueError, "num_classes=3 does not apply to head='embedding'"),
        ({"head": "positions", "pool": "max"}, ValueError, "pool='max' does not apply to head='positions'"),
        ({"head_options": {"tie": True}}, TypeError, "head='classes' has no option 'tie': it has label_smoothing"),
        ({"head": "positions", "head_options": {"tie": True}}, TypeError, "no option 'tie': it has label_smoothing"),
        ({"head": "embedding", "head_options": {"temperature": 0}}, ValueError, "temperature=0: expected a number"),
        (
            {"head": "tokens", "strides": [2], "head_options": {"tie": True}},
            ValueError,
            "tie=True: behind strides a vector is no token's",
        ),
    ],
)
def test_a_head_that_a_network_cannot_take(options, kind, message):
    with pytest.raises(kind, match=message):
        LambdaEncoder(**(TINY | options))


def test_a_head_of_ones_own():
    with pytest.raises(ValueError, match="name='classes' is a head already"):

        @register_head
        class Taken(Objective):
            name = "classes"
