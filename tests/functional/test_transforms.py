"""Forward mode, `torch.func` and per-sample gradients: those of the definition, or an error, never a wrong number."""

import pytest
import torch
from problems import EVERYWHERE, make
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

from lambda_seq import functional as LF

# torch's own, where forward mode decomposes operators
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

FAST = [name for name in EVERYWHERE if name not in ("auto", "naive")]
NAMES = ("query", "key", "value", "embedding")
CASES = {
    "sequence": {"size": (7,), "scope": (5,)},
    "masked, intra-depth": {"size": (6,), "scope": (3,), "intra": 2, "hidden": 0.3},
    "image, l2": {"size": (3, 2), "scope": (3, 5), "key_norm": "l2", "hidden": 0.3},
    "causal": {"size": (6,), "scope": (4,), "causal": True},
    "causal l2, masked, intra-depth": {
        "size": (6,), "scope": (9,), "causal": True, "key_norm": "l2", "hidden": 0.3, "intra": 2,
    },
    "causal, not normalised": {"size": (5,), "scope": (2,), "causal": True, "key_norm": "none"},
    "content only": {"size": (6,), "scope": None, "hidden": 0.3},
    "content only, causal": {"size": (6,), "scope": None, "causal": True, "hidden": 0.3},
    "position only": {"size": (7,), "scope": (3,), "content": False},
}  # fmt: skip
LONG = {"size": (300,), "scope": (3,), "causal": True, "hidden": 0.2, "scale": 20.0}


def problem(dim_key=2, dim_value=3, heads=2, **options):
    """A function of (tensors, algorithm), and the tensors that there are, detached."""
    inputs = make(**options, dim_key=dim_key, dim_value=dim_value, heads=heads)
    tensors = {name: getattr(inputs, name).detach() for name in NAMES if getattr(inputs, name) is not None}

    def function(tensors, algorithm, mask=inputs.mask):
        parts = (tensors.get(name) for name in NAMES)
        output = LF.lambda_layer(*parts, mask=mask, algorithm=algorithm, **inputs.options)
        return output if mask is None else output * mask[:, None, ..., None]

    return function, tensors


def both(transform, function, algorithm):
    """What a transform makes of the definition, and of an algorithm."""
    return (transform(lambda tensors, name=name: function(tensors, name)) for name in ("naive", algorithm))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize("case", [*CASES, "long"])
def test_tangents(case, algorithm):
    function, tensors = problem(**(LONG if case == "long" else CASES[case]))
    moved = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}
    (value, expected), (output, found) = both(lambda run: jvp(run, (tensors,), (moved,)), function, algorithm)
    close(output, value)
    close(found, expected)
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(tensor, moved[name]) for name, tensor in tensors.items()}
        close(forward_ad.unpack_dual(function(duals, algorithm)).tangent, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algorithm", ["banded", "fft"])
def test_the_tangent_of_one_input(name, algorithm):
    function, tensors = problem(**CASES["causal"])
    rest = {other: tensor for other, tensor in tensors.items() if other != name}
    moved = torch.randn_like(tensors[name])

    def tangent(run):
        return jvp(lambda x: run({**rest, name: x}), (tensors[name],), (moved,))[1]

    expected, found = both(tangent, function, algorithm)
    close(found, expected)


@pytest.mark.parametrize("jacobian", [jacfwd, jacrev])
@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize("case", CASES)
def test_jacobians(case, algorithm, jacobian):
    function, tensors = problem(**CASES[case])
    expected, found = both(lambda run: jacobian(run)(tensors), function, algorithm)
    close(found, expected)


@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_samples(case, algorithm):
    """Of each entry of the batch by itself, of the embedding too."""
    function, tensors = problem(**CASES[case], batch=3)
    dims = {name: None if name == "embedding" else 0 for name in tensors}

    def loss(run, tensors):
        entries = {name: tensor if name == "embedding" else tensor[None] for name, tensor in tensors.items()}
        return run(entries, mask=None).sin().sum()

    expected, found = (
        vmap(grad(lambda one, name=name: loss(lambda t, mask: function(t, name, mask), one)), (dims,))(tensors)
        for name in ("naive", algorithm)
    )
    assert all(found[name].shape[0] == 3 for name in found)
    close(found, expected)


@pytest.mark.parametrize("dims", [(0, None, 1, None), (None, 3, None, None), (None, None, None, 2), (4, 0, 2, 1)])
@pytest.mark.parametrize("case", ["sequence", "causal", "masked, intra-depth"])
def test_mapped_over_any_inputs(case, dims):
    function, tensors = problem(**CASES[case])
    mapped = dict(zip(NAMES, dims, strict=True))
    for name, dim in mapped.items():
        if dim is not None:
            tensors[name] = torch.stack([torch.randn_like(tensors[name]) for _ in range(3)], dim)
    expected, found = both(lambda run: vmap(run, (mapped,))(tensors), function, "auto")
    close(found, expected)


def test_mapped_masks():
    inputs = make((6,), (3,), causal=True, content=True)
    tensors = (inputs.query.detach(), inputs.key.detach(), inputs.value.detach(), inputs.embedding.detach())
    masks = torch.rand(4, 2, 6) > 0.3
    masks[..., 0] = True
    run = vmap(lambda mask: LF.lambda_layer(*tensors, mask=mask, causal=True) * mask[:, None, :, None])
    expected = [LF.lambda_layer(*tensors, mask=m, causal=True, algorithm="naive") * m[:, None, :, None] for m in masks]
    close(run(masks), torch.stack(expected))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("outer", [jacfwd, jacrev])
def test_second_derivatives_by_forward_mode(outer, packed):
    """They come of themselves where a tangent is made of outputs."""
    inputs = make((4,), (3,), batch=1, dim_key=2, dim_value=2, heads=1)
    tensors = {name: getattr(inputs, name).detach() for name in NAMES}
    packing = LF.Packing.of(torch.tensor([[0, 1, 1, 1]]))

    def function(tensors, algorithm):
        if packed:
            return LF.packed_lambda_layer(*tensors.values(), packing, algorithm=algorithm).sin().sum()
        return LF.lambda_layer(*tensors.values(), algorithm=algorithm).sin().sum()

    expected, found = both(lambda run: outer(jacfwd(run))(tensors), function, "auto")
    close(found, expected)


@pytest.mark.parametrize(
    ("order", "case"),
    [
        ((jacfwd, jacrev), "sequence"),
        ((jacrev, jacrev), "sequence"),
        ((jacfwd, jacrev), "causal"),
        ((jacrev, jacfwd), "causal"),
        ((jacfwd, jacfwd), "causal"),
    ],
)
def test_other_second_derivatives_are_refused(order, case):
    function, tensors = problem(**CASES[case])
    outer, inner = order
    with pytest.raises(RuntimeError, match="use algorithm='naive' for second derivatives"):
        outer(inner(lambda t: function(t, "auto").sin().sum()))(tensors)


@pytest.mark.parametrize("causal", [False, True])
def test_packed_documents(causal):
    inputs = make((12,), (5,), causal=causal, dim_key=2, dim_value=2, heads=2)
    packing = LF.Packing.of(torch.tensor([[0] * 5 + [1] * 7, [0] * 3 + [1] * 4 + [-1] * 5]))
    tensors = {name: getattr(inputs, name).detach() for name in NAMES}

    def function(tensors, algorithm):
        return LF.packed_lambda_layer(*tensors.values(), packing, algorithm=algorithm, **inputs.options)

    moved = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}
    for transform in (
        lambda run: jvp(run, (tensors,), (moved,))[1],
        lambda run: vjp(run, tensors)[1](inputs.grad[:, :2, :, :2]),
        lambda run: jacfwd(run)(tensors),
        lambda run: jacrev(run)(tensors),
        lambda run: vmap(run, ({"query": 0, "key": None, "value": 1, "embedding": None},))(
            {**tensors, "query": torch.stack([tensors["query"]] * 3), "value": torch.stack([tensors["value"]] * 3, 1)}
        ),
    ):
        expected, found = both(transform, function, "auto")
        close(found, expected)


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("kind", ["table", "exponentials"])
def test_streams(kind, key_norm):
    """Through the state from piece to piece, and mapped over streams."""
    inputs = make((7,), (7,), causal=True, dim_key=2, dim_value=2, heads=2, key_norm=key_norm)
    tensors = {name: getattr(inputs, name).detach() for name in NAMES[:3]}
    terms = LF.Exponentials(torch.rand(2).double(), torch.rand(1).double(), torch.randn(1, 2, 3).double())
    table = inputs.embedding.detach()
    embedding, kernel = (table, table) if kind == "table" else (terms, terms.kernel(7))

    def streamed(tensors):
        state, outputs = LF.StreamState.empty(tensors["key"], tensors["value"], embedding), []
        for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
            pieces = (tensors[name][:, :, part] for name in NAMES[:3])
            output, state = LF.stream(*pieces, embedding, state, key_norm=key_norm)
            outputs.append(output)
        return torch.cat(outputs, 2)

    def whole(tensors):
        return LF.lambda_layer(*tensors.values(), kernel, algorithm="naive", **inputs.options)

    moved = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}
    for transform in (
        lambda run: jvp(run, (tensors,), (moved,))[1],
        lambda run: jacfwd(run)(tensors),
        lambda run: jacrev(run)(tensors),
        lambda run: vmap(run)({name: torch.stack([tensor, -tensor]) for name, tensor in tensors.items()}),
    ):
        close(transform(streamed), transform(whole))


def test_functional_call_of_a_layer():
    """Per-sample gradients of parameters, as private training needs them."""
    from lambda_seq import LambdaLayer1d

    layer = LambdaLayer1d(8, heads=2, dim_key=2, scope=3, norm="rms", causal=True).double()
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    x = torch.randn(3, 6, 8, dtype=torch.float64)

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for index in range(3):
        loss_of_one = layer(x[index : index + 1]).square().sum()
        expected = torch.autograd.grad(loss_of_one, list(layer.parameters()))
        for name, gradient in zip(parameters, expected, strict=True):
            close(found[name][index], gradient)
