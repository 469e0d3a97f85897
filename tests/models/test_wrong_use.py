"""What is given wrongly, and the words that say what would be right: for layers, blocks and networks alike."""

import re

import numpy as np
import pytest
import torch

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLayer2d, LambdaLM, LambdaResNet, create_model
from lambda_seq.layers.attention import LocalAttention, RelativeAttention
from lambda_seq.models import TieredLambdaResNet
from lambda_seq.models.sequence.blocks import Block, FeedForward, LambdaMixing

SMALL = {"dim": 8, "depth": 1, "heads": 2}
PICTURES = {"blocks": (1, 1), "width": 8, "stem": "small", "heads": 2}


def layer(**options):
    return LambdaLayer1d(**{"dim": 8, "heads": 2, **options})


def layer2(**options):
    return LambdaLayer2d(**{"dim": 8, "heads": 2, **options})


def encoder(**options):
    return LambdaEncoder(**{**SMALL, **options})


def lm(**options):
    return LambdaLM(**{**SMALL, **options})


def resnet(**options):
    return LambdaResNet(**{**PICTURES, **options})


def timms(**options):
    return TieredLambdaResNet(**{"blocks": (1, 1), "width": 8, "heads": 2, "placement": "L", **options})


ALL = (layer, layer2, encoder, lm, resnet, timms)
LAMBDAS = (layer, layer2, encoder, lm, resnet)
SEQUENCES = (layer, encoder, lm)
IMAGES = (layer2, resnet)

# builders, options, error, words
OPTIONS = [
    (ALL, {"heads": 4.0}, TypeError, "heads=4.0: expected an integer; use 4"),
    (ALL, {"heads": "4"}, TypeError, "heads='4': expected an integer; use 4"),
    (ALL, {"heads": True}, TypeError, "heads=True: expected an integer"),
    (ALL, {"heads": None}, TypeError, "heads=None: expected an integer"),
    (ALL, {"heads": 0}, ValueError, "heads=0: expected at least 1"),
    (ALL, {"heads": 3}, ValueError, "heads=3 does not divide"),
    (ALL, {"dim_key": 16.5}, TypeError, "dim_key=16.5: expected an integer"),
    (ALL, {"dim_key": np.float64(16)}, TypeError, "dim_key=.*16.0.*: expected an integer; use 16"),
    (LAMBDAS, {"dim_intra": [1]}, TypeError, r"dim_intra=\[1\]: expected an integer"),
    (LAMBDAS, {"content": 1}, TypeError, "content=1: expected True or False"),
    (LAMBDAS, {"content": "no"}, TypeError, "content='no': expected True or False"),
    (LAMBDAS, {"key_norm": "sum"}, ValueError, "key_norm='sum': expected one of 'softmax', 'l2', 'none'"),
    (LAMBDAS, {"query_norm": None}, ValueError, "query_norm=None: expected one of"),
    (ALL, {"scope": 3.0}, TypeError, "scope=3.0: expected an integer; use 3"),
    (ALL, {"scope": "31"}, TypeError, "scope='31': expected an integer; use 31"),
    (ALL, {"scope": True}, TypeError, "scope=True: expected an integer"),
    (SEQUENCES[:1], {"scope": (31,)}, TypeError, r"scope=\(31,\): expected an integer, .* one dimension; use 31"),
    (SEQUENCES[:1], {"scope": (3, 5)}, TypeError, r"scope=\(3, 5\): expected an integer, as sequences have one dim"),
    (
        SEQUENCES[1:],
        {"scope": (3, 5)},
        ValueError,
        r"scope=\[3, 5\] has 2 entries: expected one for each of the depth=1",
    ),
    (SEQUENCES[1:], {"scope": [[3]]}, TypeError, r"scope=\[3\]: expected an integer"),
    (IMAGES, {"scope": (3, 5, 7)}, ValueError, r"scope=\(3, 5, 7\): expected an int or a pair"),
    (IMAGES, {"scope": (3, 5.0)}, TypeError, r"scope=5.0: expected an integer; use 5"),
    (
        ALL,
        {"scope": 0},
        ValueError,
        r"scope=(0|\(0, 0\)): expected (an odd number of positions.*; use 1 or 3|at least 1)",
    ),
    ((layer, layer2, encoder), {"scope": 0}, ValueError, r"scope=.*use 1 or 3"),
    ((lm,), {"scope": 0}, ValueError, r"scope=0: expected at least 1 position, the query's own, .*; use 1"),
    ((layer, layer2, encoder), {"scope": -4}, ValueError, r"scope=.*use 1 or 3"),
    ((layer, layer2, encoder), {"scope": 6}, ValueError, r"scope=.*use 5 or 7"),
    ((layer, encoder), {"causal": "yes"}, TypeError, "causal='yes': expected True or False"),
    ((layer, encoder), {"causal": 1}, TypeError, "causal=1: expected True or False"),
    (
        (layer,),
        {"max_length": 20},
        ValueError,
        "max_length=20 with scope=23: a local scope takes any length; .*scope=None",
    ),
    ((layer,), {"max_length": 20, "scope": 5}, ValueError, "max_length=20 with scope=5"),
    ((layer2,), {"max_size": 20}, ValueError, "max_size=20 with scope=23: a local scope takes any size"),
    (SEQUENCES, {"max_length": 20.0, "scope": None}, TypeError, "max_length=20.0: expected an integer; use 20"),
    (SEQUENCES, {"max_length": 0, "scope": None}, ValueError, "(max_length|max_size)=0: expected at least"),
    ((layer2,), {"max_size": (5,), "scope": None}, ValueError, r"max_size=\(5,\): expected an int or a pair"),
    (
        (resnet, timms),
        {"image_size": "224", "scope": None},
        TypeError,
        "image_size='224': expected an integer; use 224",
    ),
    ((resnet, timms), {"image_size": (8, 0), "scope": None}, ValueError, r"image_size=\(8, 0\): expected at least one"),
    (
        SEQUENCES,
        {"position": "exponential"},
        ValueError,
        r"position='exponential' with scope=(23|31): .* the default where none was given, .*; use scope=None",
    ),
    (SEQUENCES, {"position": "sine"}, ValueError, "position='sine': expected one of 'table'"),
    ((encoder, lm), {"depth": 2.0}, TypeError, "depth=2.0: expected an integer; use 2"),
    ((encoder, lm), {"ff_ratio": "2"}, TypeError, "ff_ratio='2': expected a number"),
    ((encoder, lm), {"ff_ratio": None}, ValueError, "ff_ratio=None: expected a number above 0"),
    ((lm,), {"tie": "no"}, TypeError, "tie='no': expected True or False"),
    ((encoder, lm, resnet), {"norm": "group"}, ValueError, "norm='group': expected one of 'batch'"),
    ((encoder, lm), {"block_norm": "group"}, ValueError, "block_norm='group': expected one of 'batch'"),
    ((encoder, lm, resnet), {"init": "zeros"}, ValueError, "init='zeros': expected one of 'scaled'"),
    ((encoder, lm), {"ff_ratio": float("nan")}, ValueError, "ff_ratio=nan: expected a number"),
    ((encoder, lm, resnet, timms), {"dropout": "0.1"}, TypeError, "dropout='0.1': expected a number"),
    ((encoder, lm, resnet, timms), {"dropout": 1.0}, ValueError, "dropout=1.0: expected a rate"),
    ((encoder,), {"strides": [4.0]}, TypeError, r"strides\[0\]=4.0: expected an integer; use 4"),
    ((resnet, timms), {"blocks": 3}, TypeError, "blocks=3: expected the number of blocks of each stage"),
    ((resnet, timms), {"blocks": (1, 2.0)}, TypeError, r"blocks\[1\]=2.0: expected an integer; use 2"),
    ((resnet, timms), {"zero_init_last": "no"}, TypeError, "zero_init_last='no': expected True or False"),
    ((resnet,), {"se": "0.1"}, TypeError, "se='0.1': expected a number"),
]


@pytest.mark.parametrize(
    ("build", "options", "error", "words"),
    [(build, *rest) for builders, *rest in OPTIONS for build in builders],
    ids=lambda given: getattr(given, "__name__", None) or str(given)[:40],
)
def test_options(build, options, error, words):
    with pytest.raises(error, match=words):
        build(**options)


@pytest.mark.parametrize("build", ALL, ids=lambda build: build.__name__)
def test_integers_of_numpy_are_integers(build):
    build(heads=np.int64(2), dim_key=np.int32(4), scope=np.int64(3))


def test_other_modules_of_blocks():
    mixing = LambdaMixing(layer())
    for options, error, words in (
        ({"ff_ratio": "2"}, TypeError, "ff_ratio='2': expected a number"),
        ({"dropout": None}, TypeError, "dropout=None: expected a number"),
        ({"norm": "group"}, ValueError, "norm='group': expected one of"),
    ):
        with pytest.raises(error, match=words):
            Block(mixing, 8, **options)
    with pytest.raises(TypeError, match=r"scope=7.0: expected an integer; use 7"):
        LocalAttention(8, scope=7.0)
    with pytest.raises(TypeError, match=r"max_size=7.0: expected an integer"):
        RelativeAttention(8, max_size=(7.0,))
    assert FeedForward(8, 0.01, 0.0).inner.out_features == 1


# Inputs

VECTORS = torch.randn(2, 5, 8)
IMAGE = torch.randn(2, 8, 4, 3)
TAKES = {  # what takes vectors (B, N, C) with C = 8, and what takes images (B, C, H, W)
    "layer": (lambda: layer(), VECTORS),
    "causal layer": (lambda: layer(causal=True), VECTORS),
    "mixing": (lambda: LambdaMixing(layer()), VECTORS),
    "features": (lambda: encoder(stem="features", in_channels=8), VECTORS),
    "strided features": (lambda: encoder(stem="features", in_channels=8, strides=(2,)), VECTORS),
    "waveform": (lambda: encoder(stem="waveform", in_channels=8), VECTORS),
    "layer2": (lambda: layer2(), IMAGE),
    "resnet": (lambda: resnet(in_channels=8), IMAGE),
    "timms": (lambda: timms(in_channels=8), IMAGE),
    "local attention": (lambda: LocalAttention(8, heads=2), IMAGE),
}
TOKENS = {"encoder": lambda: encoder(), "strided encoder": lambda: encoder(strides=(2,)), "lm": lambda: lm()}

# what is made of a right input, error, words
INPUTS = [
    (lambda x: x.tolist(), TypeError, r"x is list: expected a floating point tensor; use torch.as_tensor\(x\)"),
    (lambda x: x.numpy(), TypeError, r"x is ndarray: expected a floating point tensor; use torch.as_tensor\(x\)"),
    (lambda x: None, TypeError, r"x is NoneType: expected a floating point tensor"),
    (lambda x: x.long(), TypeError, r"x is torch.int64: expected a floating point tensor; use x.float\(\)"),
    (lambda x: x.bool(), TypeError, r"x is torch.bool: expected a floating point tensor; use x.float\(\)"),
    (lambda x: x.to(torch.complex64), TypeError, r"x is torch.complex64: expected a floating point tensor; use x.real"),
    (lambda x: x[0], ValueError, r"x has shape .*: expected .*; a batch of one is x\[None\]"),
    (lambda x: x[:, :3], ValueError, None),  # another number of channels, where they come first
    (
        lambda x: x.movedim(1, -1),
        ValueError,
        r"x has shape .*its channels seem to come (first|last): use x.(transpose|move)",
    ),
    (lambda x: x[None], ValueError, r"x has shape .*: expected"),
]


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("number", range(len(INPUTS)))
def test_inputs(name, number):
    make, error, words = INPUTS[number]
    build, x = TAKES[name]
    module = build().eval()
    if words is None:
        if x.ndim == 3:
            return  # fewer positions are right
        words = r"x has shape \(2, 3, 4, 3\): expected"
    if name == "waveform" and number == 6:
        words = r"x has shape \(5, 8\): expected \(B, N\), or \(B, N, C\) .*x\[None\]"
    with pytest.raises(error, match=words):
        module(make(x))
    module(x)


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("axis", [-1, -2])
def test_inputs_without_a_position(name, axis):
    build, x = TAKES[name]
    axis = axis if x.ndim == 4 else 1
    with pytest.raises(ValueError, match=r"x has shape .*\b0\b.*: expected .*; give at least one position"):
        build()(x.narrow(axis, 0, 0))


IDS = [
    (lambda x: x.tolist(), TypeError, r"(x|tokens) is list: expected token ids, torch.int64; use torch.as_tensor"),
    (lambda x: x.numpy(), TypeError, r"(x|tokens) is ndarray: expected token ids, torch.int64; use torch.as_tensor"),
    (lambda x: x.float(), TypeError, r"(x|tokens) is torch.float32: expected token ids, torch.int64; use \w+.long\(\)"),
    (lambda x: x.to(torch.uint8), TypeError, r"(x|tokens) is torch.uint8: expected token ids"),
    (lambda x: x > 1, TypeError, r"(x|tokens) is torch.bool: expected token ids"),
    (lambda x: x.to(torch.complex64), TypeError, r"(x|tokens) is torch.complex64: expected token ids"),
    (lambda x: x[0], ValueError, r"x has shape \(5,\): expected \(B, N\), N at least 1; a batch of one is x\[None\]"),
    (lambda x: x[:, :0], ValueError, r"x has shape \(2, 0\): expected \(B, N\), N at least 1"),
    (lambda x: x[..., None], ValueError, r"x has shape \(2, 5, 1\): expected \(B, N\)"),
    (lambda x: x + 1000, ValueError, r"x holds token ids from 1001 to 1005: expected 0 ≤ id < vocab_size=257"),
]


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("number", range(len(IDS)))
def test_tokens(name, number):
    make, error, words = IDS[number]
    tokens = torch.arange(1, 6).expand(2, -1)
    with pytest.raises(error, match=words):
        TOKENS[name]()(make(tokens))


@pytest.mark.parametrize("name", [name for name in TAKES if "layer" in name or "features" in name or name == "mixing"])
def test_masks(name):
    build, x = TAKES[name]
    shape = (2, 5) if x.ndim == 3 else (2, 4, 3)
    for mask, error, words in (
        (np.ones(shape, dtype=bool), TypeError, r"mask is ndarray: .*use torch.as_tensor\(mask\).bool\(\)"),
        (torch.ones(shape), TypeError, r"mask is torch.float32: .*use mask.bool\(\)"),
        (torch.ones(2, 3, dtype=torch.bool), ValueError, r"mask has shape \(2, 3\): expected " + re.escape(str(shape))),
    ):
        with pytest.raises(error, match=words):
            build()(x, mask)


# Streams

STREAMS = {
    "layer": (lambda **options: layer(causal=True, **options), torch.randn(2, 8)),
    "mixing": (lambda **options: LambdaMixing(layer(causal=True, **options)), torch.randn(2, 8)),
    "lm": (lambda **options: lm(**options), torch.tensor([3, 5])),
    "encoder": (
        lambda **options: encoder(causal=True, stem="features", in_channels=3, **options),
        torch.randn(2, 4, 3),
    ),
    "waveform": (lambda **options: encoder(causal=True, stem="waveform", **options), torch.randn(2, 40)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_states(name):
    build, x = STREAMS[name]
    module = build().eval()
    state = module.init_state(2)
    for wrong, words in (
        (None, r"state is None: expected the \w+State of init_"),
        (3, "state is a int"),
    ):
        with pytest.raises(TypeError, match=words):
            module.step(x, wrong)
    with pytest.raises(TypeError, match="state is a tuple: expected"):
        module.step(x, (state,))
    with pytest.raises(ValueError, match="x has batch 2 but the state has 3: go on with one batch, or init_state"):
        module.step(x, module.init_state(3))
    for options in ({"dim_intra": 2}, {"dim_key": 3}, {"content": False}):
        with pytest.raises(ValueError, match=r"state is of another layer, .*take the state of this layer's init_state"):
            module.step(x, build(**options).eval().init_state(2))
    if name not in ("layer", "mixing"):
        with pytest.raises(ValueError, match=r"state has 2 blocks: expected the depth=1 of this model"):
            module.step(x, build(depth=2).eval().init_state(2))
    for size in (0, 2.0, True, None):
        with pytest.raises((TypeError, ValueError), match=f"batch_size={size}: expected"):
            module.init_state(size)
    module.step(x, state)


def test_states_of_other_stems_and_pools():
    x = torch.randn(2, 40)
    build = STREAMS["waveform"][0]
    module = build(strides=(2, 2)).eval()
    with pytest.raises(ValueError, match="state has 1 strided convolutions: expected 2"):
        module.step(x, build(strides=(2,)).eval().init_state(2))
    with pytest.raises(
        ValueError, match=r"state keeps inputs of shape \(2, 12, 1\) of a convolution: expected \(B, 8, 1\)"
    ):
        module.step(x, build(strides=(3, 2)).eval().init_state(2))


# Names


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("lambda_lm", "n_heads", "lambda_lm has no option 'n_heads': did you mean 'heads'"),
        ("lambda_encoder", "max_len", "did you mean 'max_length'"),
        ("lambda_encoder", "num_class", "did you mean 'num_classes'"),
        ("lambda_resnet50", "img_size", "did you mean 'image_size'"),
        ("lambda_resnet26t", "drop_out", "did you mean 'dropout'"),
        ("LambdaLM", "vocabsize", "LambdaLM has no option 'vocabsize': did you mean 'vocab_size'"),
    ],
)
def test_options_of_another_name(name, option, words):
    with pytest.raises(TypeError, match=words):
        create_model(name, **{option: 3})
