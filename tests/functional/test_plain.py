"""Plain forms of our operators against the definition, and that each operator has one."""

import pytest
import torch
from problems import CASES, make, relative

from lambda_seq.functional import reference
from lambda_seq.functional.api import AUTO, AUTO_WITH_CONTENT
from lambda_seq.functional.plain import correlation, decompositions, prefix
from lambda_seq.functional.plain.transform import FACTORS, SHORT, Transform
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import as_image, origin
from lambda_seq.functional.scan import SCAN, SCANS, ScanState
from lambda_seq.functional.summaries import SUMMARIES, SUMMARY

PLAIN = decompositions()
POSITIONS = [name for name, options in CASES.items() if options["scope"]]


def plain(name):
    return PLAIN[getattr(torch.ops.lambda_seq, name).default]


def tensors(case, **options):
    """Query, value, embedding of an image, the origin, and what the definition gives."""
    inputs = make(**{**CASES[case], "hidden": 0.0, **options})
    query, value, embedding = (tensor.detach() for tensor in (inputs.query, inputs.value, inputs.embedding))
    causal = inputs.options["causal"]
    expected = reference.position(query, value, embedding, None, causal)
    if query.ndim == 4:
        query, value, embedding, expected = (as_image(tensor) for tensor in (query, value, embedding, expected))
    return query, value, embedding, origin(embedding.shape[2:], causal), expected


@pytest.mark.parametrize("taps", [0, correlation.TAPS])
@pytest.mark.parametrize("case", POSITIONS)
def test_positions_equal_the_definition(case, taps, monkeypatch):
    """By transforms, whatever the scope, and by convolutions where it is narrow."""
    monkeypatch.setattr(correlation, "TAPS", taps)
    *arguments, expected = tensors(case)
    found = plain("position")(*arguments)
    assert relative(found, expected) < 1e-10
    assert found.stride() == AUTO.operator(*arguments).stride()


@pytest.mark.parametrize("length", [2, 700, 1700])
@pytest.mark.parametrize("causal", [False, True])
def test_long_transforms_are_exact_in_float32(length, causal):
    scope = length if causal else 2 * length - 1
    query, value = torch.randn(1, 2, 1, length, 3), torch.randn(1, 1, 1, length, 5)
    embedding = torch.randn(1, 3, 1, scope)
    found = plain("position")(query, value, embedding, (0, length - 1))
    wide = (tensor.double().squeeze(2) for tensor in (query, value, embedding))
    expected = reference.position(*wide, None, causal)
    assert relative(found.squeeze(2), expected) < 2e-6


@pytest.mark.parametrize("length", [1, 2, 37, SHORT, SHORT + 1, 3000])
def test_transforms_invert_and_convolve(length):
    transform = Transform([1, length], torch.zeros(1, dtype=torch.float64))
    x, kernel = torch.randn(2, 3, 1, length, dtype=torch.float64)
    spectra = [transform.forward((part, torch.zeros_like(part))) for part in (x, kernel)]
    back, nothing = transform.inverse(spectra[0], (0, 0), (1, length))
    assert relative(back, x) < 1e-12
    assert nothing.abs().max() < 1e-12
    counted = spectra[0][0].shape[-1]
    assert counted == length if length <= SHORT else counted % (FACTORS[0] * FACTORS[1]) == 0
    power = sum(part.square().sum() for part in spectra[0]) / counted
    torch.testing.assert_close(power, x.square().sum())


@pytest.mark.parametrize("key_norm", ["softmax", "l2", "none"])
@pytest.mark.parametrize("length", [1, 16, 83])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_scans_equal_ours_from_any_state(length, key_norm, scale):
    """Keys that rise steeply, too, of which weights would vanish relative to the last."""
    query, value = torch.randn(2, 3, length, 4).double(), torch.randn(2, 2, length, 5).double()
    key = scale * torch.randn(2, 2, length, 4).double()
    key[:, :, length // 2 :] += 3 * scale
    state = ScanState.empty(key, value)
    for _ in range(2):
        arguments = (query, key, value, state.sums, state.norm, state.top, key_norm)
        found, expected = plain("scan")(*arguments), SCAN.operator(*arguments)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        state = ScanState(*expected[1:])


def test_nothing_visible_gives_zeros():
    key = torch.full((1, 1, 20, 3), -torch.inf)
    state = ScanState.empty(key, torch.randn(1, 1, 20, 2))
    arguments = torch.randn(1, 2, 20, 3), key, torch.zeros(1, 1, 20, 2), state.sums, state.norm, state.top, "softmax"
    output, *_ = plain("scan")(*arguments)
    assert not output.any()


def test_blocks_of_blocks_of_states():
    """As many chunks as take all levels, however few they have."""
    query, key, value = (torch.randn(1, 1, 700, size).double() for size in (3, 3, 2))
    key[:, :, 300:] += 200
    state = ScanState.empty(key, value)
    arguments = (query, key, value, state.sums, state.norm, state.top, "softmax")
    expected = SCAN.operator(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "BLOCK", 3)
        found = plain("scan")(*arguments)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["odd length", "image"])
def test_a_content_lambda_is_added(case):
    *arguments, first, _ = tensors(case)
    content = torch.randn(2, 4, 5, dtype=torch.float64)
    found = plain("layer")(*arguments, content, first)
    torch.testing.assert_close(found, AUTO_WITH_CONTENT.operator(*arguments, content, first))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept(dtype):
    query, value, embedding, first, expected = tensors("odd length")
    found = plain("position")(*(tensor.to(dtype) for tensor in (query, value, embedding)), first)
    assert found.dtype == dtype
    assert relative(found, expected) < 4 * torch.finfo(dtype).eps


def test_every_operator_has_a_plain_form():
    ours = [AUTO, AUTO_WITH_CONTENT, SCAN, SUMMARY]
    ours += [operator for one in REGISTRY.values() for operator in (one.operator, one.operator_with_content)]
    ours += [one.operator for registry in (SCANS, SUMMARIES) for one in registry.values()]
    assert {str(key) for key in PLAIN} == {f"lambda_seq.{name}.default" for operator in ours for name in operator.names}
