"""No training step waits for a GPU but where its form needs to: the meta device has no numbers to wait for."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lambda_seq import LambdaLayer1d, LambdaLayer2d, create_model
from lambda_seq import functional as LF
from lambda_seq.functional import operators
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.models.sequence.replay import Replay, changes
from lambda_seq.tasks.metrics import Mean
from lambda_seq.tasks.weighing import Window

# Sizes of what they return depend on numbers, which a GPU has to be asked for
ASKING = ("nonzero", "unique", "masked_select", "repeat_interleave", "bincount", "equal", "_local_scalar_dense")
BYTES, CLASSES = 257, 2


class Waits(TorchDispatchMode):
    """Names of operations that ask the meta device for numbers, or bring it some of the host's."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        name, there = func._schema.name.removeprefix("aten::"), [x for x in tensors if x.is_meta]
        if there and name in ASKING:
            self.found.append(name)
        if name in ("index", "index_put_") and any(x.dtype == torch.bool for x in there[1:]):
            self.found.append(f"{name} by a mask")
        output = func(*args, **(kwargs or {}))
        moved = isinstance(output, torch.Tensor) and any(x.is_meta != output.is_meta and x.ndim for x in tensors)
        if moved:
            self.found.append(f"{name} from one device to the other")
        return output


@pytest.fixture
def waits(monkeypatch):
    """Runs a step and returns what it waits for; algorithms are seen into, numbers made on the host, too."""
    monkeypatch.setattr(operators, "_watched", lambda tensors: False)
    mode, made = Waits(), torch.tensor

    def tensor(*given, **options):
        if options.get("device") is not None and torch.device(options["device"]).type != "cpu":
            mode.found.append("tensor of numbers of the host")
        return made(*given, **options)

    def run(step):
        monkeypatch.setattr(torch, "tensor", tensor)
        with mode:
            step()
        return mode.found

    return run


def on_meta(module):
    return module.to("meta").train()


def randn(*shape):
    return torch.randn(*shape, device="meta").requires_grad_()


def test_the_mode_sees_what_waits(waits):
    x, mask = randn(3, 4).detach(), torch.ones(3, dtype=torch.bool, device="meta")
    assert waits(lambda: torch.tensor([1, 2], device="meta")) == ["tensor of numbers of the host"]
    for step in (lambda: x.sum().item(), lambda: bool(mask.any()), lambda: x.tolist(), lambda: mask.nonzero()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            waits(step)


LAYERS = {
    "local": {"scope": 7},
    "global, dense": {"scope": None, "max_length": 50, "algorithm": "dense"},
    "content": {"position": False},
    "multi-scale": {"scope": None, "position": "multiscale", "algorithm": "dense"},
    "exponential": {"scope": None, "position": "exponential", "algorithm": "dense"},
    "intra-depth, l2": {"scope": 5, "dim_intra": 2, "key_norm": "l2", "query_norm": "softmax"},
    "batch norm": {"scope": 5, "norm": "batch"},
    "causal, l2": {"scope": 5, "causal": True, "key_norm": "l2"},
    "causal, not normalised": {"scope": 5, "causal": True, "key_norm": "none"},
    "causal, position only": {"scope": 5, "causal": True, "content": False},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", LAYERS)
def test_layers_do_not_wait(case, masked, waits):
    layer, x = on_meta(LambdaLayer1d(16, **LAYERS[case])), randn(2, 50, 16)
    mask = torch.ones(2, 50, dtype=torch.bool, device="meta") if masked else None
    assert waits(lambda: layer(x, mask).sum().backward()) == []


def test_layers_of_pictures_do_not_wait(waits):
    layer, x = on_meta(LambdaLayer2d(16, scope=(5, 3), algorithm="banded")), randn(2, 16, 9, 7)
    assert waits(lambda: layer(x).sum().backward()) == []


@pytest.mark.parametrize("algorithm", sorted(set(REGISTRY) - {"fft"}))
@pytest.mark.parametrize("size", [(300,), (9, 7)])
def test_algorithms_do_not_wait(algorithm, size, waits):
    tensors = [randn(2, 4, *size, 8), randn(2, 1, *size, 6), randn(1, 8, *[3] * len(size))]
    query, value, embedding = tensors
    problem = LF.plan(query, None, value, embedding).problem
    reason = REGISTRY[algorithm].supports(problem.sizes, query.device, query.dtype)
    if reason is not None:
        pytest.skip(f"{algorithm}: {reason}")
    step = lambda: LF.lambda_layer(query, None, value, embedding, algorithm=algorithm).sum().backward()  # noqa: E731
    assert waits(step) == []


ENCODERS = {
    "bytes": {},
    "batch norms behind convolutions": {"norm": "batch", "block_norm": "batch", "strides": [4]},
    "dropout": {"dropout": 0.1, "stochastic_depth": 0.1, "token_dropout": 0.1},
    **{pool: {"pool": pool} for pool in ("max", "attention", "first", "last")},
    "positions": {"head": "positions"},
    "tokens": {"head": "tokens"},
}


@pytest.mark.parametrize("case", ENCODERS)
def test_a_step_of_an_encoder_does_not_wait(case, waits):
    model = on_meta(create_model("lambda_encoder", dim=16, depth=2, scope=7, **ENCODERS[case]))
    x = torch.ones(2, 64, dtype=torch.long, device="meta")
    mask, optimizer, mean = x.bool(), torch.optim.AdamW(model.parameters(), foreach=True), Mean().to("meta")
    label = torch.zeros(2, *([] if model.objective.pooled else [64]), dtype=torch.long, device="meta")

    def step():
        real = None if model.objective.pooled else mask
        loss, count = model.objective.loss(model(x, mask).float(), label, real)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        window = Window()
        window.add(loss.detach(), count, lambda own: own)
        mean.update(window.mean, 1.0)
        return window.weight, window.rest

    assert waits(step) == []


@pytest.mark.parametrize("name", ["resnet_tiny", "lambda_resnet_tiny"])
def test_a_step_of_a_network_of_pictures_does_not_wait(name, waits):
    model = on_meta(create_model(name))
    for module in model.modules():
        if isinstance(module, LambdaLayer2d):
            module.algorithm = "banded"
    x, label = randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long, device="meta")
    assert waits(lambda: F.cross_entropy(model(x), label).backward()) == []


GENERATION = {
    "local": {},
    "exponential": {"scope": None, "position": "exponential"},
    "content": {"position": False},
    "global table": {"scope": None, "max_length": 50},
    "multi-scale": {"scope": None, "position": "multiscale"},
}


@pytest.mark.parametrize("case", GENERATION)
def test_a_step_of_generation_does_not_wait(case, waits):
    """Nor one over buffers, from the token to its logits; of these, sampling asks whether they are numbers."""
    model = on_meta(create_model("lambda_lm", dim=16, depth=2, **{"scope": 7, **GENERATION[case]})).eval()
    tokens, state = torch.ones(3, dtype=torch.long, device="meta"), model.init_state(3)

    @torch.inference_mode()
    def steps():
        after = state
        for _ in range(9):  # until a local state is full, and on
            before = after
            _, after = model._next(tokens, before)
        if model.constant_state:
            assert changes(before, after) == []
            replay = Replay(model._next, tokens, after)
            assert replay(tokens).shape == replay(tokens).shape == (3, BYTES)

    assert waits(steps) == []


def test_what_waits_does_so_once_a_pass(monkeypatch):
    """Transforms of wide scopes ask whether parts are quiet, the causal softmax whether keys are steep."""
    asked = []

    def spy(name, original):
        def called(x, *given):
            asked.append(name)
            return original(x, *given)

        return called

    for name in ("item", "tolist", "nonzero", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, spy(name, getattr(torch.Tensor, name)))
    query, value = torch.randn(1, 2, 600, 4, requires_grad=True), torch.randn(1, 1, 600, 4, requires_grad=True)
    LF.lambda_layer(query, value, value, None, causal=True).sum().backward()
    assert asked == ["tolist", "tolist"]
    asked.clear()
    monkeypatch.undo()
    precise = REGISTRY["fft"].forward.__globals__
    counted, choose = [], precise["_precision"]
    monkeypatch.setitem(precise, "_precision", lambda *powers: counted.append(len(powers)) or choose(*powers))
    embedding = torch.randn(1, 4, 1199, requires_grad=True)
    LF.lambda_layer(query, None, value, embedding, algorithm="fft").sum().backward()
    assert counted == [1, 2]
