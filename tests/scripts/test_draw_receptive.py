"""The drawn weights are those of the layer, and are drawn."""

import draw_receptive
import numpy as np
import pytest
import torch
from PIL import Image

from lambda_seq import create_model
from lambda_seq.layers import LambdaLayer2d
from lambda_seq.tasks.classification import Classification

FACTS = {
    "labels": ["a", "b"],
    "input": "image",
    "options": {"num_classes": 2, "in_channels": 3, "image_size": [12, 16]},
    "mean": [100.0, 110.0, 120.0],
    "std": [50.0, 60.0, 70.0],
}
SMALL = {"blocks": [1, 1], "width": 8, "heads": 2, "dim_key": 4, "scope": 5}


@pytest.fixture
def picture(tmp_path):
    """A picture file that is larger than what the network takes."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a network whose statistics are no longer those of the start."""
    torch.manual_seed(0)
    task = Classification("lambda_resnet_tiny", SMALL, facts=FACTS)
    task.network(torch.randn(8, 3, 12, 16))
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict()}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


@pytest.mark.parametrize(
    "options",
    [
        {"scope": 5},
        {"scope": (3, 7)},
        {"scope": 23},
        {"scope": None, "max_size": (9, 8)},
        {"scope": 3, "dim_intra": 3},
        {"scope": 3, "content": False},
        {"position": False},
        {"scope": 5, "key_norm": "l2", "query_norm": "softmax"},
        {"scope": 5, "key_norm": "none"},
        {"scope": None, "position": "multiscale"},
    ],
)
def test_weights_times_values_are_the_output_of_the_layer(options):
    torch.manual_seed(1)
    layer = LambdaLayer2d(12, heads=3, dim_key=5, **options).double()
    x = torch.randn(1, 12, 6, 8, dtype=torch.float64)
    for _ in range(3):
        layer(torch.randn(4, 12, 6, 8, dtype=torch.float64))
    with torch.no_grad():
        expected = layer.eval()(x)
        for query in ((0, 0), (3, 4), (5, 7), (2, 0)):
            weights, value = draw_receptive.weights_at(layer, x, query)
            found = weights.output(value).flatten()  # heads concatenated
            torch.testing.assert_close(found, expected[0, :, query[0], query[1]], rtol=1e-10, atol=1e-10)
            assert (weights.content is None) == (not layer.content)
            assert (weights.position is None) == (layer.position is None)


def test_weights_of_a_network_are_those_of_its_layers(checkpoint, picture):
    network, facts, labels = draw_receptive.load(checkpoint)
    x = draw_receptive.standardised(draw_receptive.read(picture, network, facts), facts)
    outputs = []
    for module in network.modules():
        if isinstance(module, LambdaLayer2d):
            module.register_forward_hook(lambda module, given, output: outputs.append(output))
    panels, logits = draw_receptive.collect(network, x, (0.5, 0.99))
    assert labels == ["a", "b"]
    assert len(panels) == len(outputs) == 2
    assert torch.equal(logits, network(x))
    for panel, output, layer in zip(
        panels, outputs, [one for one in network.modules() if isinstance(one, LambdaLayer2d)], strict=False
    ):
        row, column = panel.weights.query
        assert (row, column) == (output.shape[2] // 2, output.shape[3] - 1)
        assert panel.weights.scope == (5, 5)
        assert panel.weights.position.shape == (1, layer.heads, *output.shape[2:])


def test_draws_a_checkpoint_and_a_folder(checkpoint, picture, tmp_path, capsys):
    file = tmp_path / "new" / "receptive.png"
    assert draw_receptive.main([str(checkpoint), str(picture), "--out", str(file), "--at", "0", "1"]) == 0
    assert f"{file}: 2 layers" in capsys.readouterr().out
    first = np.asarray(Image.open(file).convert("RGB"))
    assert first.std() > 10
    network, facts, labels = draw_receptive.load(checkpoint)
    network.save_pretrained(tmp_path / "model", labels=labels, preprocessing=facts)
    arguments = [str(tmp_path / "model"), str(picture), "--out", str(file), "--layers", "-1", "--title", "one layer"]
    assert draw_receptive.main(arguments) == 0
    assert np.asarray(Image.open(file)).shape[0] < first.shape[0]


@pytest.mark.parametrize("options", [{"content": False}, {"position": False}, {"dim_intra": 2}])
def test_draws_what_there_is(options, picture, tmp_path):
    torch.manual_seed(0)
    network = create_model("lambda_resnet_tiny", num_classes=2, in_channels=1, **SMALL | options)
    facts = {"input": "image", "mean": [1.0], "std": [2.0], "in_channels": 1, "image_size": [9, 11]}
    network.eval().save_pretrained(tmp_path / "model", preprocessing=facts)
    out = tmp_path / "out.png"
    assert draw_receptive.main([str(tmp_path / "model"), str(picture), "--out", str(out)]) == 0
    assert np.asarray(Image.open(out).convert("L")).std() > 10


@pytest.mark.parametrize(
    ("number", "text"), [(0.4249, "0.42"), (7.2e-4, "7.2e−4"), (1.4e15, "1.4e15"), (53.0, "53"), (999.0, "1.0e3")]
)
def test_numbers_at_the_colours(number, text):
    assert draw_receptive.short(number) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.ckpt", "{picture}"], "missing.ckpt: no such file or folder"),
        (["{picture}", "{picture}"], "is no checkpoint of a task of lambda_seq"),
        (["{checkpoint}", "{checkpoint}"], "not a readable picture"),
        (["{checkpoint}", "{picture}", "--at", "0.5", "1.5"], "--at 0.5 1.5: expected parts"),
        (["{checkpoint}", "{picture}", "--layers", "2"], "--layers 2: the network has 2, 0 to 1"),
        (["{checkpoint}", "{picture}", "--intra", "1"], "--intra 1: the network has 1 values"),
    ],
)
def test_what_cannot_be_drawn(arguments, message, checkpoint, picture, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"checkpoint": checkpoint, "picture": picture}
    assert draw_receptive.main([word.format(**names) for word in arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_tiny", {}, "the network has no lambda layers"),
        ("lambda_encoder_tiny", {"vocab_size": 9}, "takes tokens, no pictures"),
    ],
)
def test_networks_without_pictures_or_lambdas(name, options, message, picture, tmp_path, capsys):
    facts = {"mean": [1.0] * 3, "std": [2.0] * 3, "in_channels": 3, "image_size": [8, 8]}
    create_model(name, **options).save_pretrained(tmp_path / "model", preprocessing=facts)
    assert draw_receptive.main([str(tmp_path / "model"), str(picture)]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_does_not_know_its_pictures(picture, tmp_path, capsys):
    create_model("lambda_resnet_tiny").save_pretrained(tmp_path / "model")
    assert draw_receptive.main([str(tmp_path / "model"), str(picture)]) == 2
    assert "does not say how its pictures were prepared: mean, std" in capsys.readouterr().err
