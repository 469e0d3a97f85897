import pytest
import torch

from lambda_seq import LambdaLayer1d
from lambda_seq import functional as LF
from lambda_seq.layers import (
    POSITIONS,
    ExponentialPosition,
    MultiScalePosition,
    PositionEmbedding,
    RelativePositionTable,
    make_position,
)


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


@pytest.mark.parametrize("kind", [RelativePositionTable, MultiScalePosition, ExponentialPosition])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"intra": 0}, ValueError, "intra=0: expected at least 1"),
        ({"dim_key": -1}, ValueError, "dim_key=-1: expected at least 1"),
        ({"dim_key": 4.0}, TypeError, "dim_key=4.0: expected an integer; use 4"),
        ({"causal": "yes"}, TypeError, "causal='yes': expected True or False"),
        ({"max_size": 9}, TypeError, r"max_size=9: expected an integer for each dimension in a tuple; use \(9,\)"),
        ({"max_size": ()}, TypeError, r"max_size=\(\): expected an integer for each dimension"),
        ({"max_size": (9.0,)}, TypeError, "max_size=9.0: expected an integer; use 9"),
    ],
)
def test_sizes_of_all_kinds(kind, options, error, message):
    scope = {} if kind is ExponentialPosition else {"scope": None}
    with pytest.raises(error, match=message):
        kind(**{"intra": 1, "dim_key": 4, **scope, **options})


def test_reach_is_how_far_a_query_looks_back():
    assert RelativePositionTable(1, 4, scope=(7,)).reach == 3
    assert RelativePositionTable(1, 4, scope=(6,), causal=True).reach == 5
    assert RelativePositionTable(1, 4, scope=None, max_size=(8,), causal=True).reach == 7


def test_streaming_a_table_takes_the_offsets_there_are():
    table = RelativePositionTable(1, 4, scope=(6,), causal=True)
    assert torch.equal(table.streaming(2), table.weight[..., 4:])
    assert torch.equal(table.streaming(100), table.weight)


def test_own_embeddings_must_say_what_they_are():
    with pytest.raises(NotImplementedError, match=r"Own has no forward\(size\): define it"):
        type("Own", (PositionEmbedding,), {})()((3,))


def test_kinds_by_name():
    made = [make_position(kind, 1, 4, dims=1, scope=None, max_size=(9,)) for kind in POSITIONS]
    assert [type(position) for position in made] == [RelativePositionTable, MultiScalePosition, ExponentialPosition]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"position": "sine"},
            "position='sine': expected one of 'table', 'multiscale', 'exponential', True for 'table'",
        ),
        ({"position": None}, "position=None: expected one of"),
        ({"position": "exponential"}, "position='exponential' with scope=23: .*use scope=None"),
        ({"position": "multiscale", "init": "paper"}, "init='paper' with position='multiscale': only position='table'"),
        ({"position": "multiscale", "init": "zeros"}, "init='zeros': expected one of"),
        ({"position": "table", "scope": None}, "scope=None is global.*give max_length=N"),
        (
            {"position": RelativePositionTable(1, 16, scope=(3,)), "causal": True},
            "position is an embedding with causal=False but the layer has causal=True",
        ),
    ],
)
def test_positions_that_do_not_fit_the_layer(options, message):
    with pytest.raises(ValueError, match=message):
        LambdaLayer1d(8, **options)


# What every kind of embedding must do, in layers and alone

KINDS = {
    "table": lambda dims, causal: RelativePositionTable(2, 3, scope=None, max_size=(12,) * dims, causal=causal),
    "local multiscale": lambda dims, causal: MultiScalePosition(
        2, 3, scope=(7,) * dims, causal=causal, dims=dims, taps=2
    ),
    "multiscale": lambda dims, causal: MultiScalePosition(2, 3, max_size=(9,) * dims, causal=causal, dims=dims, taps=3),
    "exponential": lambda dims, causal: ExponentialPosition(
        2, 3, max_size=(9,) * dims, causal=causal, dims=dims, terms=5
    ),
}
SHAPES = [(1, False), (1, True), (2, False)]
kinds = pytest.mark.parametrize("kind", KINDS)
shapes = pytest.mark.parametrize(("dims", "causal"), SHAPES)


def embedding_of(kind, dims, causal=False):
    torch.manual_seed(0)
    return KINDS[kind](dims, causal).double()


def problem(size, *, intra=2, dim_key=3):
    torch.manual_seed(1)
    query = torch.randn(2, 2, *size, dim_key, dtype=torch.float64)
    return query, torch.randn(2, intra, *size, 2, dtype=torch.float64)


@kinds
@shapes
def test_layer_functions_with_them_are_the_definition(kind, dims, causal):
    size = (11,) if dims == 1 else (5, 7)
    position = embedding_of(kind, dims, causal)
    query, value = problem(size)
    weights = torch.randn(2, 2, *size, 2, dtype=torch.float64)
    results = []
    for algorithm in ("naive", "auto", "fft"):
        position.zero_grad()
        inputs = [tensor.clone().requires_grad_() for tensor in (query, value)]
        output = LF.lambda_layer(inputs[0], None, inputs[1], position(size), causal=causal, algorithm=algorithm)
        (output * weights).sum().backward()
        gradients = [tensor.grad for tensor in [*inputs, *position.parameters()]]
        results.append([output.detach(), *(gradient.clone() for gradient in gradients)])
    for found in results[1:]:
        for ours, exact in zip(found, results[0], strict=True):
            torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-10)


@kinds
@shapes
def test_gradients_of_their_parameters(kind, dims, causal):
    size = (4,) if dims == 1 else (2, 3)
    position = embedding_of(kind, dims, causal)
    names = [name for name, _ in position.named_parameters()]

    def embed(*parameters):
        return torch.func.functional_call(position, dict(zip(names, parameters, strict=True)), (size,))

    assert torch.autograd.gradcheck(embed, tuple(position.parameters()))


@kinds
@shapes
def test_values_do_not_depend_on_the_size(kind, dims, causal):
    position = embedding_of(kind, dims, causal)
    sizes = [(n,) for n in (1, 2, 5, 8, 12)] if dims == 1 else [(1, 1), (3, 2), (5, 8), (12, 7)]
    widest = position((12,) * dims)
    for size in sizes:
        embedding = position(size)
        cropped = widest
        for axis, taps in enumerate(embedding.shape[2:], start=2):
            surplus = cropped.shape[axis] - taps
            cropped = cropped.narrow(axis, surplus if causal else surplus // 2, taps)
        torch.testing.assert_close(embedding, cropped, rtol=1e-14, atol=1e-14)
        for taps, length in zip(embedding.shape[2:], size, strict=True):
            assert taps <= (length if causal else 2 * length - 1)


@kinds
def test_a_sequence_is_an_image_of_height_one(kind):
    line, image = embedding_of(kind, 1), embedding_of(kind, 2)
    with torch.no_grad():
        if kind == "exponential":
            image.weight[0].copy_(line.weight)
            image.raw_rate[1].copy_(line.raw_rate[0])
            image.raw_frequency[1].copy_(line.raw_frequency[0])
            image.scale.copy_(line.scale)
        elif kind == "table":
            image.weight[:, :, 11].copy_(line.weight)
        else:
            image.scales = line.scales
            for wide, narrow in zip(image.weights, line.weights, strict=True):
                wide[:, :, wide.shape[2] // 2].copy_(narrow)
    torch.testing.assert_close(image((1, 9)).squeeze(2), line((9,)))


@kinds
@shapes
def test_moving_the_input_moves_the_output(kind, dims, causal):
    size = (12,) if dims == 1 else (6, 7)
    shift = (3,) if dims == 1 else (1, 2)
    position = embedding_of(kind, dims, causal)
    query, value = (torch.zeros(1, 2, *size, depth, dtype=torch.float64) for depth in (3, 2))
    part = tuple(slice(0, length - step) for length, step in zip(size, shift, strict=True))
    query[(..., *part, slice(None))] = torch.randn(1, 2, *(one.stop for one in part), 3, dtype=torch.float64)
    value[(..., *part, slice(None))] = torch.randn(1, 2, *(one.stop for one in part), 2, dtype=torch.float64)
    axes = tuple(range(2, 2 + dims))
    embedding = position(size)
    output = LF.lambda_layer(query, None, value, embedding, causal=causal)
    moved = LF.lambda_layer(query.roll(shift, axes), None, value.roll(shift, axes), embedding, causal=causal)
    assert output.abs().max() > 0.1
    torch.testing.assert_close(moved, output.roll(shift, axes), rtol=1e-10, atol=1e-10)


@kinds
def test_causal_ones_see_no_later_position(kind):
    position = embedding_of(kind, 1, causal=True)
    query, value = problem((10,))
    value.requires_grad_()
    output = LF.lambda_layer(query, None, value, position((10,)), causal=True)
    (gradient,) = torch.autograd.grad(output[:, :, 4].sum(), value)
    assert not gradient[:, :, 5:].any()
    assert gradient[:, :, 4].all()


@kinds
def test_their_parameters_are_saved_and_loaded(kind):
    position, other = embedding_of(kind, 1), embedding_of(kind, 1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    position.load_state_dict(other.state_dict())
    assert torch.equal(position((9,)), other((9,)))
