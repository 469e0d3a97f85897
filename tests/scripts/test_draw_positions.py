import json
from pathlib import Path

import draw_positions
import numpy as np
import pytest
import torch
from PIL import Image

from lambda_seq import create_model
from lambda_seq.tasks.classification import Classification

FACTS = {
    "labels": ["a", "b"],
    "input": "tokens",
    "options": {"num_classes": 2, "vocab_size": 257, "max_length": 40},
}
SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 4}


def drawn(file: Path) -> np.ndarray:
    """Pixels of a picture that is not empty."""
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert pixels.std() > 10
    return pixels


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lambda_encoder", SMALL),
        ("lambda_encoder", SMALL | {"scope": [None, None], "position": ["multiscale", "exponential"]}),
        ("lambda_encoder", SMALL | {"scope": None, "max_length": 700, "dim_intra": 2, "causal": True}),
        ("lambda_encoder", SMALL | {"scope": [1, 3]}),
        ("lambda_resnet_tiny", {"dim_key": 3}),
    ],
)
def test_draws_untrained_networks(tmp_path, name, options, capsys):
    file = tmp_path / "new" / "positions.png"
    code = draw_positions.main(["--model", name, "--options", json.dumps(options), "--out", str(file)])
    assert code == 0
    assert f"{file}: 2 position embeddings" in capsys.readouterr().out
    drawn(file)


def test_draws_what_a_checkpoint_holds(tmp_path):
    task = Classification("lambda_encoder", SMALL | {"scope": 5}, facts=FACTS)
    weights = {name: tensor + 1 for name, tensor in task.state_dict().items() if tensor.is_floating_point()}
    file = tmp_path / "best.ckpt"
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": weights}, file)
    panels = draw_positions.collect(draw_positions.of_checkpoint(file), None)
    assert [panel.origin for panel in panels] == [(2,), (2,)]
    for panel, block in zip(panels, task.network.blocks, strict=True):
        expected = block.mixing.layer.position.weight.detach().numpy()[0] + 1
        np.testing.assert_array_equal(panel.values, expected)
    assert draw_positions.main([str(file), "--out", str(tmp_path / "out.png")]) == 0
    drawn(tmp_path / "out.png")


def test_draws_what_a_folder_holds(tmp_path):
    model = create_model("lambda_encoder", **SMALL, scope=3)
    model.save_pretrained(tmp_path / "model")
    assert draw_positions.main([str(tmp_path / "model"), "--out", str(tmp_path / "out.png")]) == 0
    options = draw_positions.parser().parse_args([str(tmp_path / "model")])
    panels = draw_positions.collect(draw_positions.load(options), None)
    np.testing.assert_array_equal(panels[0].values, model.blocks[0].mixing.layer.position.weight.detach().numpy()[0])


def test_a_shared_embedding_is_drawn_once():
    model = create_model("lambda_encoder", **SMALL)
    model.blocks[1].mixing.layer.position = model.blocks[0].mixing.layer.position
    assert len(draw_positions.collect(model, None)) == 1


def test_sizes_are_those_asked_for():
    model = create_model("lambda_encoder", **SMALL, scope=None, position="exponential")
    assert [panel.values.shape for panel in draw_positions.collect(model, (9,))] == [(4, 17), (4, 17)]
    assert draw_positions.collect(model, None)[0].values.shape == (4, 2 * 4096 - 1)


@pytest.mark.parametrize(("count", "origin"), [(5, 2), (400, 399), (8191, 4095), (5000, 4999), (100001, 50000)])
def test_columns_hold_every_offset_once_and_near_ones_alone(count, origin):
    edges = draw_positions.bins(count, origin)
    assert (edges[0], edges[-1]) == (0, count)
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= draw_positions.COLUMNS + 3
    assert {origin, origin - 1}.issubset(edges)


def test_energy_within_a_distance():
    squares = np.zeros(21)
    squares[[10, 9, 12, 20]] = [2, 3, 4, 1]
    assert draw_positions.within(squares, (10,)) == {0.5: 1, 0.9: 2}
    image = np.zeros((5, 7))
    image[2, 3], image[0, 3] = 1, 1.5
    assert draw_positions.within(image, (2, 3)) == {0.5: 2, 0.9: 2}


def test_colours_are_logarithmic_where_values_fall_far():
    falling = 10.0 ** -np.arange(6)[None]
    assert type(draw_positions.signed(falling)).__name__ == "SymLogNorm"
    assert type(draw_positions.signed(np.array([[1.0, -0.5, 0.7]]))).__name__ == "Normalize"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a SOURCE"),
        (["model.ckpt", "--model", "lambda_encoder"], "give either a SOURCE"),
        (["missing.ckpt"], "missing.ckpt: no such file or folder"),
        (["--model", "lambda_encoders"], "name='lambda_encoders' is no model: did you mean"),
        (["--model", "lambda_encoder", "--options", '{"deep": 1}'], "has no option 'deep'"),
        (["--model", "lambda_encoder", "--options", '{"position": false}'], "no position embedding"),
        (["--model", "lambda_encoder", "--size", "3", "4"], "--size 3 4: blocks.0.mixing.layer takes 1 dimensions"),
    ],
)
def test_errors(arguments, message, capsys):
    assert draw_positions.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_other_files_are_named(tmp_path, capsys):
    file = tmp_path / "other.ckpt"
    file.write_bytes(b"not a checkpoint")
    assert draw_positions.main([str(file)]) == 2
    assert f"{file} is no checkpoint of a task of lambda_seq" in capsys.readouterr().err


def test_checkpoints_that_do_not_fit(tmp_path, capsys):
    task = Classification("lambda_encoder", SMALL | {"scope": 5}, facts=FACTS)
    hparams = dict(task.hparams) | {"options": SMALL | {"scope": 7}}
    torch.save({"hyper_parameters": hparams, "state_dict": task.state_dict()}, tmp_path / "best.ckpt")
    assert draw_positions.main([str(tmp_path / "best.ckpt")]) == 2
    assert "its embeddings do not fit lambda_encoder" in capsys.readouterr().err


def test_help_says_what_it_draws():
    assert "energy by offset" in draw_positions.parser().format_help()
