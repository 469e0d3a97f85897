"""A position embedding of one's own: a class with a name, and nothing else."""

import pytest
import torch
from torch import nn

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLayer2d, create_model
from lambda_seq.layers import POSITIONS, PositionEmbedding, make_position
from lambda_seq.layers.positions.registry import described, needs_size, without_size


@pytest.fixture
def constant():
    class Constant(PositionEmbedding, kind="constant"):
        """R[u, k, d] = w[u, k]."""

        summary = "one for all offsets"

        def __init__(self, intra, dim_key, *, dims, scope, max_size, causal):
            super().__init__()
            self.scope, self.causal = scope, causal
            self.weight = nn.Parameter(torch.randn(intra, dim_key))

        def forward(self, size):
            taps = self.scope or [length if self.causal else 2 * length - 1 for length in size]
            return self.weight[(..., *[None] * len(taps))].expand(*self.weight.shape, *taps)

    yield Constant
    del POSITIONS["constant"]


def test_a_class_with_a_name_is_an_option_of_layers_and_networks(constant):
    assert list(POSITIONS) == ["table", "multiscale", "exponential", "constant"]
    assert described().endswith('"constant", one for all offsets')
    assert without_size() == "'multiscale' or 'exponential' or 'constant'"
    assert needs_size("table", None)
    assert needs_size(True, None)
    assert not needs_size("constant", None)
    assert not needs_size("table", 3)
    assert isinstance(make_position("constant", 1, 4, dims=1, scope=(3,)), constant)
    for layer, x in (
        (LambdaLayer1d(8, scope=None, position="constant"), torch.randn(2, 9, 8)),
        (LambdaLayer1d(8, scope=3, position="constant", causal=True), torch.randn(2, 9, 8)),
        (LambdaLayer2d(8, scope=None, position="constant"), torch.randn(2, 8, 5, 4)),
        (create_model("lambda_resnet_tiny", position="constant"), torch.randn(2, 3, 8, 8)),
        (LambdaEncoder(dim=8, scope=None, position="constant"), torch.randint(9, (2, 9))),
    ):
        assert any(isinstance(module, constant) for module in layer.modules())
        layer(x).sum().backward()
    with pytest.raises(ValueError, match="init='paper' with position='constant': only position='table' has it"):
        LambdaLayer1d(8, position="constant", init="paper")
    with pytest.raises(ValueError, match=r"position='sine': expected one of 'table', .*'constant', True for"):
        LambdaLayer1d(8, position="sine")


def test_it_streams(constant):
    layer = LambdaLayer1d(8, scope=None, position="constant", causal=True).eval()
    x, state = torch.randn(2, 7, 8), layer.init_state(2)
    outputs = []
    for place in range(7):
        output, state = layer.step(x[:, place], state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), layer(x))


def test_a_name_is_taken_once(constant):
    with pytest.raises(ValueError, match="kind='table' is a RelativePositionTable already"):

        class Other(PositionEmbedding, kind="table"):
            pass
