"""Every attention layer against a naive twin, written from its equation with all pairs of positions."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lambda_seq.layers import attention
from lambda_seq.layers.attention import Attention, AxialAttention, LinearAttention, LocalAttention, RelativeAttention

DIM, SIZES = 12, [(1, 1), (5, 7), (6, 3), (1, 9)]


def projected(layer, x):
    """Queries, keys and values (B, h, n, d), and the coordinates of the positions (n, dims)."""
    flat = x.flatten(2).transpose(1, 2)  # (B, n, C)
    parts = [flat @ weight.T for weight in layer.project.weight.chunk(3)]
    coordinates = torch.tensor(list(itertools.product(*map(range, x.shape[2:]))))
    return [part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in parts], coordinates


def joined(output, x):
    return output.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)


def naive_linear(layer, x):
    (query, key, value), _ = projected(layer, x)
    return joined(torch.einsum("bhnd,bhmd,bhmv->bhnv", query.softmax(3), key.softmax(2), value), x)


def naive_relative(layer, x):
    (query, key, value), place = projected(layer, x)
    offset = place[None] - place[:, None]  # (n, m, dims), m − n
    relative = sum(  # (d, n, m)
        table.weight[0][:, offset[..., axis] + table.max_size[0] - 1] for axis, table in enumerate(layer.positions)
    )
    logits = torch.einsum("bhnd,bhmd->bhnm", query, key) + torch.einsum("bhnd,dnm->bhnm", query, relative)
    return joined(torch.einsum("bhnm,bhmv->bhnv", (logits / math.sqrt(layer.depth)).softmax(-1), value), x)


def naive_axial(layer, x):
    rows = torch.stack([naive_relative(layer.rows, x[:, :, y]) for y in range(x.shape[2])], 2)
    return torch.stack([naive_relative(layer.columns, rows[..., column]) for column in range(x.shape[3])], 3)


def naive_local(layer, x):
    (query, key, value), place = projected(layer, x)
    offset = place[None] - place[:, None]
    half = torch.tensor(layer.scope) // 2
    index = (offset + half).clamp_min(0).minimum(2 * half)
    relative = torch.cat([layer.row[index[..., 0]], layer.column[index[..., 1]]], -1)  # (n, m, d)
    logits = torch.einsum("bhnd,bhmd->bhnm", query, key) + torch.einsum("bhnd,nmd->bhnm", query, relative)
    logits = (logits / math.sqrt(layer.depth)).masked_fill((offset.abs() > half).any(-1), -math.inf)
    return joined(torch.einsum("bhnm,bhmv->bhnv", logits.softmax(-1), value), x)


LAYERS = {
    "linear": (lambda heads, size: LinearAttention(DIM, heads), naive_linear),
    "global": (
        lambda heads, size: RelativeAttention(DIM, heads=heads, max_size=(size[0] + 1, size[1])),
        naive_relative,
    ),
    "axial": (lambda heads, size: AxialAttention(DIM, heads=heads, max_size=(size[0], size[1] + 2)), naive_axial),
    "local": (lambda heads, size: LocalAttention(DIM, heads=heads, scope=(3, 5)), naive_local),
}


def build(kind, size=(5, 7), heads=3, dtype=torch.float64):
    torch.manual_seed(0)
    return LAYERS[kind][0](heads, size).to(dtype)


@torch.no_grad()
def test_linear_attention_over_a_million_positions_keeps_float32():
    torch.manual_seed(0)
    layer = LinearAttention(4, heads=1)
    query, key, value = (torch.randn(1, 1, 10**6, 4) for _ in range(3))
    wide = layer.attend(query.double(), key.double(), value.double() + 1)
    torch.testing.assert_close(layer.attend(query, key, value + 1).double(), wide, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_local_attention_is_the_same_by_windows(size, monkeypatch):
    layer, x = build("local", size), torch.randn(2, DIM, *size, dtype=torch.float64, requires_grad=True)
    grad, found = torch.randn_like(x), []
    for small in (0, 10**9):
        monkeypatch.setattr(attention, "SMALL", small)
        output = layer(x)
        found.append([output, *torch.autograd.grad(output, [x, *layer.parameters()], grad)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
    monkeypatch.setattr(attention, "SMALL", 0)
    torch.testing.assert_close(layer(x), naive_local(layer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_equals_the_naive_twin(kind, heads, size):
    layer = build(kind, size, heads)
    x = torch.randn(2, DIM, *size, dtype=torch.float64, requires_grad=True)
    output, expected = layer(x), LAYERS[kind][1](layer, x)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(output)
    inputs = [x, *layer.parameters()]
    for mine, naive in zip(
        torch.autograd.grad(output, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, naive, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision(kind, dtype):
    """float32 to 1e-5; bfloat16 within twice the error of the twin."""
    layer, x = build(kind), torch.randn(2, DIM, 5, 7, dtype=torch.float64)
    expected = layer(x)
    layer.to(dtype)
    error = (layer(x.to(dtype)).double() - expected).abs().max()
    if dtype == torch.float32:
        assert error <= 1e-5 * expected.abs().max()
    else:
        assert error <= 2 * (LAYERS[kind][1](layer, x.to(dtype)).double() - expected).abs().max()


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast_and_memory_format(kind):
    layer, x = build(kind, dtype=torch.float32), torch.randn(2, DIM, 5, 7)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    output.float().square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())


def test_permuted_pixels_permute_linear_attention():
    layer, x, order = build("linear"), torch.randn(2, DIM, 30, dtype=torch.float64), torch.randperm(30)
    torch.testing.assert_close(layer(x[..., order]), layer(x)[..., order])


@pytest.mark.parametrize("kind", ["global", "axial"])
def test_positions_are_what_tells_pixels_apart(kind):
    layer, x = build(kind), torch.randn(1, DIM, 5, 7, dtype=torch.float64)
    order = torch.randperm(7)
    assert not torch.allclose(layer(x[..., order]), layer(x)[..., order])
    for name, parameter in layer.named_parameters():
        if "positions" in name:
            torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(layer(x[..., order]), layer(x)[..., order])


@pytest.mark.parametrize("kind", ["global", "axial"])
def test_smaller_pictures_use_the_middle_of_the_tables(kind):
    large, small = build(kind, (9, 8)), build(kind, (4, 5))
    small.load_state_dict({**large.state_dict(), **{k: v for k, v in small.state_dict().items() if "positions" in k}})
    tables = dict(large.named_modules())
    for name, module in small.named_modules():
        if "positions." in name:
            module.weight.data = tables[name](module.max_size).data
    x = torch.randn(2, DIM, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(large(x), small(x))


def test_resized_tables_keep_the_size_of_their_values():
    """Softmax normalises over positions, however many there are: nothing is divided by their number."""
    for kind, tables in (("global", 2), ("axial", 2)):
        layer = build(kind)
        positions = [module for name, module in layer.named_modules() if "positions." in name]
        for table in positions:
            torch.nn.init.ones_(table.weight)
        layer.resize((10, 14))
        assert layer.max_size == (10, 14)
        assert len(positions) == tables
        for table in positions:
            torch.testing.assert_close(table.weight, torch.ones_like(table.weight))
        assert layer(torch.randn(1, DIM, 10, 14, dtype=torch.float64)).shape == (1, DIM, 10, 14)


def test_a_sequence_is_a_picture_of_one_row():
    line, picture = RelativeAttention(DIM, heads=3, max_size=(9,)), RelativeAttention(DIM, heads=3, max_size=(2, 9))
    picture.project, picture.positions[1] = line.project, line.positions[0]
    x = torch.randn(2, DIM, 9)
    torch.testing.assert_close(picture(x[:, :, None])[:, :, 0], line(x))


def test_local_attention_is_translation_equivariant():
    layer, x = build("local"), torch.randn(1, DIM, 12, 12, dtype=torch.float64)
    moved = layer(x.roll((2, 3), (2, 3)))
    torch.testing.assert_close(moved[..., 4:-2, 6:-3], layer(x).roll((2, 3), (2, 3))[..., 4:-2, 6:-3])


@pytest.mark.parametrize(
    ("kind", "moved"),
    [("linear", (5, 7)), ("global", (5, 7)), ("axial", (5, 7)), ("local", (3, 5))],
)
def test_which_outputs_one_pixel_moves(kind, moved):
    layer, x = build(kind), torch.randn(1, DIM, 5, 7, dtype=torch.float64)
    other = x.clone()
    other[:, :, 2, 3] += 1
    changed = (layer(other) - layer(x)).abs().amax(1)[0] > 1e-9
    expected = torch.zeros(5, 7, dtype=torch.bool)
    (rows, columns) = moved
    expected[2 - rows // 2 : 3 + rows // 2, 3 - columns // 2 : 4 + columns // 2] = True
    assert torch.equal(changed, expected)


def test_global_attention_is_fused():
    """The kernel of linear memory takes it, forward and backward; it refuses what it cannot do."""
    layer, x = build("global", dtype=torch.float32), torch.randn(1, DIM, 5, 7)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        layer(x).sum().backward()


def test_equal_keys_average_the_values():
    """Without logits global attention is the mean over the picture, local attention over the real part of a window."""
    x = torch.randn(1, DIM, 5, 7)
    for kind in ("global", "local"):
        layer = build(kind, dtype=torch.float32)
        torch.nn.init.zeros_(layer.project.weight[: 2 * DIM].detach())
        values = F.conv2d(x, layer.project.weight[2 * DIM :, :, None, None])
        if kind == "global":
            expected = values.mean((2, 3), keepdim=True).expand_as(values)
        else:
            expected = F.avg_pool2d(values, (3, 5), 1, (1, 2), count_include_pad=False)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearAttention(12, 5), r"heads=5 does not divide dim=12: expected a divisor"),
        (lambda: LinearAttention(12, 0), r"heads=0: expected at least 1"),
        (lambda: RelativeAttention(12, heads=3, max_size=(0, 4)), r"max_size=0: expected at least one position"),
        (lambda: LocalAttention(12, heads=3, scope=4), r"scope=4: expected an odd number of pixels"),
        (lambda: LocalAttention(12, heads=3, scope=(3, 3, 3)), r"scope=\(3, 3, 3\): expected an int or a pair"),
        (lambda: LocalAttention(12, heads=4), r"heads=4 of dim=12 have depth 3: expected an even one.*; use heads=2"),
        (lambda: build("global")(torch.zeros(1, DIM, 9, 7)), r"x has size \(9, 7\) but .* cover max_size=\(6, 7\)"),
        (lambda: build("axial")(torch.zeros(1, DIM, 6, 7)), r"size \(6, 7\) but .*max_size=\(5, 9\).*resize"),
        (lambda: build("global")(torch.zeros(1, DIM, 5)), r"shape \(1, 12, 5\): expected 2 dimensions of positions"),
        (lambda: build("axial")(torch.zeros(1, 9, 5, 7)), r"shape \(1, 9, 5, 7\): .* C = dim=12"),
        (lambda: build("local")(torch.zeros(1, DIM, 5)), r"shape \(1, 12, 5\): expected \(B, C, H, W\)"),
        (lambda: build("linear")(torch.zeros(1, 9, 5, 7)), r"shape \(1, 9, 5, 7\): .* C = dim=12"),
    ],
)
def test_failures(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_type(kind):
    with pytest.raises(TypeError, match=r"x is torch\.int64: expected a floating point tensor"):
        build(kind)(torch.zeros(1, DIM, 5, 7, dtype=torch.int64))


def test_the_base_class_says_what_is_missing():
    layer = Attention(4, 2)
    with pytest.raises(NotImplementedError, match="attend"):
        layer(torch.zeros(1, 4, 3))
    with pytest.raises(NotImplementedError, match="multiply_adds"):
        layer.multiply_adds((3,))


@pytest.mark.parametrize("kind", LAYERS)
def test_printing(kind):
    assert "12, heads=3" in repr(build(kind))
