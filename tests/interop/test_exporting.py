"""Networks as programs of torch's ordinary operations; in ONNX Runtime they are tested by `test_interop_onnx.py`."""

import io

import pytest
import torch
from exported_networks import network

from lambda_seq import create_model
from lambda_seq.functional.states import names_of, taken_apart
from lambda_seq.interop.exporting import call_of, export_program, to_plain
from lambda_seq.interop.onnx import relative, resized
from lambda_seq.layers.positions.embedding import PositionEmbedding


class Endless(PositionEmbedding):
    """An embedding of which a stream keeps everything."""

    causal = True

    def forward(self, size):
        return torch.ones(1, 4, size[0])


def lm(**options):
    return network("texts", **options)


@pytest.mark.slow(seconds=20)
def test_a_program_is_of_any_length_and_needs_nothing_of_ours():
    model = network("tokens")
    program, call = export_program(model), call_of(model)
    assert not [node for node in program.graph.nodes if "lambda_seq" in str(node.target)]
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    run = torch.export.load(file).module()
    for length in (5, 64, 2000):
        inputs = resized(call, 3, length)
        for found, expected in zip(run(*inputs.values()), call.module(*inputs.values()), strict=True):
            assert relative(found, expected) < 1e-5


@pytest.mark.slow(seconds=10)
def test_a_layer_of_ones_own_is_made_plain():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network("tokens").blocks[0].mixing.layer

        def forward(self, x):
            return self.layer(x)

    x, longer, own = torch.randn(2, 50, 16), torch.randn(3, 333, 16), Own()
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
    program = torch.export.export(own, (x,), dynamic_shapes=shapes)
    assert any("lambda_seq" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(longer), own(longer))  # at a length that was not traced, too
    plain = to_plain(program)
    assert not any("lambda_seq" in str(node.target) for node in plain.graph.nodes)
    torch.testing.assert_close(plain.module()(longer), own(longer), rtol=1e-4, atol=1e-5)


def test_steps_from_a_settled_state_are_those_from_the_first():
    model = network("step")
    call, state = call_of(model), model.init_state(2)
    given = [torch.full_like(call.inputs[name], value) for name, value in call.initial.items()]
    sizes = [tensor.shape for tensor in given]
    with torch.no_grad():
        for tokens in torch.randint(20, (40, 2)):
            expected, state = model.step(tokens, state)
            found, *given = call.module(tokens, *given)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert [tensor.shape for tensor in given] == sizes


def test_a_call_names_its_inputs_and_outputs():
    call = call_of(network("step"))
    assert call.outputs == ["logits", *(name.replace("state", "after", 1) for name in call.initial)]
    assert call.initial["state.blocks.0.content.top"] == -torch.inf
    assert call.initial["state.blocks.0.values"] == 0
    assert "state.blocks.3.values" not in call.initial  # empty: exponentials keep sums
    assert call.inputs["state.blocks.3.sums"].dtype == torch.float64
    assert call.dynamic["state.blocks.0.values"] == {0: "batch"}
    whole = call_of(network("causal"))
    assert list(whole.inputs) == ["x", "mask"]
    assert (whole.outputs, whole.most) == (["logits", "answers"], {})
    assert call_of(network("features")).most == {"length": 2**16}
    assert list(call_of(network("tokens"), mask=False).inputs) == ["x"]
    assert call_of(lm(), step=False).outputs == ["logits"]


def test_pictures_have_the_size_that_is_known():
    assert call_of(network("pictures")).dynamic["x"] == {0: "batch", 2: "height", 3: "width"}
    assert call_of(network("pictures"), image_size=9).inputs["x"].shape[2:] == (9, 9)
    assert call_of(network("pictures, global")).inputs["x"].shape[2:] == (24, 20)
    trained = network("pictures")
    trained.preprocessing = {"size": [7, 8]}
    call = call_of(trained, mask=True)
    assert call.inputs["x"].shape[2:] == call.inputs["mask"].shape[1:] == (7, 8)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), {}, TypeError, r"model is Linear.*interop\.exporting\.to_plain"),
        (lambda: network("tokens").train(), {}, ValueError, r"in training mode: call model\.eval\(\)"),
        (lambda: network("tokens").double(), {}, ValueError, r"is torch\.float64.*use model\.float\(\)"),
        (lambda: network("tokens"), {"step": True}, ValueError, "step=True: a LambdaEncoder is no language model"),
        (lambda: network("tokens"), {"step": 1}, TypeError, "step=1: expected True or False"),
        (lambda: network("tokens"), {"image_size": 8}, ValueError, "image_size=8: the model takes tokens"),
        (lambda: network("pictures"), {"image_size": 0}, ValueError, "image_size=0: expected at least one"),
        (lm, {"mask": True}, ValueError, "mask=True with step=True"),
    ],
)
def test_what_does_not_fit_is_named(make, options, error, message):
    with pytest.raises(error, match=message):
        call_of(make(), **options)


def test_what_does_not_export_is_named():
    class Stubborn(torch.nn.Module):
        def forward(self, x, mask=None, documents=None):
            return x if float(x.sum()) > 0 else -x

    model = network("tokens")
    model.blocks = Stubborn()
    model.blocks.check_length = lambda length: None
    with pytest.raises(ValueError, match="lambda_encoder with stem='tokens' does not export: "):
        export_program(model)


def test_a_model_without_memory_is_named():
    with torch.device("meta"):
        model = create_model("lambda_encoder_tiny").eval()
    with pytest.raises(ValueError, match="on meta: expected weights that are whole, and there"):
        call_of(model)


def test_a_state_that_grows_without_end_is_named():
    model = lm()
    model.blocks[0].mixing.layer.position = Endless()
    with pytest.raises(ValueError, match=r"blocks\.0: the state of a Endless keeps all values.*use step=False"):
        call_of(model)


def test_tensors_of_a_state_have_names():
    state = lm().init_state(1)
    assert names_of(state)[:4] == [
        *(f"blocks.0.content.{name}" for name in ("sums", "norm", "top")),
        "blocks.0.values",
    ]
    assert len(names_of(state)) == len(taken_apart(state)[0])
