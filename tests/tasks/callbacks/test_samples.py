"""Generated text after validation."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models

from lambda_seq import create_model
from lambda_seq.tasks.callbacks.samples import SHOWN, TextSamples
from lambda_seq.tasks.data.reading.tokens import Tokens


def task(tokens=None, **options):
    tokens = tokens or Tokens()
    torch.manual_seed(0)
    network = create_model("lambda_lm_tiny", vocab_size=tokens.vocab_size, **options).train()
    return SimpleNamespace(network=network, hparams={"facts": {"tokens": tokens.facts}}, device=torch.device("cpu"))


def trainer(tmp_path, **options):
    given = {"sanity_checking": False, "is_global_zero": True, "global_step": 7, "fast_dev_run": False, "loggers": []}
    return SimpleNamespace(**given | {"default_root_dir": str(tmp_path)} | options)


def test_samples_go_to_a_file_and_the_console(tmp_path, capsys):
    model, callback = task(), TextSamples(prompt="To be", count=2, length=600, temperature=1.0)
    before = torch.get_rng_state()
    callback.on_validation_end(trainer(tmp_path), model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.network.training
    text = (tmp_path / "samples.txt").read_text()
    assert text.startswith("--- step 7, sample 1\nTo be")
    assert "--- step 7, sample 2\nTo be" in text
    out = capsys.readouterr().out
    assert "--- step 7, sample 1 of 2" in out
    assert len(out) < SHOWN + 300
    callback.on_validation_end(trainer(tmp_path), model)
    again = (tmp_path / "samples.txt").read_text()
    assert again == text + text  # the same seed


def test_seeds_differ(tmp_path):
    model = task()
    first, other = (TextSamples(length=30, seed=seed).generate(model) for seed in (0, 1))
    assert first != other
    assert TextSamples(length=30, seed=0).generate(model) == first
    assert TextSamples(length=30, temperature=0, count=2, prompt="x").generate(model)[0].startswith("x")


def test_a_sample_ends_where_the_text_does():
    model, given = task(), {}

    def generate(prompt, length, **options):
        given.update(options, prompt=prompt.tolist(), length=length)
        return torch.tensor([[ord("c") + 1, 0, 0], [0, 0, 0]])

    model.network.generate = generate
    assert TextSamples(length=50, prompt="ab", count=2, top_k=5).generate(model) == ["abc", "ab"]
    assert given == {
        "prompt": [[0, 98, 99]] * 2,
        "length": 50,
        "temperature": 0.8,
        "top_k": 5,
        "top_p": None,
        "seed": 0,
        "stop": 0,
        "pad_id": 0,
    }


def test_a_tokenizer_writes_its_own_text():
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?"))
    samples = TextSamples(length=9, prompt="a").generate(task(Tokens(words)))
    assert set(samples[0].split()) <= {"a", "b", "?"}


def test_tables_limit_the_length():
    model = task(scope=None, max_length=12)
    assert len(TextSamples(length=50, prompt="abc").generate(model)[0].encode()) <= 3 * 3 + 9 * 3
    with pytest.raises(ValueError, match="a prompt of 12 tokens leaves no room in max_length=12"):
        TextSamples(prompt="a" * 12).generate(model)


def test_every_other_validation_and_not_the_check_before_training(tmp_path):
    model, callback = task(), TextSamples(length=3, every=2)
    callback.on_validation_end(trainer(tmp_path, sanity_checking=True), model)
    callback.on_validation_end(trainer(tmp_path), model)
    assert not (tmp_path / "samples.txt").exists()
    resumed = TextSamples(length=3, every=2)
    resumed.load_state_dict(callback.state_dict())
    resumed.on_validation_end(trainer(tmp_path), model)
    assert (tmp_path / "samples.txt").exists()
    other = TextSamples(length=3, path=str(tmp_path / "other" / "s.txt"))
    other.on_validation_end(trainer(tmp_path, is_global_zero=False), model)
    assert not (tmp_path / "other").exists()
    other.on_validation_end(trainer(tmp_path), model)
    assert (tmp_path / "other" / "s.txt").exists()


def test_a_run_that_goes_on_writes_what_one_that_was_not_killed_writes(tmp_path, capsys):
    model, file = task(), tmp_path / "samples.txt"
    file.write_text("of an earlier training")
    callback = TextSamples(length=3)
    callback.on_train_start(trainer(tmp_path), model)
    assert f"the samples of an earlier training in {file} are replaced" in capsys.readouterr().err
    for _ in range(2):
        callback.on_validation_end(trainer(tmp_path), model)
        whole, state = file.read_text(), callback.state_dict()
    callback.on_validation_end(trainer(tmp_path), model)  # and is killed after it
    resumed = TextSamples(length=3)
    resumed.load_state_dict(state)
    resumed.on_train_start(trainer(tmp_path), model)
    assert file.read_text() == whole
    old = TextSamples(length=3)
    old.load_state_dict({"validations": 1})  # a checkpoint that does not say how long the file was
    old.on_train_start(trainer(tmp_path), model)
    assert file.read_text() == whole


@pytest.mark.parametrize("option", ["count", "length", "every"])
def test_bad_options(option):
    with pytest.raises(ValueError, match=f"{option}=0: expected at least 1"):
        TextSamples(**{option: 0})


def test_other_tasks_write_no_text():
    other = SimpleNamespace(network=create_model("lambda_encoder_tiny"), hparams={"facts": {}})
    for begin in (TextSamples().on_fit_start, TextSamples().on_validation_start):
        with pytest.raises(ValueError, match="SimpleNamespace of LambdaEncoder generates no text"):
            begin(None, other)
