"""The operator that stands for the sums over all positions where "auto" may take a kernel, on torch's operations."""

from collections import Counter

import pytest
import torch
from problems import make
from torch.utils._python_dispatch import TorchDispatchMode

from lambda_seq import functional as LF
from lambda_seq.functional import summaries
from lambda_seq.functional.applying import apply, even
from lambda_seq.functional.content import content_lambda
from lambda_seq.functional.scan import ScanState
from lambda_seq.functional.summaries import SUMMARIES

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode's


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("causal", [False, True])
def test_the_operator_is_the_function_that_it_stands_for(key_norm, causal, monkeypatch):
    inputs = make((600,), None, intra=2, key_norm=key_norm, hidden=0.3, causal=causal)
    expected = inputs.run_with_gradients("auto")
    monkeypatch.setattr(summaries, "kernels", lambda *where: dict.fromkeys(SUMMARIES, (1.0, 1.0)))
    torch.testing.assert_close(inputs.run_with_gradients("auto"), expected)


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_opcheck(key_norm):
    inputs = make((9,), None, intra=2)
    torch.library.opcheck(summaries.SUMMARY.operator, (inputs.key, inputs.value, key_norm))


@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_transforms_of_functions(key_norm):
    inputs = make((9,), None, batch=3, intra=2)
    key, value = inputs.key.detach(), inputs.value.detach()
    moved = torch.randn_like(key), torch.randn_like(value)

    def function(key, value):
        return summaries.SUMMARY.entry(key, value)(key, value, key_norm)

    def plain(key, value):
        return summaries.plain(key, value, key_norm)

    def lambdas(key, value):
        return content_lambda(ScanState(*function(key, value)), key_norm)

    assert torch.autograd.gradcheck(lambdas, (inputs.key, inputs.value))
    for operator, expected in zip(
        torch.func.jvp(function, (key, value), moved), torch.func.jvp(plain, (key, value), moved), strict=True
    ):
        torch.testing.assert_close(operator[:2], expected[:2])
    mapped = torch.vmap(function, in_dims=(1, None))(key[:, None].expand(-1, 2, -1, -1, -1), value)
    torch.testing.assert_close(mapped, tuple(one.expand(2, *one.shape) for one in plain(key, value)))


@pytest.mark.parametrize(("count", "part"), [(65536, 512), (4 * 56 * 56, 448), (56 * 56, 448), (2003, 512), (300, 300)])
def test_parts_leave_no_rest_where_they_can(count, part):
    assert even(count) == part


@pytest.mark.skipif(torch.__version__ < (2, 9), reason="the backward pass of torch 2.8 copies two slices all the same")
def test_pictures_are_not_copied_for_their_last_positions():
    """Of 12,544 rows 512 leave half a part, which took two copies of the output, and three more backward."""
    query, position = (torch.randn(1, 4, 56, 56, size, requires_grad=True) for size in (16, 8))
    lambdas = torch.randn(1, 16, 8, requires_grad=True)
    with Operations() as made:
        apply(query, lambdas, position).sum().backward()
    assert made["aten.cat.default"] == made["aten.slice_backward.default"] == 0


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __getitem__(self, name):
        return self.counts[name]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))
