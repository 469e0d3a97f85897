"""Masked pretraining: what is hidden, that nothing of it leaks, resuming, and the way to fine-tuning."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET, texts, write_jsonl
from torch.nn import functional as F

import lambda_seq
from lambda_seq.tasks.pretraining import Explained, MaskedPretraining, choose_spans

TINY = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}
FACTS = {
    "tokens": {"labels": ["a", "b"], "input": "tokens", "options": {"num_classes": 2, "vocab_size": 20}},
    "features": {"labels": ["a", "b"], "input": "features", "options": {"num_classes": 2, "in_channels": 3}}
    | {"mean": [100.0, 50.0, 0.0], "std": [10.0, 20.0, 1.0]},
    "waveform": {"labels": ["a", "b"], "input": "waveform", "options": {"num_classes": 2, "in_channels": 1}},
}
FACTS["frames of tokens"] = FACTS["tokens"]
STRIDED = ("waveform", "frames of tokens")
TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=8", *TINY_ENCODER)
PRETRAINED = ("--config", "tasks/configs/pretraining.yaml", "--data.batch_size=5", *TINY_ENCODER)
LEFT = ("best checkpoint", "last checkpoint", "configuration", "curves", "page")  # beside figures in summary.json
RESUMED = (*PRETRAINED, "--trainer.max_epochs=2", "--model.options.dropout=0.3", "--test_after_fit=false", *QUIET)


def task(kind, options=(), **more):
    given = TINY | {"stem": kind.split()[-1]} | ({"strides": [2, 2]} if kind in STRIDED else {}) | dict(options)
    made = MaskedPretraining("lambda_encoder", given, facts=FACTS[kind], **more)
    made.log = lambda *_, **__: None
    return made


def batch(kind, rows=4, length=30):
    """A ragged batch; the last row has no real position."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(length) < torch.tensor([length, length - 7, 9, 0][:rows])[:, None]
    x = {
        "tokens": torch.randint(1, 20, (rows, length), generator=generator) * mask,
        "features": torch.randint(0, 256, (rows, length, 3), generator=generator).to(torch.uint8),
        "waveform": torch.randn(rows, length, generator=generator),
    }[kind.split()[-1]]
    return {"x": x, "mask": mask, "id": [str(row) for row in range(rows)]}  # and no labels


@pytest.mark.parametrize(("share", "span"), [(0.15, 1), (0.3, 6), (0.75, 16)])
def test_the_share_that_is_hidden_is_the_same_at_all_positions(share, span):
    random = np.random.default_rng(0)
    hidden = torch.stack([choose_spans(40, share, span, random) for _ in range(4000)]).float()
    assert hidden.shape == (4000, 40)
    assert (hidden.mean(0) - share).abs().max() < 0.05  # standard deviation at most 0.008
    # In the middle no run is shorter than a span
    runs = [len(run) for row in hidden.int().tolist() for run in "".join(map(str, row)).strip("1").split("0") if run]
    assert min(runs) == span


@pytest.mark.parametrize("kind", list(FACTS))
def test_what_is_hidden_depends_on_seed_stage_epoch_and_row_alone(kind):
    made, given = task(kind), batch(kind)
    x, mask = made.inputs(given)
    chosen = made._choose("val", x, mask, 0, given)
    assert torch.equal(chosen, made._choose("val", x, mask, 1, given))
    assert not chosen[3].any()  # no real position
    assert not torch.equal(chosen, made._choose("train", x, mask, 0, given))
    other = task(kind)
    other.seed = 1
    assert not torch.equal(chosen, other._choose("val", x, mask, 0, given))
    made.trainer = SimpleNamespace(current_epoch=1, world_size=1)
    assert torch.equal(chosen, made._choose("val", x, mask, 0, given))
    assert not torch.equal(other._choose("train", x, mask, 0, given), made._choose("train", x, mask, 0, given))


@pytest.mark.parametrize("kind", list(FACTS))
def test_neither_batch_nor_padding_nor_order_changes_what_is_hidden(kind):
    made, given = task(kind), batch(kind)
    together = made._choose("val", *made.inputs(given), 0, given)
    for row in range(4):
        count = int(given["mask"][row].sum())
        alone = {"x": given["x"][row : row + 1, : max(count, 1)], "mask": given["mask"][row : row + 1, : max(count, 1)]}
        hidden = made._choose("val", *made.inputs(alone), 3, alone)
        assert torch.equal(hidden[0], together[row, : hidden.shape[1]])
        assert not together[row, hidden.shape[1] :].any()
    turned = {name: given[name].flip(0) for name in ("x", "mask")}
    turned["x"][~turned["mask"]] = 9  # what stands in padding does not matter
    assert torch.equal(made._choose("val", *made.inputs(turned), 0, turned).flip(0), together)


@pytest.mark.parametrize("kind", list(FACTS))
@pytest.mark.parametrize("causal", [False, True])
def test_no_answer_depends_on_anything_hidden(kind, causal):
    made = task(kind, {"causal": causal}).eval()
    x, mask = made.inputs(batch(kind))
    hidden = torch.zeros(4, 8 if kind in STRIDED else 30, dtype=torch.bool)
    hidden[0, 3:5], hidden[1, [1, 4]], hidden[2, 1] = True, True, True
    answer = made(x, mask, hidden)
    assert answer.shape == (5, {"tokens": 20, "features": 3, "waveform": 4, "frames of tokens": 80}[kind])
    covered = made._samples(hidden, x.shape[1])
    assert covered.sum() == 5 * made.frame
    other = x.clone()
    other[covered] = 7
    assert torch.equal(made(other, mask, hidden), answer)
    other = x.clone()
    other[~covered] = 7
    assert not torch.allclose(made(other, mask, hidden), answer)
    padded = x.clone()
    padded[~mask] = 3
    assert torch.equal(made(padded, mask, hidden), answer)


def test_hidden_tokens_are_the_padding_id_and_the_loss_is_cross_entropy():
    facts = FACTS["tokens"] | {"tokens": {"pad": 5}}
    made = MaskedPretraining("lambda_encoder", TINY, facts=facts, hidden=0.5, span=2)
    made.log = lambda *_, **__: None
    given = batch("tokens")
    hidden = made._choose("train", given["x"], given["mask"], 0)
    features, _ = made.network.features(torch.where(hidden, 5, given["x"]), given["mask"])
    expected = F.cross_entropy(made.network.head(features)[hidden], given["x"][hidden])
    assert torch.allclose(made.training_step(given, 0), expected)


def test_frames_are_predicted_where_they_lie():
    """Frame j of stride 4 is samples 4·j − 2 … 4·j + 1; causal: 4·j − 3 … 4·j."""
    for causal, before in ((False, 2), (True, 3)):
        made = task("waveform", {"causal": causal})
        x = torch.arange(1.0, 15.0)[None]  # (1, 14): frames 0 … 3
        hidden = torch.tensor([[True, False, True, True]])
        values, real = made._targets(x, None, hidden)
        standardised = (x - x.mean()) / x.std(correction=0)
        for row, frame in enumerate((0, 2, 3)):
            places = [4 * frame - before + offset for offset in range(4)]
            assert real[row].tolist() == [0 <= place < 14 for place in places]
            for offset, place in enumerate(places):
                if 0 <= place < 14:
                    assert values[row, offset] == pytest.approx(standardised[0, place])
                    assert made._samples(hidden, 14)[0, place]


def test_each_token_of_a_hidden_frame_is_said():
    made, given = task("frames of tokens"), batch("tokens")
    hidden = made._choose("train", given["x"], given["mask"], 0)  # (4, 8)
    logits = made(given["x"], given["mask"], hidden).unflatten(1, (4, 20))
    losses = []
    for (row, frame), answer in zip(hidden.nonzero().tolist(), logits, strict=True):
        for place, said in zip(range(4 * frame - 2, 4 * frame + 2), answer, strict=True):
            if 0 <= place < 30 and given["mask"][row, place]:
                losses.append(F.cross_entropy(said, given["x"][row, place]))
    assert torch.allclose(made.training_step(given, 0), torch.stack(losses).mean())


def test_loudness_and_padding_change_no_target():
    made, given = task("waveform"), batch("waveform")
    hidden = made._choose("train", given["x"], given["mask"], 0)
    values, real = made._targets(given["x"], given["mask"], hidden)
    louder = torch.where(given["mask"], 50 * given["x"] + 3, torch.nan)
    for found, expected in zip(made._targets(louder, given["mask"], hidden), (values, real), strict=True):
        assert torch.allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("kind", list(FACTS))
def test_a_batch_without_a_real_position_teaches_nothing(kind):
    made, given = task(kind), batch(kind)
    given["mask"] = torch.zeros_like(given["mask"])
    loss = made.training_step(given, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("kind", list(FACTS))
def test_all_weights_that_train_get_a_gradient(kind):
    made = task(kind, {"pool": "attention"})
    made.training_step(batch(kind), 0).backward()
    assert [name for name, p in made.named_parameters() if p.requires_grad and p.grad is None] == []


def test_long_documents_are_read_some_windows_at_a_time():
    made, given = task("tokens").eval(), batch("tokens")
    pieces = given | {"document": torch.tensor([0, 0, 1, 1]), "at_once": 3}
    assert torch.allclose(made._step("val", pieces, 0), made._step("val", given, 0))


def test_explained_variance():
    metric = Explained()
    metric.update(torch.zeros(0), torch.zeros(0))
    assert metric.compute().isnan()
    metric.reset()
    target = torch.tensor([1.0, 2.0, 3.0])
    metric.update(torch.full((3,), 2.0), target)
    assert metric.compute() == 0
    metric.reset()
    metric.update(target, target)
    assert metric.compute() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 1.0}, r"hidden=1.0"),
        ({"span": 0}, "span=0"),
        ({"warmup": 2.0}, "warmup=2.0"),
        ({"network": "lambda_lm", "options": {"dim": 8}}, "LambdaLM, which has no features"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedPretraining(**({"options": TINY, "facts": FACTS["tokens"]} | options))


def saved(folder):
    checkpoint = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    return checkpoint["state_dict"] | {"step": torch.tensor(checkpoint["global_step"])}


@pytest.mark.parametrize("step", [2, 6])
def test_a_resumed_pretraining_is_the_one_that_never_stopped(cli, pictures, step):
    command = ("fit", *RESUMED, "--data.path", pictures)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", f"--trainer.max_steps={step}")
    cli(*command, "--output_dir=part", "--ckpt_path=last", "--seed_everything=9")
    whole, part = saved("whole"), saved("part")
    assert whole["step"] == 8
    assert whole.keys() == part.keys()
    for name, tensor in whole.items():
        assert torch.equal(part[name], tensor), name


def body(weights, prefix="network."):
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix) and not name.startswith((f"{prefix}head.", f"{prefix}pool."))
    }


@pytest.fixture
def said(monkeypatch):
    """What loading weights said."""
    lines = []
    monkeypatch.setattr("lambda_seq.tasks.transfer.rank_zero_info", lines.append)
    return lines


def test_texts_pretrained_then_fine_tuned(cli, stories, said):
    pretrain = (*TEXTS, "--data.path", stories, "--model=MaskedPretraining", "--output_dir=pre")
    shown = cli("fit", *pretrain, *SHORT)
    summary = json.loads(Path("pre/summary.json").read_text())
    assert set(summary) == {"test/loss", "test/accuracy", *LEFT}
    assert 0 <= summary["test/accuracy"] <= 1
    assert "support" not in shown.out
    assert "fine-tune first" in cli("predict", *pretrain, *QUIET, code=1).err

    best = "pre/checkpoints/best.ckpt"
    command = ("fit", *TEXTS, "--data.path", stories, f"--model.init_from={best}", *SHORT)
    # At rate 0 no weight is changed but the averages of batch norms
    norms = ("--model.options.norm=rms", "--model.options.block_norm=layer")
    cli("fit", *TEXTS, "--data.path", stories, "--model=MaskedPretraining", "--output_dir=rms", *SHORT, *norms)
    still = ("--model.optimizer.lr=0", *norms, "--model.options.pool=attention", "--output_dir=still")
    cli(*command, *still, "--model.init_from=rms/checkpoints/best.ckpt")
    assert "new are pool.query, head.weight, head.bias" in said[0]
    found = body(torch.load("still/checkpoints/last.ckpt", weights_only=True)["state_dict"])
    expected = body(torch.load("rms/checkpoints/best.ckpt", weights_only=True)["state_dict"])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name

    cli(*command, "--output_dir=fine", "--trainer.max_epochs=2", "--trainer.max_steps=5")
    Path(best).unlink()  # it is needed at the beginning only
    cli(*command, "--output_dir=fine", "--trainer.max_epochs=2", "--ckpt_path=last")
    cli("test", *TEXTS, "--data.path", stories, *QUIET, f"--model.init_from={best}", "--output_dir=fine")


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_pixels_and_audio_pretrained_then_fine_tuned(cli, pictures, said, kind):
    config = ("--config", "tasks/configs/digits_sequence.yaml", "--data.path", str(pictures), "--data.batch_size=8")
    if kind == "waveform":
        config = ("--config", "tasks/configs/audio_classification.yaml", "--trainer.limit_train_batches=2")
    config = (*config, *TINY_ENCODER, *SHORT)
    cli("fit", *config, "--model=MaskedPretraining", "--output_dir=pre")
    assert Path("pre/checkpoints/best.ckpt").is_file()
    assert json.loads(Path("pre/summary.json").read_text()).keys() >= {"test/r2", "test/loss"}
    cli("fit", *config, "--model.init_from=pre/checkpoints/best.ckpt", "--output_dir=fine")
    assert "new are head.weight, head.bias" in said[0]


@pytest.fixture
def source(cli, stories):
    """A saved folder and a checkpoint to start from."""
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=first")
    return stories


def test_from_a_saved_folder_for_other_classes(cli, source, said, tmp_path):
    rows = [row | {"label": f"{row['label']} {index % 3}"} for index, row in enumerate(texts(40))]
    other = write_jsonl(tmp_path / "other.jsonl", rows)
    command = ("fit", *TEXTS, "--data.path", other, *SHORT, "--output_dir=second", "--model.init_from=first/model")
    cli(*command)
    assert "new are head.weight, head.bias" in said[0]
    assert len(lambda_seq.from_pretrained("second/model").labels) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model.init_from=nowhere",), ("init_from='nowhere'", "no such file or folder")),
        (("--model.init_from=broken.ckpt",), ("broken.ckpt", "no checkpoint of lambda_seq")),
        (("--model.options.dim=16",), ("of another network", "dim is 8 there, 16 here", "there: lambda_encoder(")),
        (("--model.options.key_norm=l2",), ("key_norm is 'softmax' there, 'l2' here",)),
        (
            ("--data.tokenizer=train", "--data.vocab_size=300"),
            ("give its tokenizer.json as --data.tokenizer", "or other weights"),
        ),
        (("--model.init_from=first/model", "--model.options.depth=2"), ("depth is 1 there, 2 here",)),
        (("--ckpt_path=pre/checkpoints/last.ckpt",), ("masked pretraining", "--model.init_from")),
    ],
)
def test_weights_that_do_not_fit(cli, source, arguments, words):
    Path("broken.ckpt").write_bytes(b"no checkpoint")
    if "ckpt_path" in arguments[0]:
        cli("fit", *TEXTS, "--data.path", source, *SHORT, "--model=MaskedPretraining", "--output_dir=pre")
    start = ("--model.init_from=first/checkpoints/best.ckpt",)
    result = cli("fit", *TEXTS, "--data.path", source, *SHORT, *start, *arguments, "--output_dir=other", code=1)
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err


def test_another_tokenizer_of_the_same_size(cli, source, tmp_path):
    sized = ("--data.tokenizer=train", "--data.vocab_size=262", *SHORT)
    cli("fit", *TEXTS, "--data.path", source, *sized, "--output_dir=first", "--overwrite")
    rows = [row | {"text": row["text"].upper()} for row in texts(40)]
    other = write_jsonl(tmp_path / "other.jsonl", rows)
    for start in ("first/checkpoints/best.ckpt", "first/model"):
        command = ("fit", *TEXTS, "--data.path", other, *sized, f"--model.init_from={start}", "--output_dir=other")
        assert "tokens of another tokenizer" in cli(*command, code=1).err


def test_a_network_for_images_has_no_features(cli, pictures):
    command = ("fit", "--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, "--data.path", pictures)
    result = cli(*command, "--model=MaskedPretraining", *SHORT, code=1)
    assert "choose lambda_encoder" in result.err
    assert "--data.as_sequence true" in result.err
