"""What autograd, compile and export see: one operator, which saves its inputs only."""

import pytest
import torch
from problems import make
from torch.autograd.graph import saved_tensors_hooks

from lambda_seq import functional as LF
from lambda_seq.functional.dispatch import POSITION
from lambda_seq.functional.scan import advance, scan_from

CASES = [((13,), (5,), False), ((5, 7), (3, 5), False), ((9,), (4,), True)]


def as_image(inputs, causal):
    """The arguments that a position operator takes."""
    tensors = [inputs.query, inputs.value, inputs.embedding]
    if inputs.query.ndim == 4:
        tensors = [tensor.detach().unsqueeze(2).requires_grad_() for tensor in tensors]
    scope = tensors[2].shape[2:]
    return (*tensors, [0, scope[1] - 1] if causal else [(taps - 1) // 2 for taps in scope])


@pytest.mark.parametrize("name", POSITION)
@pytest.mark.parametrize(("size", "scope", "causal"), CASES)
def test_opcheck_position(name, size, scope, causal):
    torch.library.opcheck(POSITION[name], as_image(make(size, scope, intra=2, causal=causal), causal))


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_opcheck_scan(key_norm):
    inputs = make((9,), None, intra=2, causal=True)
    query, key, value = (
        tensor.detach().unsqueeze(2).requires_grad_() for tensor in (inputs.query, inputs.key, inputs.value)
    )
    _, before = advance(query.detach(), key.detach(), value.detach(), key_norm)
    state = (before.sums.requires_grad_(), before.norm.requires_grad_(), before.top)
    torch.library.opcheck(scan_from, (query, key, value, *state, key_norm))


@pytest.mark.parametrize("name", POSITION)
def test_saved_for_backward_are_the_inputs_only(name):
    inputs = make((64,), (7,), content=False)
    arguments = as_image(inputs, causal=False)
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        POSITION[name](*arguments)
    expected = {tensor.untyped_storage().data_ptr() for tensor in arguments[:3]}
    assert {tensor.untyped_storage().data_ptr() for tensor in saved} == expected


# inductor passes torch's folder to the C++ compiler unquoted
SPACE = pytest.mark.skipif(" " in torch.__file__, reason="torch's inductor fails in a folder whose name has a space")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own use
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=SPACE)])
@pytest.mark.parametrize(("size", "scope", "causal"), CASES)
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
