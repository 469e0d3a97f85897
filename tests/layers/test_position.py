import pytest
import torch

from lambda_seq.layers import RelativePositionTable


def test_global_tables_give_shorter_inputs_their_middle():
    table = RelativePositionTable(1, 4, scope=None, max_size=(8,))
    assert table(torch.Size([8])).shape == (1, 4, 15)
    assert torch.equal(table(torch.Size([3])), table.weight[..., 5:10])


def test_causal_global_tables_end_at_offset_zero():
    table = RelativePositionTable(1, 4, scope=None, max_size=(8,), causal=True)
    assert table(torch.Size([8])).shape == (1, 4, 8)
    assert torch.equal(table(torch.Size([3])), table.weight[..., 5:])


def test_local_tables_drop_offsets_that_no_pair_of_positions_has():
    table = RelativePositionTable(2, 4, scope=(7, 3))
    assert table(torch.Size([9, 9])).shape == (2, 4, 7, 3)
    assert torch.equal(table(torch.Size([2, 1])), table.weight[:, :, 2:5, 1:2])


@pytest.mark.parametrize(
    ("options", "positions"),
    [({"scope": (7, 9)}, 63), ({"scope": None, "max_size": (400,)}, 400)],
)
def test_scaled_initialisation(options, positions):
    torch.manual_seed(0)
    scaled = RelativePositionTable(4, 64, **options).weight
    assert scaled.std().item() == pytest.approx(positions**-0.5, rel=0.05)
    paper = RelativePositionTable(4, 64, init="paper", **options).weight
    assert paper.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": (4,)}, "scope=4: expected an odd number of positions, centred on the query; use 3 or 5"),
        ({"scope": (3, 6)}, r"scope=\(3, 6\): expected an odd number"),
        ({"scope": (0,)}, "scope=0"),
        ({"scope": None}, "scope=None is global.*give max_length=N"),
        ({"scope": None, "max_size": (0,)}, "max_size=0: expected at least one position"),
        ({"scope": (3,), "init": "zeros"}, "init='zeros': expected one of 'scaled', 'paper'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        RelativePositionTable(1, 4, **options)
