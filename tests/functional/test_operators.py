"""What autograd, compile and export see: one operator, which saves its inputs only."""

import sys

import pytest
import torch
from problems import EVERYWHERE, make, relative
from torch.autograd.graph import saved_tensors_hooks

from lambda_seq import LambdaLayer1d
from lambda_seq import functional as LF
from lambda_seq.functional import operators
from lambda_seq.functional.api import AUTO, AUTO_WITH_CONTENT
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import as_image as image
from lambda_seq.functional.problem import origin
from lambda_seq.functional.scan import SCAN, scan

POSITION = {**{name: algorithm.operator for name, algorithm in REGISTRY.items() if name in EVERYWHERE}, "auto": AUTO}
CASES = [((13,), (5,), False), ((5, 7), (3, 5), False), ((9,), (4,), True)]


def as_image(inputs, causal):
    """The arguments that a position operator takes."""
    tensors = [inputs.query, inputs.value, inputs.embedding]
    if inputs.query.ndim == 4:
        tensors = [image(tensor.detach()).requires_grad_() for tensor in tensors]
    return (*tensors, origin(tensors[2].shape[2:], causal))


@pytest.mark.parametrize("name", POSITION)
@pytest.mark.parametrize(("size", "scope", "causal"), CASES)
def test_opcheck_position(name, size, scope, causal):
    torch.library.opcheck(POSITION[name].operator, as_image(make(size, scope, intra=2, causal=causal), causal))


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_opcheck_scan(key_norm):
    inputs = make((9,), None, intra=2, causal=True)
    query, key, value = inputs.query, inputs.key, inputs.value
    _, before = scan(query.detach(), key.detach(), value.detach(), key_norm)
    state = (before.sums.requires_grad_(), before.norm.requires_grad_(), before.top)
    torch.library.opcheck(SCAN.operator, (query, key, value, *state, key_norm))


@pytest.mark.parametrize("name", POSITION)
def test_saved_for_backward_are_the_inputs_only(name):
    inputs = make((64,), (7,), content=False)
    arguments = as_image(inputs, causal=False)
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        POSITION[name].entry(*arguments[:3])(*arguments)
    expected = {tensor.untyped_storage().data_ptr() for tensor in arguments[:3]}
    assert {tensor.untyped_storage().data_ptr() for tensor in saved} == expected


class TestWithContent:
    """The operator of both lambdas, for devices that have kernels for their sum; here it is added outside."""

    @pytest.fixture(autouse=True)
    def in_one_pass(self, monkeypatch):
        monkeypatch.setattr(sys.modules["lambda_seq.functional.api"], "_in_one_pass", lambda *_: True)

    @staticmethod
    def arguments(size, scope, **options):
        *tensors, first = as_image(make(size, scope, heads=2, **options), causal=False)
        lambdas = torch.randn(2, 4, 5, dtype=torch.float64).requires_grad_()
        return (*tensors, lambdas, first)

    @pytest.mark.parametrize(("size", "scope"), [((13,), (5,)), ((5, 7), (3, 5)), ((3,), (9,))])
    def test_opcheck(self, size, scope):
        torch.library.opcheck(AUTO_WITH_CONTENT.operator, self.arguments(size, scope, intra=2))

    @pytest.mark.parametrize("algorithm", ["auto", "banded", "fft"])
    @pytest.mark.parametrize(
        "options",
        [
            {"size": (37,), "scope": (7,), "hidden": 0.3, "intra": 2},
            {"size": (4, 5), "scope": (23, 23), "key_norm": "l2"},
            {"size": (1300,), "scope": (3,), "batch": 1},  # several parts of rows, and a rest
        ],
        ids=str,
    )
    def test_equals_the_definition(self, options, algorithm):
        inputs = make(**options)
        found, expected = (inputs.run_with_gradients(name) for name in (algorithm, "naive"))
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-10)

    def test_half_precision_is_as_good_as_the_definitions(self):
        inputs = make((700,), (5,), dtype=torch.bfloat16, heads=4)
        exact = make((1,), (1,))
        for name in ("query", "key", "value", "embedding"):
            setattr(exact, name, getattr(inputs, name).detach().double().requires_grad_())
        exact.grad, exact.mask, exact.options = inputs.grad.double(), None, inputs.options
        expected = exact.run_with_gradients("naive")
        for name, tensor in inputs.run_with_gradients("auto").items():
            assert relative(tensor, expected[name]) < 0.02, name

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode's own use
    def test_transforms(self):
        *tensors, first = self.arguments((9,), (3,))
        tensors = [tensor.detach() for tensor in tensors]
        plain = AUTO_WITH_CONTENT

        def ours(*given):
            return plain.entry(*given)(*given, first)

        def sum_of_both(query, value, embedding, lambdas):
            position = REGISTRY["banded"].operator.entry(query, value, embedding)(query, value, embedding, first)
            return position + torch.einsum("bhyxk,bkv->bhyxv", query, lambdas)

        for index in range(4):  # of one input, then of all
            moved = tuple(torch.randn_like(x) if i >= index else torch.zeros_like(x) for i, x in enumerate(tensors))
            for found, expected in zip(
                *(torch.func.jvp(f, tuple(tensors), moved) for f in (ours, sum_of_both)), strict=True
            ):
                torch.testing.assert_close(found, expected)
        stacked = [torch.stack([x, -2 * x, x.sin()]) for x in tensors]
        for dims in ((0, 0, None, 0), (None, 0, None, None), (0, None, 0, 0)):
            given = [x if dim is None else y for x, y, dim in zip(tensors, stacked, dims, strict=True)]
            found, expected = (
                torch.vmap(torch.func.grad(lambda *x, f=f: f(*x).sin().sum(), argnums=(0, 1, 2, 3)), dims)(*given)
                for f in (ours, sum_of_both)
            )
            torch.testing.assert_close(found, expected)

    @pytest.mark.slow
    def test_compiles_and_exports_as_one_node(self):
        inputs = make((13,), (5,), hidden=0.2)

        class Module(torch.nn.Module):
            def forward(self, *tensors):
                return LF.lambda_layer(*tensors, mask=inputs.mask)

        tensors = (inputs.query, inputs.key, inputs.value, inputs.embedding)
        expected = Module()(*tensors)
        found = torch.compile(Module(), fullgraph=True, backend="aot_eager")(*tensors)
        torch.testing.assert_close(found, expected)
        for one, other in zip(*(torch.autograd.grad(x, tensors, inputs.grad) for x in (found, expected)), strict=True):
            torch.testing.assert_close(one, other)
        program = torch.export.export(Module(), tuple(tensor.detach() for tensor in tensors))
        nodes = [str(node.target) for node in program.graph.nodes]
        assert sum("lambda_seq.layer" in node for node in nodes) == 1
        assert not any("lambda_seq.position" in node for node in nodes)
        torch.testing.assert_close(program.module()(*tensors), expected)


# inductor passes torch's folder to the C++ compiler unquoted
SPACE = pytest.mark.skipif(" " in torch.__file__, reason="torch's inductor fails in a folder whose name has a space")


@pytest.mark.slow(seconds=10)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own use
@pytest.mark.parametrize(
    ("size", "scope", "causal", "backend"),
    [
        *((*case, "aot_eager") for case in CASES),
        pytest.param(*CASES[-1], "inductor", marks=SPACE),  # a graph has the same operators for all sizes
    ],
)
def test_compiles_as_one_graph(size, scope, causal, backend):
    inputs = make(size, scope, causal=causal, hidden=0.2)

    def function(query, key, value, embedding, mask):
        return LF.lambda_layer(query, key, value, embedding, mask=mask, causal=causal)

    arguments = (inputs.query, inputs.key, inputs.value, inputs.embedding, inputs.mask)
    expected = function(*arguments)
    expected_gradients = torch.autograd.grad(expected, arguments[:4], inputs.grad)
    found = torch.compile(function, fullgraph=True, backend=backend)(*arguments)
    torch.testing.assert_close(found, expected)
    for gradient, wanted in zip(
        torch.autograd.grad(found, arguments[:4], inputs.grad), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scope", "causal"), CASES)
def test_exports(size, scope, causal):
    inputs = make(size, scope, causal=causal)

    class Module(torch.nn.Module):
        def forward(self, query, key, value, embedding):
            return LF.lambda_layer(query, key, value, embedding, causal=causal)

    arguments = tuple(tensor.detach() for tensor in (inputs.query, inputs.key, inputs.value, inputs.embedding))
    program = torch.export.export(Module(), arguments)
    assert any("lambda_seq" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Module()(*arguments))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode's own use
@pytest.mark.parametrize("causal", [False, True])
def test_transforms_in_compiled_programs(causal):
    inputs = make((9,), (3,), causal=causal)
    tensors = tuple(x.detach() for x in (inputs.query, inputs.key, inputs.value, inputs.embedding))
    moved = tuple(torch.randn_like(tensor) for tensor in tensors)

    def layer(*tensors):
        return LF.lambda_layer(*tensors, causal=causal)

    for function in (
        lambda *x: torch.func.jvp(layer, x, moved)[1],
        lambda *x: torch.func.grad(lambda *y: layer(*y).sin().sum())(*x),
        lambda *x: torch.vmap(layer, (None, None, None, 0))(*x[:3], torch.stack([x[3], -x[3]])),
    ):
        found = torch.compile(function, backend="aot_eager")(*tensors)
        torch.testing.assert_close(found, function(*tensors))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode's own use
@pytest.mark.parametrize("operator", [POSITION["auto"].operator, POSITION["fft"].operator])
def test_an_operator_by_itself_refuses_tangents(operator):
    """As compiled programs call it, where they would be lost."""
    *tensors, origin = as_image(make((13,), (5,)), causal=False)
    tensors = [tensor.detach() for tensor in tensors]
    with torch.autograd.forward_ad.dual_level():
        query = torch.autograd.forward_ad.make_dual(tensors[0], tensors[0])
        with pytest.raises(RuntimeError, match="has no forward mode"):
            operator(query, *tensors[1:], origin)


def traced(function, *tensors):
    return torch.jit.trace(function, tensors, check_trace=False)


# torch's, of what is compared and checked in Python, and of its own deprecation
TRACE = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.save` is:DeprecationWarning"),
]


class TestTraces:
    """`torch.jit.trace`: right at all sizes, or an error."""

    pytestmark = TRACE

    @pytest.mark.parametrize("algorithm", EVERYWHERE)
    @pytest.mark.parametrize(
        ("size", "scope", "causal"),
        [
            ((16,), (5,), False),
            ((16,), (7,), True),
            ((9,), None, True),
            ((9,), None, False),
            ((7, 6), (5, 3), False),
        ],
    )
    @pytest.mark.parametrize("hidden", [0.0, 0.3])
    def test_of_local_scope_and_content(self, size, scope, causal, hidden, algorithm):
        example = make(size, scope, causal=causal, hidden=hidden)

        def function(query, key, value, *rest):
            rest = list(rest)
            embedding = rest.pop(0) if scope else None
            mask = rest.pop() if rest else None
            options = {"mask": mask, "causal": causal, "algorithm": algorithm}
            return LF.lambda_layer(query, key, value, embedding, **options)

        def arguments(inputs):
            tensors = (inputs.query, inputs.key, inputs.value, inputs.embedding, inputs.mask)
            return [tensor.detach() for tensor in tensors if tensor is not None]

        program = traced(function, *arguments(example))
        for batch, factor in ((2, 1), (1, 3), (3, 0.25)):  # of the last, scopes reach beyond the input
            other = make(tuple(max(1, int(n * factor)) for n in size), scope, batch=batch, causal=causal, hidden=hidden)
            torch.testing.assert_close(program(*arguments(other)), function(*arguments(other)))

    @pytest.mark.parametrize(
        ("size", "scope", "causal"), [((8,), (15,), False), ((8,), (8,), True), ((4, 5), (3, 9), False)]
    )
    @pytest.mark.parametrize("algorithm", ["auto", "naive"])
    def test_of_an_embedding_for_one_size_are_refused(self, size, scope, causal, algorithm):
        inputs = make(size, scope, causal=causal)

        def function(query, value, embedding):
            return LF.lambda_layer(query, None, value, embedding, causal=causal, algorithm=algorithm)

        with pytest.raises(
            ValueError, match=r"just the offsets of inputs of size.*use torch\.export or torch\.compile"
        ):
            traced(function, inputs.query.detach(), inputs.value.detach(), inputs.embedding.detach())

    @pytest.mark.parametrize("position", ["table", "multiscale", "exponential"])
    @pytest.mark.parametrize("causal", [False, True])
    def test_of_global_layers_are_refused(self, position, causal):
        layer = LambdaLayer1d(8, heads=2, scope=None, max_length=32, position=position, causal=causal).eval()
        with pytest.raises(ValueError, match=r"use torch\.export or torch\.compile"):
            traced(layer, torch.randn(2, 12, 8))

    def test_of_documents_are_refused(self):
        layer = LambdaLayer1d(8, heads=2, scope=3).eval().requires_grad_(False)
        x, documents = torch.randn(2, 12, 8), torch.arange(12).div(5, rounding_mode="floor").expand(2, 12)
        with pytest.raises(ValueError, match="documents are packed by their ids"):
            traced(lambda x, documents: layer(x, documents=documents), x, documents)
        packing = LF.Packing.of(documents)
        with pytest.raises(ValueError, match="packing says where documents are"):
            traced(lambda x: layer(x, documents=packing), x)


def test_direct_convolutions_are_not_rounded_to_tf32(monkeypatch):
    """On a GPU torch lets cuDNN do that with float32, unless it is told not to."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with operators.without_tf32(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark
    with operators.without_tf32(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32
    monkeypatch.undo()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
    asked = []

    def without_tf32(device):
        asked.append(device)
        return operators.without_tf32(device)

    monkeypatch.setattr("lambda_seq.functional.position.convolution.without_tf32", without_tf32)
    make((5, 7), (3, 5)).run_with_gradients("convolution")
    assert asked == [torch.device("cpu")] * 2
