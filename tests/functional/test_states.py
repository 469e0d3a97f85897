"""States of streams as trees: mapped, copied, saved and loaded, those of layers and of whole models."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch.utils import _pytree as pytree

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLM
from lambda_seq import functional as LF


def layer_state(**options):
    layer = LambdaLayer1d(8, heads=2, dim_key=2, causal=True, norm="rms", **options).eval()
    return layer, lambda length: torch.randn(2, length, 8)


def encoder_state():
    sizes = {"dim": 8, "depth": 2, "heads": 2, "scope": 3}
    model = LambdaEncoder(
        stem="waveform", in_channels=1, strides=[2], causal=True, norm="rms", block_norm="layer", **sizes
    )
    return model.eval(), lambda length: torch.randn(2, length, 1)


def language_model_state():
    model = LambdaLM(vocab_size=11, dim=8, depth=2, heads=2, scope=3)
    return model.eval(), lambda length: torch.randint(0, 11, (2, length))


MAKERS = {
    "table": lambda: layer_state(scope=3),
    "content only": lambda: layer_state(position=False),
    "position only": lambda: layer_state(scope=4, content=False),
    "global": lambda: layer_state(scope=None, max_length=40),
    "exponentials": lambda: layer_state(scope=None, position="exponential"),
    "encoder": encoder_state,
    "language model": language_model_state,
}


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_leaves(state):
    leaves, structure = pytree.tree_flatten(state)
    return pytree.tree_unflatten([leaf.clone() for leaf in leaves], structure)


WAYS = {
    "mapped": lambda state: pytree.tree_map(lambda x: x.to("cpu", copy=True), state),
    "mapped by path": lambda state: pytree.tree_map_with_path(lambda path, x: x.clone(), state),
    "flattened": by_leaves,
    "saved": saved,
    "copied": copy.deepcopy,
    "pickled": lambda state: pickle.loads(pickle.dumps(state)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_stream_goes_on_from_what_was_kept(kind, way):
    model, draw = MAKERS[kind]()
    with torch.no_grad():
        _, state = model.step(draw(5), model.init_state(2))
        piece = draw(3)
        expected, after = model.step(piece, state)
        kept = WAYS[way](state)
        assert type(kept) is type(state)
        found, found_after = model.step(piece, kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for one, other in zip(pytree.tree_leaves(found_after), pytree.tree_leaves(after), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_leaves_are_tensors_and_numbers_are_structure(kind):
    model, draw = MAKERS[kind]()
    with torch.no_grad():
        _, state = model.step(draw(5), model.init_state(2))
    leaves, structure = pytree.tree_flatten(state)
    assert leaves
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    assert pytree.treespec_loads(pytree.treespec_dumps(structure)) == structure


def test_loads_in_another_process_after_import(tmp_path):
    state = LF.StreamState.empty(torch.zeros(1, 1, 0, 2), torch.zeros(1, 1, 0, 3))
    torch.save({"state": state, "terms": LF.Exponentials(*torch.rand(3, 1, 1, 1).unbind())}, tmp_path / "state.pt")
    code = (
        "import torch, lambda_seq.functional;"
        f" print(torch.load({str(tmp_path / 'state.pt')!r}, weights_only=True)['state'].seen)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.slow
def test_exports_with_a_state():
    layer, draw = MAKERS["table"]()

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, state):
            return self.layer.step(x, state)

    with torch.no_grad():
        _, state = layer.step(draw(5), layer.init_state(2))
        piece = draw(1)
        expected, after = layer.step(piece, state)
        program = torch.export.export(Step(), (piece, state))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        found, found_after = torch.export.load(file).module()(piece, state)
    torch.testing.assert_close(found, expected)
    assert found_after.seen == after.seen == 6
    torch.testing.assert_close(found_after.values, after.values)
