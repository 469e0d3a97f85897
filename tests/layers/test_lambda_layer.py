import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq import functional as LF
from lambda_seq.layers.biased import BiasedLambdaLayer2d

properties = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


LEAKS = pytest.mark.filterwarnings("ignore:norm='batch'")  # which causal layers say of it


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def spread(layer):
    """Norms with parameters that are not 0 and 1."""
    with torch.no_grad():
        for norm in (layer.norm_query, layer.norm_value):
            for parameter in norm.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def test_is_the_equation_in_the_docstring():
    layer = spread(LambdaLayer1d(12, 8, heads=2, dim_key=3, dim_intra=2, scope=5)).double().eval()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    queries, values, keys = layer.project.weight.split((6, 8, 6))
    query = layer.norm_query(x @ queries.T).view(2, 9, 2, 3).transpose(1, 2)
    value = layer.norm_value(x @ values.T).view(2, 9, 2, 4).transpose(1, 2)
    key = (x @ keys.T).view(2, 9, 2, 3).transpose(1, 2)
    expected = LF.lambda_layer(query, key, value, layer.position.weight, algorithm="naive")
    torch.testing.assert_close(layer(x), expected.transpose(1, 2).flatten(2))


@LEAKS
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer", "rms", "none"])
def test_a_bias_of_queries_is_a_static_convolution(norm, causal):
    options = {"heads": 2, "dim_key": 3, "scope": 5, "content": False, "norm": norm, "causal": causal}
    layer = LambdaLayer1d(8, query_bias=1.0, **options).double().eval()
    bias = layer.norm_query.bias if norm in ("batch", "layer") else layer.query_bias
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        layer.project.weight[:6] = 0  # no product with the input
    values = layer.norm_value(x @ layer.project.weight[6:].T)  # (B, N, V)
    kernels = torch.einsum("hk,kr->hr", bias.view(2, 3), layer.position.weight[0])
    padded = torch.nn.functional.pad(values, (0, 0, 4 if causal else 2, 0 if causal else 2))
    expected = torch.einsum("hr,bnvr->bnhv", kernels, padded.unfold(1, 5, 1)).flatten(2)
    torch.testing.assert_close(layer(x), expected)
    without = LambdaLayer1d(8, **options)
    names = set(layer.state_dict()) - set(without.state_dict())
    assert names == (set() if norm in ("batch", "layer") else {"query_bias"})


@LEAKS
@pytest.mark.parametrize(("norm", "std"), [("batch", 0.5), ("layer", 0.5), ("rms", 0.5), ("none", 0.125)])
def test_a_bias_of_queries_has_their_spread(norm, std):
    torch.manual_seed(1)
    plain = LambdaLayer2d(32, heads=8, dim_key=16, scope=3, norm=norm)
    torch.manual_seed(1)
    layer = LambdaLayer2d(32, heads=8, dim_key=16, scope=3, norm=norm, query_bias=0.5)
    bias = layer.norm_query.bias if norm in ("batch", "layer") else layer.query_bias
    assert bias.std().item() == pytest.approx(std, rel=0.25)
    for name, tensor in plain.state_dict().items():
        if name != "norm_query.bias":
            assert torch.equal(layer.state_dict()[name], tensor), name  # all else is drawn as without
    x = torch.randn(2, 32, 5, 6, requires_grad=True)
    layer(x).square().sum().backward()
    assert bias.grad.any()


def test_paper_initialisation_of_the_projections():
    layer = LambdaLayer1d(256, heads=8, dim_key=16)
    queries, values, keys = layer.project.weight.split(layer.parts)
    assert queries.std().item() == pytest.approx((16 * 256) ** -0.5, rel=0.05)
    assert values.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert keys.std().item() == pytest.approx(256**-0.5, rel=0.05)


@pytest.mark.parametrize("options", [{}, {"content": False}, {"position": False}, {"dim_intra": 3}, {"causal": True}])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
@pytest.mark.parametrize("query_norm", ["none", "softmax"])
def test_every_parameter_is_used(options, key_norm, query_norm):
    layer = LambdaLayer1d(8, 12, scope=5, key_norm=key_norm, query_norm=query_norm, **options)
    layer(torch.randn(2, 9, 8)).pow(3).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_switched_off_parts_own_nothing():
    def count(**options):
        return sum(parameter.numel() for parameter in LambdaLayer1d(16, scope=5, norm="none", **options).parameters())

    assert count(position=False) == 16 * (64 + 4 + 16)
    assert count(content=False) == 16 * (64 + 4) + 16 * 5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (9, 13)])
def test_any_height_and_width(size):
    layer = LambdaLayer2d(8, 12, scope=(5, 3)).eval()
    assert layer(torch.randn(2, 8, *size)).shape == (2, 12, *size)


def test_channels_last_memory_goes_in_and_out():
    layer = LambdaLayer2d(8, scope=3).eval()
    x = torch.randn(2, 8, 5, 7)
    output = layer(x.to(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, layer(x))


def test_a_sequence_is_an_image_of_height_one():
    line, image = LambdaLayer1d(8, scope=5).eval(), LambdaLayer2d(8, scope=(1, 5)).eval()
    state = line.state_dict()
    state["position.weight"] = state["position.weight"].unsqueeze(2)
    image.load_state_dict(state)
    x = torch.randn(2, 11, 8)
    torch.testing.assert_close(image(x.mT.unsqueeze(2)).squeeze(2).mT, line(x))


@LEAKS
@properties
@given(
    length=st.integers(2, 12),
    extra=st.integers(1, 9),
    norm=st.sampled_from(["batch", "layer", "rms", "none"]),
    causal=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_padding_changes_nothing_in_training(length, extra, norm, causal, seed):
    torch.manual_seed(seed)
    layer = LambdaLayer1d(8, scope=5, norm=norm, causal=causal).double()
    padded = torch.randn(3, length + extra, 8, dtype=torch.float64)
    mask = (torch.arange(length + extra) < length).expand(3, -1)
    weights = torch.randn(3, length, 8, dtype=torch.float64)
    results = []
    for x, given_mask in ((padded.clone(), mask), (padded[:, :length].clone(), None)):
        x.requires_grad_()
        layer.zero_grad()
        output = layer(x, given_mask)[:, :length]
        (output * weights).sum().backward()
        gradients = [parameter.grad.clone() for parameter in layer.parameters()]
        results.append([output.detach(), x.grad[:, :length], *gradients])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@LEAKS
@pytest.mark.parametrize("what", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("norm", ["batch", "layer", "rms", "none"])
@pytest.mark.parametrize("kind", ["sequence", "causal", "image", "documents"])
def test_what_stands_at_padding_reaches_neither_outputs_nor_gradients(kind, norm, what):
    """Not even where a gradient of zero is multiplied with it."""
    layer = (
        LambdaLayer2d(8, scope=3, norm=norm)
        if kind == "image"
        else (LambdaLayer1d(8, scope=4 if kind == "causal" else 5, norm=norm, causal=kind == "causal"))
    )
    shape = (4, 3) if kind == "image" else (12,)
    mask = torch.arange(12).view(shape) < torch.tensor([12, 7]).view(2, *[1] * len(shape))
    documents = torch.arange(12).ge(3).long().expand(2, -1) if kind == "documents" else None
    x = torch.randn(2, *shape, 8)
    found = []
    for padding in (0.0, what):
        layer.zero_grad()
        given = x.masked_fill(~mask[..., None], padding).requires_grad_()
        output = layer(given.movedim(-1, 1), mask).movedim(1, -1) if kind == "image" else layer(given, mask, documents)
        output[mask].square().sum().backward()
        found.append([output[mask].detach(), given.grad[mask], *(weight.grad for weight in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_bfloat16_autocast(norm):
    layer = LambdaLayer1d(8, scope=5, norm=norm)
    x = torch.randn(2, 9, 8, requires_grad=True)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x, torch.ones(2, 9, dtype=torch.bool))
    assert output.dtype in (torch.bfloat16, torch.float32)
    torch.testing.assert_close(output.float(), exact, rtol=0.1, atol=0.1)
    output.float().sum().backward()
    assert x.grad.isfinite().all()


def test_global_scope_takes_shorter_inputs():
    layer = LambdaLayer1d(8, scope=None, max_length=20).eval()
    assert layer(torch.randn(2, 7, 8)).shape == (2, 7, 8)
    layer = LambdaLayer2d(8, scope=None, max_size=(6, 9)).eval()
    assert layer(torch.randn(2, 8, 6, 4)).shape == (2, 8, 6, 4)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: LambdaLayer1d(8, scope=7, dim_intra=2, position_dropout=0.4), (2, 9, 8)),
        (lambda: LambdaLayer1d(8, scope=None, position="exponential", causal=True, position_dropout=0.4), (2, 9, 8)),
        (lambda: LambdaLayer2d(8, scope=(3, 5), position_dropout=0.4), (2, 8, 6, 7)),
        (lambda: BiasedLambdaLayer2d(8, scope=(3, 5), position_dropout=0.4), (2, 8, 6, 7)),
    ],
)
def test_whole_offsets_are_dropped_in_training(build, shape, monkeypatch):
    layer, seen = build(), []
    offset = layer.position(shape[1:-1] if len(shape) == 3 else shape[2:])
    whole = LF.lambda_layer

    def traced(query, key, value, embedding, **options):
        seen.append(embedding.detach())
        return whole(query, key, value, embedding, **options)

    monkeypatch.setattr(LF, "lambda_layer", traced)
    for _ in range(60):
        layer(torch.randn(shape))
    rates = []
    for embedding in seen:
        kept = (embedding != 0).all(0).all(0)
        assert torch.equal(kept, (embedding != 0).any(0).any(0))  # all depths of an offset, or none
        torch.testing.assert_close(embedding, offset * kept / 0.6)
        rates.append(1 - kept.double().mean())
    assert torch.stack(rates).mean().item() == pytest.approx(0.4, abs=0.08)
    layer.eval()(torch.randn(shape))
    assert torch.equal(seen[-1], offset)


def test_a_position_module_can_be_shared():
    first = LambdaLayer1d(8, scope=5)
    second = LambdaLayer1d(8, position=first.position)
    assert second.position.weight is first.position.weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": 4}, "scope=4: expected an odd number of positions, centred on the query; use 3 or 5"),
        ({"heads": 3}, "heads=3 does not divide dim_out=8: expected a divisor"),
        ({"dim_out": 10}, "heads=4 does not divide dim_out=10"),
        ({"heads": 0}, "heads=0: expected at least 1"),
        ({"dim_key": -1}, "dim_key=-1: expected at least 1"),
        ({"scope": None}, "scope=None is global.*give max_length=N"),
        ({"content": False, "position": False}, "content=False and position=False"),
        ({"key_norm": "sum"}, "key_norm='sum': expected one of 'softmax', 'l2', 'none'"),
        ({"query_norm": "l2"}, "query_norm='l2': expected one of 'none', 'softmax'"),
        ({"norm": "group"}, "norm='group': expected one of"),
        ({"query_bias": -1.0}, "query_bias=-1.0: expected a number of at least 0"),
        ({"query_bias": float("nan")}, "query_bias=nan: expected a number"),
        ({"position_dropout": 1.0}, "position_dropout=1.0: expected a rate"),
        (
            {"position_dropout": 0.1, "position": False},
            "position_dropout=0.1 with position=False: there are no offsets",
        ),
        ({"init": "ones"}, "init='ones': expected one of 'scaled', 'paper'"),
        ({"algorithm": "fast"}, "algorithm='fast': expected one of 'auto'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LambdaLayer1d(8, **options)


@pytest.mark.parametrize(
    ("x", "mask", "error", "message"),
    [
        (torch.zeros(2, 9, 7), None, ValueError, r"x has shape \(2, 9, 7\): expected \(B, N, dim\) with dim=8"),
        (torch.zeros(2, 8), None, ValueError, r"x has shape \(2, 8\): expected \(B, N, dim\)"),
        (torch.zeros(2, 9, 8, dtype=torch.long), None, TypeError, r"x is torch.int64.*use x.float\(\)"),
        (
            torch.zeros(2, 30, 8),
            None,
            ValueError,
            r"x has size 30 but the global position table covers 20.*max_length=30",
        ),
        (torch.zeros(2, 9, 8), torch.ones(2, 8, dtype=torch.bool), ValueError, r"mask has shape \(2, 8\).*\(2, 9\)"),
        (torch.zeros(2, 9, 8), torch.ones(2, 9), TypeError, r"mask is torch.float32.*use mask.bool\(\)"),
    ],
)
def test_bad_input(x, mask, error, message):
    with pytest.raises(error, match=message):
        LambdaLayer1d(8, scope=None, max_length=20)(x, mask)


def test_bad_images():
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 5, 6\): expected \(B, dim, H, W\) with dim=8"):
        LambdaLayer2d(8)(torch.zeros(2, 7, 5, 6))
    with pytest.raises(ValueError, match=r"covers \(4, 4\).*max_size=\(5, 4\)"):
        LambdaLayer2d(8, scope=None, max_size=(4, 4))(torch.zeros(2, 8, 5, 4))


def test_importing_the_library_imports_no_training_stack():
    code = (
        "import sys, lambda_seq; "
        "heavy = {'lightning', 'datasets', 'matplotlib', 'torchmetrics', 'tokenizers', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


class Unbounded(torch.nn.Module):
    """A user's own embedding, which says nothing but R: 1 / (1 + distance) for every offset."""

    def forward(self, size):
        return 1 / torch.arange(size[0], 0, -1, dtype=torch.float64).expand(2, 16, -1)


@pytest.mark.parametrize(
    "options",
    [
        {"scope": 6},
        {"scope": None, "max_length": 40},
        {"position": False},
        {"content": False, "scope": 3},
        {"position": "multiscale", "scope": 9},
        {"position": "multiscale", "scope": None, "max_length": 20},
        {"position": "multiscale", "scope": None},
        {"position": "exponential", "scope": None},
        {"position": "exponential", "scope": None, "content": False},
        {"position": Unbounded()},
        {"scope": 6, "query_bias": 1.0},
        {"position": "exponential", "scope": None, "query_bias": 0.5, "norm": "layer", "query_norm": "softmax"},
    ],
)
def test_step_equals_forward(options):
    layer = spread(LambdaLayer1d(8, 12, causal=True, dim_intra=2, **options)).double().eval()
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    state, outputs = layer.init_state(3), []
    for piece in x.split([1, 1, 17, 1, 20], 1):
        if piece.shape[1] == 1:
            output, state = layer.step(piece[:, 0], state)
            outputs.append(output[:, None])
        else:
            output, state = layer.step(piece, state)
            outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x), rtol=1e-10, atol=1e-10)


def test_steps_that_cannot_be():
    with pytest.raises(ValueError, match="causal=False: only a causal layer streams"):
        LambdaLayer1d(8).init_state(2)
    with pytest.warns(UserWarning, match="norm='batch'.* with causal=True: in training, .*'rms' or 'layer'"):
        layer = LambdaLayer1d(8, causal=True, scope=None, max_length=4, norm="batch")
    with pytest.raises(ValueError, match=r"norm='batch' in training mode.*call eval\(\)"):
        layer.init_state(2)
    layer.eval()
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1"):
        layer.init_state(0)
    state = layer.init_state(2)
    with pytest.raises(ValueError, match="x has batch 3 but the state has 2"):
        layer.step(torch.zeros(3, 8), state)
    with pytest.raises(ValueError, match=r"x has shape .*expected"):
        layer.step(torch.zeros(2, 7), state)
    _, state = layer.step(torch.zeros(2, 4, 8), state)
    with pytest.raises(ValueError, match="the global position table covers 4"):
        layer.step(torch.zeros(2, 8), state)


DOCUMENTS = torch.tensor([[0] * 5 + [1] * 1 + [2] * 7, [-1] * 2 + [0] * 6 + [-1] + [1] * 4, [-1] * 13, [3] * 13])
SPANS = [(0, 0, 5), (0, 5, 6), (0, 6, 13), (1, 2, 8), (1, 9, 13), (3, 0, 13)]  # row, begin, end of each document


def apart(x):
    """The documents of x (B, N, C) as a padded batch, and its mask."""
    longest = max(end - begin for _, begin, end in SPANS)
    batch = x.new_zeros(len(SPANS), longest, *x.shape[2:])
    mask = torch.zeros(len(SPANS), longest, dtype=torch.bool)
    for number, (row, begin, end) in enumerate(SPANS):
        batch[number, : end - begin] = x[row, begin:end]
        mask[number, : end - begin] = True
    return batch, mask


@LEAKS
@pytest.mark.parametrize("norm", ["batch", "layer", "rms", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {"scope": 5},
        {"scope": 4, "causal": True},
        {"scope": None, "max_length": 13, "dim_intra": 2},
        {"position": False, "key_norm": "l2"},
        {"content": False, "scope": 3},
        {"position": "multiscale", "scope": None},
        {"position": "exponential", "scope": None, "causal": True},
    ],
    ids=str,
)
def test_documents_are_as_if_alone_in_training(options, norm):
    layer = spread(LambdaLayer1d(8, 12, norm=norm, **options)).double()
    x, weights = torch.randn(4, 13, 8, dtype=torch.float64), torch.randn(4, 13, 12, dtype=torch.float64)
    weights = weights * (DOCUMENTS >= 0)[..., None]
    start = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    results = []
    for packed in (True, False):
        layer.zero_grad()
        layer.load_state_dict(start, strict=False)
        rows = x.clone().requires_grad_()
        if packed:
            output = apart(layer(rows, None, DOCUMENTS))[0]
        else:
            batch, mask = apart(rows)
            output = layer(batch, mask) * mask[..., None]
        (output * apart(weights)[0]).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        results.append({"output": output.detach(), "x": rows.grad, **gradients, **buffers})
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_documents_by_ids_or_as_a_packing():
    layer, x = LambdaLayer1d(8, scope=5).eval(), torch.randn(4, 13, 8)
    output = layer(x, None, LF.Packing.of(DOCUMENTS))
    assert torch.equal(layer(x, None, DOCUMENTS), output)
    assert torch.equal(layer(x, DOCUMENTS >= 0, DOCUMENTS.clamp_min(0)), output)
    assert not output[DOCUMENTS < 0].any()


def test_documents_that_do_not_fit():
    layer = LambdaLayer1d(8, scope=None, max_length=6)
    x = torch.zeros(1, 9, 8)
    assert layer(x, None, torch.arange(9)[None] // 5).shape == (1, 9, 8)  # the longest document counts, not the row
    with pytest.raises(ValueError, match=r"x has size 7 but the global position table covers 6"):
        layer(x, None, torch.arange(9)[None] // 7)
    with pytest.raises(ValueError, match=r"documents has shape \(1, 8\): expected \(1, 9\)"):
        layer(x, None, torch.zeros(1, 8, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"documents is torch.float32: expected integer ids"):
        layer(x, None, torch.zeros(1, 9))


def test_images_have_no_documents():
    with pytest.raises(ValueError, match="documents: only rows of sequences hold several, images do not; leave it out"):
        LambdaLayer2d(8)(torch.randn(1, 8, 3, 3), None, torch.zeros(1, 3, dtype=torch.long))
