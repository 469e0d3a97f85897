import pytest
import torch

from lambda_seq.models.drop import StochasticDepth, depth_rates


def test_whole_samples_are_dropped_and_the_mean_is_kept():
    torch.manual_seed(0)
    out = StochasticDepth(0.25)(torch.ones(4000, 2, 3))
    per_sample = out.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.03)


def test_nothing_is_dropped_in_eval_mode_or_at_rate_zero():
    x = torch.randn(5, 2)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0)(x) is x


def test_rates_grow_linearly():
    assert depth_rates(0.2, 5) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert depth_rates(0.2, 1) == [0]
