"""What a stream keeps of an embedding is made once, and anew as soon as the weights are others."""

import copy
import pickle

import pytest
import torch

from lambda_seq import LambdaLayer1d
from lambda_seq.layers.positions.exponential import ExponentialPosition
from lambda_seq.layers.positions.multiscale import MultiScalePosition

KINDS = {
    "exponential": {"scope": None, "position": "exponential"},
    "multiscale": {"scope": None, "position": "multiscale", "max_length": 100},
    "local multiscale": {"scope": 30, "position": "multiscale"},
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def layer(request):
    return LambdaLayer1d(8, heads=2, causal=True, **KINDS[request.param]).eval()


@pytest.fixture
def made(monkeypatch):
    """Lengths for which embeddings have been made."""
    lengths = []
    for kind in (ExponentialPosition, MultiScalePosition):

        def noted(self, length, make=kind.made):
            lengths.append(length)
            return make(self, length)

        monkeypatch.setattr(kind, "made", noted)
    return lengths


def stream(layer, x, lengths=(5, 1, 1)):
    state, outputs = layer.init_state(x.shape[0]), []
    for piece in x.split(list(lengths), 1):
        output, state = layer.step(piece, state)
        outputs.append(output)
    return torch.cat(outputs, 1)


def assert_right(layer, x):
    with torch.no_grad():
        torch.testing.assert_close(stream(layer, x), layer(x))


def step_of(optimizer, **options):
    def change(layer):
        for parameter in layer.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer(layer.parameters(), lr=0.3, **options).step()

    return change


@torch.no_grad()
def replaced(layer):
    for module in layer.position.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(2 * parameter))


@torch.inference_mode()
def in_inference_mode(layer):
    for parameter in layer.parameters():
        parameter.mul_(1.5)


def through_data(layer):
    layer.train()
    for parameter in layer.parameters():
        parameter.data.mul_(1.5)
    layer.eval()


def new_data(layer):
    for parameter in layer.parameters():
        parameter.data = 2 * parameter.data


CHANGES = {
    "SGD": step_of(torch.optim.SGD),
    "SGD, foreach": step_of(torch.optim.SGD, foreach=True),
    "Adam, fused": step_of(torch.optim.AdamW, fused=True),
    "load_state_dict": lambda layer: layer.load_state_dict({k: 2 * v for k, v in layer.state_dict().items()}),
    "load_state_dict, assign": lambda layer: layer.load_state_dict(
        {k: 2 * v for k, v in layer.state_dict().items()}, assign=True
    ),
    "reset": lambda layer: layer.position.reset_parameters(),
    "replaced": replaced,
    "inference mode": in_inference_mode,
    "data, in training": through_data,
    "new data": new_data,
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES)
def test_right_after_the_weights_have_changed(layer, change, mode):
    x = torch.randn(2, 7, 8)
    with mode():
        before = stream(layer, x)
    CHANGES[change](layer)
    with mode():
        found = stream(layer, x)
        torch.testing.assert_close(found, layer(x), rtol=1e-4, atol=1e-4)  # the weights are large
    assert not torch.allclose(found, before, rtol=1e-2, atol=1e-2)


def test_right_in_another_dtype(layer):
    x = torch.randn(2, 7, 8)
    assert_right(layer, x)
    assert_right(layer.bfloat16().float(), x)  # rounded, and perhaps where it was before
    layer.double()
    with torch.no_grad():
        torch.testing.assert_close(stream(layer, x.double()), layer(x.double()), rtol=1e-10, atol=1e-10)
    assert_right(layer.float(), x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_made_once_for_many_steps(layer, made, mode):
    x = torch.randn(1, 400, 8)
    with mode():
        _, state = layer.step(x[:, :10], layer.init_state(1))
        made.clear()
        for place in range(10, 400):
            _, state = layer.step(x[:, place], state)
    assert len(made) <= 6  # as the reach doubles


def test_made_for_each_piece_where_gradients_are_wanted(layer, made):
    x = torch.randn(1, 7, 8)
    stream(layer, x).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.position.parameters())
    stream(layer, x).sum().backward()  # through a graph of its own
    assert len(made) >= 6
    with torch.no_grad():
        stream(layer, x)
    layer.zero_grad()
    stream(layer, x).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.position.parameters())


def test_kept_in_inference_mode_it_serves_gradients_of_the_input(layer):
    x = torch.randn(2, 7, 8, requires_grad=True)
    with torch.inference_mode():
        stream(layer, x.detach())
    layer.requires_grad_(False)
    (found,) = torch.autograd.grad(stream(layer, x).sum(), x)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(found, expected)


def test_parameters_made_in_inference_mode_are_not_counted():
    with torch.inference_mode():
        layer = LambdaLayer1d(8, heads=2, causal=True, **KINDS["exponential"]).eval()
        x = torch.randn(2, 7, 8)
        before = stream(layer, x)
        layer.position.weight.mul_(2)
        found = stream(layer, x)
        torch.testing.assert_close(found, layer(x))
    assert not torch.equal(found, before)


def test_weights_given_for_one_call(layer):
    x = torch.randn(2, 7, 8)
    other = {name: 2 * parameter.detach() for name, parameter in layer.named_parameters()}

    class Stream(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return stream(self.layer, x), self.layer(x)

    model = Stream()
    with torch.no_grad():
        plain, _ = model(x)
        found, expected = torch.func.functional_call(model, {f"layer.{name}": x for name, x in other.items()}, (x,))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(model(x)[0], plain, rtol=0, atol=0)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_on_their_own(layer, way):
    x = torch.randn(2, 7, 8)
    size = len(pickle.dumps(layer))
    with torch.no_grad():
        expected = stream(layer, x)
        assert len(pickle.dumps(layer)) == size
        other = way(layer)
        for parameter in layer.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(stream(other, x), expected, rtol=0, atol=0)
    assert_right(layer, x)
    assert_right(other, x)
