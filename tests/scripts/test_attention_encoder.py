"""The encoder with attention, as a network of one's own: what it computes, and that the command line trains it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import finish, start
from paths import ROOT

from lambda_seq.models import create_model

sys.path.insert(0, str(ROOT / "scripts" / "examples"))
import attention_encoder


def test_products_depend_on_offsets_alone():
    query, key = torch.randn(2, 1, 1, 8, dtype=torch.float64)
    rotate = attention_encoder.rotated
    scores = rotate(query.expand(1, 1, 9, 8)) @ rotate(key.expand(1, 1, 9, 8)).mT  # (1, 1, 9, 9)
    for offset in range(-8, 9):
        values = scores[0, 0].diagonal(offset)
        torch.testing.assert_close(values, values[:1].expand_as(values))
    assert scores[0, 0, 0].unique().numel() == 9


def test_as_written_out():
    layer, x = attention_encoder.Attention(8, 2).double(), torch.randn(2, 7, 8, dtype=torch.float64)
    query, key, value = layer.project(x).reshape(2, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = attention_encoder.rotated(query) @ attention_encoder.rotated(key).mT / 2
    expected = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 7, 8)
    torch.testing.assert_close(layer(x), expected)


def test_padding_is_not_seen():
    model = create_model("attention_encoder", dim=16, depth=2, heads=2, num_classes=3).double().eval()
    tokens, mask = torch.randint(1, 257, (2, 20)), torch.ones(2, 20, dtype=torch.bool)
    mask[1, 13:] = False
    found = model(tokens, mask)
    torch.testing.assert_close(found[1:], model(tokens[1:, :13]))
    tokens[1, 13:] = 7
    torch.testing.assert_close(found, model(tokens, mask))


@pytest.mark.parametrize(("dim", "heads"), [(12, 4), (6, 2)])
def test_channels_that_are_no_pairs_are_refused(dim, heads):
    with pytest.raises(ValueError, match=f"dim={dim}, heads={heads}: expected a multiple of {2 * heads}"):
        create_model("attention_encoder", dim=dim, heads=heads)


def test_documents_of_a_row_are_refused():
    with pytest.raises(ValueError, match="give each document its own"):
        create_model("attention_encoder", dim=16)(torch.ones(1, 4, dtype=torch.long), None, torch.zeros(1, 4).long())


@pytest.mark.slow
def test_the_command_line_trains_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--model.network=attention_encoder", "--data.path=sklearn:digits", "--model.options.dim=16")
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false")
    script = ROOT / "scripts" / "examples" / "attention_encoder.py"
    finish(start(sys.executable, script, "fit", "--config=pixels", *words, *short, "--output_dir=run"))
    assert 0 <= json.loads(Path("run/summary.json").read_text())["test/accuracy"] <= 1
