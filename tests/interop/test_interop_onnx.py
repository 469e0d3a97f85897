"""Exported networks in ONNX Runtime: equal at sizes that were not traced."""

import json

import numpy as np
import pytest
import torch
from exported_networks import NETWORKS, network

from lambda_seq.interop import onnx
from lambda_seq.interop.exporting import call_of

pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install '.[onnx]'")
pytestmark = pytest.mark.slow(seconds=2)  # most wait for an export, which tests share
LONG = 65536


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """From a name to the model, the export and its session; each once."""
    made = {}

    def get(name):
        if name not in made:
            model = network(name)
            if name == "pictures":  # of any size they take minutes to export
                model.preprocessing = {"size": [16, 20]}
            done = onnx.export_onnx(model, tmp_path_factory.mktemp("onnx") / "model.onnx")
            made[name] = model, done, onnxruntime.InferenceSession(done.file)
        return made[name]

    return get


def differences(model, session, **sizes):
    """Of the outputs, for inputs of these sizes; each of the greatest that torch gives."""
    call = call_of(model)
    return onnx.differences(call, session, onnx.resized(call, **sizes))


# The rows: encoders of tokens, samples and features, residual networks, a step of a language model


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "step"])
def test_networks_are_equal_at_sizes_that_were_not_traced(name, exported):
    _, done, _ = exported(name)
    assert done.difference < 1e-5
    assert "batch 3" in done.checked


@pytest.mark.parametrize("name", ["tokens", "words", "waveform", "spectrum", "features"])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (2, 2), (1, 17), (1, 3001)])
def test_short_and_odd_lengths(name, batch, size, exported):
    model, _, session = exported(name)
    assert max(differences(model, session, batch=batch, size=size)) < 1e-5


@pytest.mark.parametrize("name", ["tokens", "waveform", "spectrum", "features"])
def test_long_inputs(name, exported):
    """65,536 bytes, samples and vectors."""
    model, _, session = exported(name)
    assert max(differences(model, session, batch=1, size=LONG)) < 1e-5


def test_padding_changes_nothing(exported):
    _, _, session = exported("causal")
    x = np.arange(60, dtype=np.int64)[None] % 256
    alone, _ = session.run(None, {"x": x, "mask": np.ones_like(x, dtype=bool)})
    padded = np.concatenate([x, np.full((1, 41), 7)], 1)
    found, _ = session.run(None, {"x": padded, "mask": np.arange(101)[None] < 60})
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)


def test_nothing_real_is_finite(exported):
    _, _, session = exported("tokens")
    x = np.zeros((2, 9), dtype=np.int64)
    logits, answers = session.run(None, {"x": x, "mask": np.zeros_like(x, dtype=bool)})
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-6)


def test_streams_go_on_from_states(exported):
    """Of one batch and another, as far as tables reach; from what the description says states begin with."""
    model, done, session = exported("step")
    assert done.difference < 1e-5
    about = json.loads(done.description.read_text())
    tokens, *states = about["inputs"]
    assert (tokens["name"], tokens["shape"], tokens["dtype"]) == ("tokens", ["batch"], "int64")
    feed = {one["name"]: np.full([3, *one["shape"][1:]], float(one["initial"]), dtype=one["dtype"]) for one in states}
    state = model.init_state(3)
    rows = torch.randint(20, (40, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for row in rows:
            expected, state = model.step(row, state)
            logits, *after = session.run(None, {"tokens": row.numpy(), **feed})
            feed = dict(zip(feed, after, strict=True))
            assert onnx.relative(torch.from_numpy(logits), expected) < 1e-5


def test_pictures_one_by_one(exported):
    model, _, session = exported("pictures")
    assert {one.name: one.shape for one in session.get_inputs()} == {"x": ["batch", 3, 16, 20]}
    assert max(differences(model, session, batch=1, size=1)) < 1e-5
