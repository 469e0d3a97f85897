"""Networks for data, and what they count in them: words, as n-grams that weigh by how many texts have them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from small_data import QUIET, SHORT, TINY_ENCODER, texts, write_jsonl

import lambda_seq
from lambda_seq.models.words import word_ids
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import CorpusData, RecallData, TextData
from lambda_seq.tasks.networks import adapt, network_for

STEM = (
    *("--model.options.stem=ngrams", "--model.options.buckets=500", "--model.options.strides=[]"),
    *("--model.options.idf=true", "--model.options.df_power=0.5", "--model.options.tf=log"),
)
WORDS = (
    *("fit", "--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *QUIET, "--data.batch_size=4"),
    *("--data.tokenizer=words", *STEM, "--model.options.pool=sqrt", "--trainer.max_epochs=2"),
)
ALONE = ("--model.options.depth=0", "--model.options.block_norm=none")


def weights(folder, name="last"):
    return torch.load(f"{folder}/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def counted(documents, buckets=500, **options):
    """What a stem finds in them."""
    options = {"stem": "ngrams", "buckets": buckets, "idf": True, "df_power": 0.5, "tf": "log", **options}
    stem = network_for("lambda_encoder", options, FACTS).stem
    stem.adapt(documents)
    return stem.weight


FACTS = {"input": "tokens", "options": {"num_classes": 2, "vocab_size": 2**31}, "labels": ["a", "b"]}


@pytest.mark.parametrize("more", [ALONE, ()], ids=["alone", "with a block"])
def test_words_are_classified_and_saved(cli, stories, more):
    printed = cli(*WORDS, *more, "--data.path", stories, "--output_dir=run", "--trainer.max_epochs=4").out
    assert "test/accuracy" in printed
    data = TextData(str(stories), tokenizer="words")
    model = lambda_seq.from_pretrained("run/model")
    assert torch.equal(model.stem.weight, counted(data.training_ids()))
    assert model.preprocessing["tokens"].items() >= {"kind": "words", "pad": 0, "vocab_size": 2**31}.items()
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        answers = model(batch["x"], batch["mask"]).softmax(-1)
        alone = model(torch.tensor([word_ids("Cat naïve")])).softmax(-1)
    assert alone.shape == (1, 2)
    if more:  # a linear model has learned so much within 32 steps
        assert model.labels[alone.argmax()] == "feline"
    task = Classification.load_from_checkpoint("run/checkpoints/best.ckpt", map_location="cpu").eval()
    torch.testing.assert_close(task(batch).softmax(-1), answers)
    card = Path("run/model/README.md").read_text(encoding="utf-8")
    assert "| input | tokens, words as hashes |" in card
    namespace = {}
    for block in card.split("```python\n")[1:]:  # with texts as they are, and with ids
        exec(compile(block.split("```")[0], "README.md", "exec"), namespace)
    assert namespace["found"].label in model.labels
    assert namespace["answer"].shape == (1, 2)


def test_a_resumed_run_is_the_run_that_was_never_stopped(cli, stories):
    command = (*WORDS, "--data.path", stories, "--model.options.token_dropout=0.3", "--test_after_fit=false")
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", "--trainer.max_steps=5")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    assert_same(weights("part"), weights("whole"))


def test_a_resumed_run_counts_nothing_anew(cli, stories, monkeypatch):
    command = (*WORDS, *ALONE, "--data.path", stories, "--output_dir=run", "--test_after_fit=false")
    cli(*command, "--trainer.max_epochs=1")
    monkeypatch.setattr(TextData, "training_ids", None)
    cli(*command, "--ckpt_path=last")


@pytest.mark.slow
def test_weights_of_another_training_keep_what_they_were_counted_in(cli, stories, tmp_path):
    cli(*WORDS, "--data.path", stories, "--output_dir=first", "--trainer.max_epochs=1")
    other = write_jsonl(tmp_path / "other.jsonl", [row | {"text": f"{row['text']} more"} for row in texts(30)])
    for source in ("first/checkpoints/last.ckpt", "first/model"):
        command = (*WORDS, "--data.path", other, "--output_dir=second", "--trainer.max_epochs=1", "--overwrite")
        cli(*command, f"--model.init_from={source}")
        assert torch.equal(weights("second")["network.stem.weight"], weights("first")["network.stem.weight"])
    result = cli(*command, "--model.init_from=first/model", "--data.tokenizer=bytes", code=1)
    assert "vocabulary" in result.err or "tokens" in result.err


@pytest.mark.slow
def test_two_processes_count_alike(cli, stories):
    same = (*WORDS, *ALONE, "--data.path", stories, "--model.options.dropout=0", "--model.options.token_dropout=0")
    same = (*same, "--data.bucket=false", "--test_after_fit=false", "--trainer.accelerator=cpu")
    cli(*same, "--output_dir=one")
    run(*same, "--output_dir=two", "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")
    found, expected = weights("two"), weights("one")
    assert torch.equal(found["network.stem.weight"], expected["network.stem.weight"])
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_an_average_of_weights_has_what_was_counted(cli, stories):
    cli(*WORDS, *ALONE, "--data.path", stories, "--output_dir=run", "--ema_decay=0.9")
    assert torch.equal(weights("run", "best")["network.stem.weight"], weights("run")["network.stem.weight"])


@pytest.mark.slow
def test_bytes_and_tokens_have_ngrams_too(cli, stories):
    for tokenizer in ("bytes", "train"):
        options = (f"--data.tokenizer={tokenizer}", "--data.vocab_size=270", "--model.options.orders=[1,2,3,4]")
        cli(*WORDS, *options, "--data.path", stories, f"--output_dir={tokenizer}", "--trainer.max_epochs=1")
        model = lambda_seq.from_pretrained(f"{tokenizer}/model")
        assert model.stem.orders == (1, 2, 3, 4)
        assert (model.tokenizer is None) == (tokenizer == "bytes")


def test_hidden_tokens_are_said_by_ngrams(cli, stories):
    options = ("--model=MaskedPretraining", "--data=TextData", f"--data.path={stories}", "--data.batch_size=8")
    options = (*options, "--model.network=lambda_encoder", *TINY_ENCODER, *STEM, *SHORT, "--test_after_fit=false")
    cli("fit", *options, "--output_dir=run")
    assert weights("run")["network.head.weight"].shape[0] == 257
    assert not (weights("run")["network.stem.weight"] == 1).all()
    result = cli("fit", *options, "--output_dir=words", "--data.tokenizer=words", code=1)
    assert (
        "head='tokens': which of all ids a token is cannot be said where words are known by their hashes" in result.err
    )


def test_words_need_ngrams(cli, stories):
    others = (f"--model.options.{name}=null" for name in ("buckets", "idf", "df_power", "tf"))
    result = cli(*WORDS, "--data.path", stories, "--model.options.stem=tokens", *others, code=1)
    assert "vocab_size=2147483648: ids of words are hashes, too many for a vector of each" in result.err
    with pytest.raises(ValueError, match=r"tokenizer='words' knows words by hashes, of which none can be predicted"):
        CorpusData("anywhere", tokenizer="words")


def test_text_to_predict_is_counted_in_pieces(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "abcdefghi"}, {"text": ""}, {"text": "xy"}])
    data = CorpusData(str(file), validation_fraction=0, length=4)
    assert [data.tokens.decode(ids) for ids in data.training_ids()] == ["abcd", "efgh", "i", "xy"]
    assert CorpusData(str(file), validation_fraction=0, streaming=True).training_ids() is None


def test_data_without_documents_leave_the_weights_alone(caplog):
    for data in (None, RecallData()):
        network = network_for("lambda_encoder", {"stem": "ngrams", "buckets": 50, "idf": True}, FACTS)
        adapt(network, data)
        assert (network.stem.weight == 1).all()
    assert "stem: these data give no documents to count tokens in, so that all weigh alike" in caplog.text
    caplog.clear()
    adapt(network_for("lambda_encoder", {"stem": "ngrams", "buckets": 50, "idf": False}, FACTS), None)
    assert not caplog.text


def test_what_was_counted_has_a_mean_square_of_one():
    random = np.random.default_rng(0)
    weight = counted([random.integers(1, 9, 20) for _ in range(30)], orders=[2])
    assert weight.max() > 1 > weight[weight > 0].min()
