"""A sequence in pieces has the gradients of the whole, through the state between them; a detached state ends them."""

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLM
from lambda_seq import functional as LF
from lambda_seq.functional import chunks
from lambda_seq.functional.scan import ScanState, scan

SEQUENCES = ("query", "key", "value")
KINDS = ("content", "table", "content and table", "exponentials", "content and exponentials")
LENGTHS = {"one by one": [1] * 17, "odd": [3, 5, 1, 7, 1], "longer than the scope": [9, 8], "mixed": [1, 14, 1, 1]}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def filled_with_nan(monkeypatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def problem(kind, batch=2, heads=3, intra=2, dim_key=4, dim_value=5, length=17, scope=5):
    """Leaves that want gradients; `key` only with content."""
    sizes = {"query": (heads, dim_key), "value": (intra, dim_value)}
    if "content" in kind:
        sizes["key"] = (intra, dim_key)
    leaves = {name: torch.randn(batch, count, length, depth) for name, (count, depth) in sizes.items()}
    if "table" in kind:
        leaves["table"] = torch.randn(intra, dim_key, scope)
    if "exponentials" in kind:
        leaves |= {"rates": 0.02 + torch.rand(5), "frequencies": 2 * torch.rand(2)}
        leaves["coefficients"] = torch.randn(intra, dim_key, 7)
    return {name: leaf.double().requires_grad_() for name, leaf in leaves.items()}


def embedding_of(leaves):
    if "rates" in leaves:
        return LF.Exponentials(leaves["rates"], leaves["frequencies"], leaves["coefficients"])
    return leaves.get("table")


def whole(leaves, key_norm, algorithm="naive"):
    embedding, length = embedding_of(leaves), leaves["query"].shape[2]
    if isinstance(embedding, LF.Exponentials):
        embedding = embedding.kernel(length)
    options = {"causal": True, "key_norm": key_norm, "algorithm": algorithm}
    return LF.lambda_layer(leaves["query"], leaves.get("key"), leaves["value"], embedding, **options)


def in_pieces(leaves, lengths, key_norm="softmax", state=None, between=lambda state: state):
    """Outputs of all pieces, and the last state."""
    embedding = embedding_of(leaves)
    state = LF.StreamState.empty(leaves.get("key"), leaves["value"], embedding) if state is None else state
    outputs = []
    for start, length in zip(torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False):
        part = slice(start, start + length)
        parts = [leaves[name][:, :, part] if name in leaves else None for name in SEQUENCES]
        output, state = LF.stream(*parts, embedding, between(state), key_norm=key_norm)
        outputs.append(output)
    return torch.cat(outputs, 2) if outputs else None, state


def gradients(output, leaves, **options):
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return torch.autograd.grad((output * weights).sum() + output.square().sum(), list(leaves.values()), **options)


def close(found, expected):
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, **EXACT)


@pytest.mark.usefixtures("filled_with_nan")
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_have_the_gradients_of_the_whole(kind, lengths, key_norm):
    leaves = problem(kind)
    expected = whole(leaves, key_norm)
    found, state = in_pieces(leaves, LENGTHS[lengths], key_norm)
    torch.testing.assert_close(found, expected, **EXACT)
    assert state.seen == 17
    close(gradients(found, leaves), gradients(expected, leaves))


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_state_has_the_gradients_of_one_piece(kind, lengths, key_norm):
    leaves = problem(kind)
    (_, one), (_, many) = in_pieces(leaves, [17], key_norm), in_pieces(leaves, LENGTHS[lengths], key_norm)
    results = []
    for state in (one, many):
        top = getattr(state.content, "top", None)
        kept = [leaf for leaf in pytree.tree_leaves(state) if leaf is not top]
        loss = sum((leaf * torch.linspace(0, 1, leaf.numel()).view(leaf.shape)).square().sum() for leaf in kept)
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        results.append((kept, grads))
    for first, second in zip(*results, strict=True):
        close(first, second)
    assert any(grad.any() for grad in results[0][1])


@pytest.mark.parametrize(("seen", "length"), [(4, 1), (4, 2), (3, 9), (0, 1), (0, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_state_before(kind, seen, length):
    """Each of its tensors is an input as any other, also before the first position is seen."""
    leaves = problem(kind, batch=1, heads=2, dim_key=2, dim_value=2, length=seen + length)
    _, state = in_pieces(leaves, [seen] if seen else [])
    state = state.detach()
    tensors, structure = pytree.tree_flatten(state)
    tops = [tensor is getattr(state.content, "top", None) for tensor in tensors]
    moving = [tensor.requires_grad_() for tensor, top in zip(tensors, tops, strict=True) if not top and tensor.numel()]

    def outputs(*moved):
        rest = iter(moved)
        given = [x if top or not x.numel() else next(rest) for x, top in zip(tensors, tops, strict=True)]
        later = {name: leaf[:, :, seen:].detach() if name in SEQUENCES else leaf for name, leaf in leaves.items()}
        output, after = in_pieces(later, [length], state=pytree.tree_unflatten(given, structure))
        return output, *(x for x in pytree.tree_leaves(after) if x.requires_grad and x.numel())

    if moving:  # a table's state is empty in the beginning
        assert torch.autograd.gradcheck(outputs, moving)


@pytest.mark.parametrize("length", [1, 6])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_the_content_scan_itself(key_norm, length):
    leaves = [torch.randn(2, count, length, depth).double() for count, depth in ((3, 4), (2, 4), (2, 5))]
    state = [torch.rand(2, 2, 4, 5).double(), 1 + torch.rand(2, 2, 1, 4).double()]
    top = torch.zeros(2, 2, 1, 4).double()
    inputs = [tensor.requires_grad_() for tensor in (*leaves, *state)]

    def function(query, key, value, sums, norm):
        output, after = scan(query, key, value, key_norm, ScanState(sums, norm, top))
        return output, *((after.sums, after.norm) if key_norm != "softmax" else (after.sums / after.norm.mT,))

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("second", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_state_ends_gradients(kind, second):
    leaves = problem(kind, length=8 + second)
    lengths = [8, second]
    cut, _ = in_pieces(leaves, lengths, between=LF.StreamState.detach)
    close([cut], [in_pieces(leaves, lengths)[0]])
    sequences = {name: leaf for name, leaf in leaves.items() if name in SEQUENCES}
    found = torch.autograd.grad(cut[:, :, 8:].sum(), list(sequences.values()))
    through = torch.autograd.grad(in_pieces(leaves, lengths)[0][:, :, 8:].sum(), list(sequences.values()))
    for name, one, other in zip(sequences, found, through, strict=True):
        assert not one[:, :, :8].any()
        torch.testing.assert_close(one[:, :, 8:], other[:, :, 8:], **EXACT)
        assert name == "query" or other[:, :, :8].any()


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_of_a_batch_is_a_stream(kind):
    leaves = problem(kind, batch=3)
    together, state = in_pieces(leaves, LENGTHS["odd"])
    for row in range(3):
        alone = {name: leaf[row : row + 1] if name in SEQUENCES else leaf for name, leaf in leaves.items()}
        output, own = in_pieces(alone, LENGTHS["odd"])
        torch.testing.assert_close(output, together[row : row + 1], **EXACT)
        for one, all_of_them in zip(pytree.tree_leaves(own), pytree.tree_leaves(state), strict=True):
            torch.testing.assert_close(one, all_of_them[row : row + 1], **EXACT)


def test_hidden_keys_and_large_ones_one_by_one():
    """Nothing visible gives zeros; a maximum that rises by more than exp can hold leaves what is seen after it."""
    leaves = problem("content", length=6)
    with torch.no_grad():
        leaves["key"][0, :, :2] = -torch.inf
        leaves["key"][1, :, 3] = 5000.0
        leaves["key"][1, :, 5] = -5000.0
    with torch.no_grad():
        found, _ = in_pieces(leaves, [1] * 6)
    assert not found[0, :, :2].any()
    torch.testing.assert_close(found[:, :, 2:], whole(leaves, "softmax", "auto")[:, :, 2:].detach(), **EXACT)
    exact = whole(leaves, "softmax")[1].detach()
    torch.testing.assert_close(found[1], exact, **EXACT)
    close(
        gradients(in_pieces(leaves, [1] * 6)[0][:, :, 2:], leaves),
        gradients(in_pieces(leaves, [6])[0][:, :, 2:], leaves),
    )


class Operators(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


LAYERS = {
    "content": {"position": False},
    "table": {"scope": 5},
    "multiscale": {"scope": 40, "position": "multiscale"},
    "exponential": {"scope": None, "position": "exponential"},
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_position_is_one_step_of_a_recurrence(kind):
    """As few operations after a long context as after a short one, none that waits for the device, no chunks."""
    layer = LambdaLayer1d(16, heads=2, causal=True, **LAYERS[kind]).eval()
    names = []
    with torch.inference_mode():
        for length in (50, 500):
            _, state = layer.step(torch.randn(1, length, 16), layer.init_state(1))
            layer.step(torch.randn(1, 16), state)  # what is kept is made
            with Operators() as computed:
                layer.step(torch.randn(1, 16), state)
            names.append(computed.names)
    assert names[0] == names[1]
    assert len(names[0]) < 80
    assert not any(word in name for name in names[0] for word in ("lambda_seq", "_local_scalar_dense", "cos", "lerp"))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_trained_in_pieces(kind, lengths):
    layer = LambdaLayer1d(8, heads=2, causal=True, dim_intra=2, **LAYERS[kind]).double().train()
    x = torch.randn(2, 17, 8, dtype=torch.float64, requires_grad=True)
    weights = [x, *layer.parameters()]
    state, outputs = layer.init_state(2), []
    for piece in x.split(LENGTHS[lengths], 1):
        output, state = layer.step(piece, state)
        outputs.append(output)
    found, expected = torch.cat(outputs, 1), layer(x)
    torch.testing.assert_close(found, expected, **EXACT)
    close(*(torch.autograd.grad(output.square().sum(), weights) for output in (found, expected)))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_language_model_is_trained_in_pieces(kind):
    model = LambdaLM(vocab_size=11, dim=8, depth=2, heads=2, **LAYERS[kind]).double().train()
    tokens = torch.randint(0, 11, (2, 17))
    state, outputs = model.init_state(2), []
    for piece in tokens.split([5, 1, 8, 3], 1):
        output, state = model.step(piece, state)
        outputs.append(output)
    found, expected = torch.cat(outputs, 1), model(tokens)
    torch.testing.assert_close(found, expected, **EXACT)
    weights = list(model.parameters())
    close(*(torch.autograd.grad(output.square().sum(), weights) for output in (found, expected)))
    kept = state.detach()
    assert type(kept) is type(state)
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(kept))
    assert any(leaf.requires_grad for leaf in pytree.tree_leaves(state))


def test_an_encoder_state_is_differentiable():
    model = LambdaEncoder(
        stem="features", in_channels=3, dim=8, depth=1, heads=2, scope=4, causal=True, strides=(2,), num_classes=3
    )
    model = model.double().train()
    x = torch.randn(2, 12, 3, dtype=torch.float64, requires_grad=True)
    _, state = model.step(x[:, :7], model.init_state(2))
    (through,) = torch.autograd.grad(model.step(x[:, 7:], state)[0].sum(), x, retain_graph=True)
    (cut,) = torch.autograd.grad(model.step(x[:, 7:], state.detach())[0].sum(), x)
    (whole,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(through, whole, **EXACT)
    assert not cut[:, :7].any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
def test_a_step_compiles_as_one_graph(kind):
    layer = LambdaLayer1d(8, heads=2, causal=True, **LAYERS[kind]).eval()
    with torch.no_grad():
        _, state = layer.step(torch.randn(2, 50, 8), layer.init_state(2))
        compiled, x = torch.compile(layer.step, fullgraph=True, backend="aot_eager"), torch.randn(2, 8)
        for _ in range(3):
            found, after = compiled(x, state)
            expected, state = layer.step(x, state)
            torch.testing.assert_close(found, expected)
            for one, other in zip(pytree.tree_leaves(after), pytree.tree_leaves(state), strict=True):
                torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("rows", "length"), [(4, 1024), (32, 1024), (33, 512), (128, 512), (2048, 128), (10**6, 128)])
def test_chunks_of_a_gpu_are_longer_and_their_products_bounded(rows, length):
    assert chunks.length_of(torch.device("cuda"), rows) == length
    assert length == 128 or rows * length**2 <= chunks.FLOATS
    assert chunks.length_of(torch.device("cpu"), rows) == chunks.CHUNK


@pytest.mark.parametrize("scale", [1.0, 60.0])  # the greater is so steep that chunks are cut
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_long_chunks_compute_what_short_ones_do(key_norm, scale, monkeypatch):
    query, key, value = torch.randn(2, 2, 700, 4), scale * torch.randn(2, 2, 700, 4), torch.randn(2, 2, 700, 3)
    leaves = {"query": query.requires_grad_(), "key": key.requires_grad_(), "value": value.requires_grad_()}
    found = []
    for length in (128, 512, 1024):
        monkeypatch.setattr("lambda_seq.functional.scan.length_of", lambda device, rows, length=length: length)
        output, _ = scan(*leaves.values(), key_norm)
        found.append([output, *torch.autograd.grad(output.square().sum(), list(leaves.values()))])
    for others in found[1:]:
        for one, other in zip(others, found[0], strict=True):
            assert (one - other).norm() <= 1e-5 * other.norm()
