import io
import subprocess
import sys
from types import SimpleNamespace

import generate
import pytest
import torch
from paths import ROOT

from lambda_seq import create_model
from lambda_seq.tasks.data.reading.tokens import Tokens

TEXT = "the cat sat on the mat, the café 日本 naïve\n" * 40


def small(vocab_size, **options):
    torch.manual_seed(0)
    return create_model("lambda_lm_tiny", **{"vocab_size": vocab_size, "dim": 16, "scope": 9, **options}).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of models, of bytes and of a trained tokenizer."""
    root = tmp_path_factory.mktemp("models")
    words = Tokens.train([TEXT], 300, folder=root)
    small(257).save_pretrained(root / "bytes")
    small(words.vocab_size).save_pretrained(root / "words", tokenizer=words.tokenizer)
    return SimpleNamespace(root=root, words=words)


def run(capsys, *arguments):
    code = generate.main([*map(str, arguments)])
    return code, capsys.readouterr()


def test_text_goes_on_from_a_prompt(trained, capsys):
    options = ("--tokens", "30", "--seed", "3", "--endless")
    code, first = run(capsys, trained.root / "bytes", "--prompt", "the cat", *options)
    assert code == 0
    assert first.out.startswith("the cat")
    assert "30 tokens after 7: " in first.err
    prompt = torch.tensor([[0, *(byte + 1 for byte in b"the cat")]])
    ids = small(257).generate(prompt, 30, temperature=0.8, seed=3, pad_id=-1)[0]
    decoder = generate.Decoder(Tokens())
    assert first.out == "the cat" + "".join(decoder.add(int(token)) for token in ids) + decoder.end() + "\n"
    assert run(capsys, trained.root / "bytes", "--prompt", "the cat", *options)[1].out == first.out
    other = run(capsys, trained.root / "bytes", "--prompt", "the cat", *options[:2], "--seed", "4", "--endless")[1]
    assert other.out != first.out


def test_a_file_is_not_shown(trained, capsys, tmp_path, monkeypatch):
    (tmp_path / "prompt.txt").write_bytes(b"the caf\xc3\xa9 \xff")
    options = ("--tokens", "5", "--temperature", "0", "--endless")
    found = run(capsys, trained.root / "bytes", "--prompt-file", tmp_path / "prompt.txt", *options)[1]
    assert "5 tokens after 11: " in found.err
    assert not found.out.startswith("the")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"the caf\xc3\xa9 \xff")))
    assert run(capsys, trained.root / "bytes", "--prompt-file", "-", *options)[1].out == found.out


def test_a_tokenizer_of_the_model_is_used(trained, capsys):
    found = run(capsys, trained.root / "words", "--prompt", "the cat sat", "--tokens", "9", "--temperature", "0")[1]
    prompt = trained.words.encode("the cat sat").tolist()
    assert f"tokens after {len(prompt)}: " in found.err
    pad = trained.words.pad
    ids = small(trained.words.vocab_size).generate(
        torch.tensor([[pad, *prompt]]), 9, temperature=0, stop=pad, pad_id=pad
    )
    assert found.out.strip() == trained.words.decode([*prompt, *ids[0].tolist()]).strip()


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_characters_come_whole(trained, kind):
    tokens = Tokens() if kind == "bytes" else trained.words
    text = "naïve café: 日本 👋🏽, the mat\n"
    decoder, parts = generate.Decoder(tokens), []
    for token in tokens.encode(text).tolist():
        parts.append(decoder.add(token))
    assert "".join(parts) + decoder.end() == text
    assert not any("\ufffd" in part for part in parts)


def test_bytes_that_are_no_text_are_shown_as_such():
    decoder = generate.Decoder(Tokens())
    assert "".join(decoder.add(byte + 1) for byte in b"a\xffb\xe6\x97") + decoder.end() == "a\ufffdb\ufffd"
    assert decoder.add(0) == "\n\n"


def test_a_character_that_never_ends_is_shown_at_the_end(trained):
    decoder, ids = generate.Decoder(trained.words), trained.words.encode("mat 日").tolist()
    assert "".join(decoder.add(token) for token in ids[:-1]) == "mat"
    assert decoder.add(trained.words.pad) == " \ufffd\n\n"
    assert "".join(decoder.add(token) for token in ids) + decoder.end() == "mat 日"


def test_control_characters_do_not_reach_a_terminal(monkeypatch, capsys):
    generate.write("a\x1b[2Jb\n")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"  # a file gets what there is
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    generate.write("a\x1b[2Jb\tc\n")
    assert capsys.readouterr().out == "a\ufffd[2Jb\tc\n"


def test_it_ends_where_it_should(trained, capsys):
    options = ("--temperature", "1.5", "--seed", "1", "--tokens", "3000", "--prefill", "3")
    ended = run(capsys, trained.root / "bytes", "--prompt", "the cat", *options)[1]
    assert "3,000 tokens" not in ended.err  # padding, which an untrained model gives now and then, is the end
    whole = run(capsys, trained.root / "bytes", "--prompt", "the cat", *options, "--endless")[1]
    assert "3,000 tokens" in whole.err
    assert "\n\n" in whole.out
    stopped = run(capsys, trained.root / "bytes", "--prompt", "the cat", *options, "--endless", "--stop", "e", "\\n")[1]
    assert stopped.out[:-1].removeprefix("the cat")[-1] in "e\n"


def test_a_checkpoint_of_the_task_will_do(trained, capsys, tmp_path):
    model = small(257)
    facts = {"input": "tokens", "options": {"vocab_size": 257}, "tokens": Tokens().facts}
    options = {"dim": 16, "scope": 9}
    checkpoint = {
        "hyper_parameters": {"network": "lambda_lm_tiny", "options": options, "facts": facts},
        "state_dict": {f"network.{name}": tensor for name, tensor in model.state_dict().items()},
    }
    torch.save(checkpoint, tmp_path / "best.ckpt")
    rest = ("--prompt", "the cat", "--tokens", "12", "--seed", "0")
    assert run(capsys, tmp_path / "best.ckpt", *rest)[1].out == run(capsys, trained.root / "bytes", *rest)[1].out


def test_interrupted(trained, capsys, monkeypatch):
    def interrupted(self, *given, **options):
        yield torch.tensor([66])
        yield torch.tensor([67])
        raise KeyboardInterrupt

    monkeypatch.setattr("lambda_seq.models.LambdaLM.generate_steps", interrupted)
    code, found = run(capsys, trained.root / "bytes")
    assert (code, found.out) == (130, "AB\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "name_or_path='nowhere' is no folder here"),
        (["{root}/bytes", "--stop", "ab"], "--stop 'ab' is 2 tokens: expected text that is one, of bytes"),
        (["{root}/bytes", "--temperature", "-1"], "temperature=-1.0: expected a number of at least 0"),
        (["{root}/bytes", "--tokens", "0"], "max_new_tokens=0: expected at least 1"),
        (["{root}/bytes", "--prompt-file", "{root}/none.txt"], "No such file"),
        (["{root}/bytes/config.json"], "config.json is no checkpoint of the language modelling task"),
        (["{root}/encoder"], "encoder holds a LambdaEncoder, which generates no text"),
        (
            ["{root}/odd"],
            "odd: the model has vocab_size=12 but its tokens are 257, of bytes: save it with its tokenizer",
        ),
    ],
)
def test_errors_are_one_line(trained, arguments, message):
    create_model("lambda_encoder_tiny").save_pretrained(trained.root / "encoder")
    small(12).save_pretrained(trained.root / "odd")
    with pytest.raises(SystemExit) as stopped:
        generate.main([argument.format(root=trained.root) for argument in arguments])
    assert str(stopped.value).startswith("error: ")
    assert message in str(stopped.value)


def test_the_command_line(trained):
    command = [sys.executable, "scripts/generate.py", str(trained.root / "bytes"), "--prompt", "the", "--tokens", "3"]
    done = subprocess.run([*command, "--threads", "1"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"the")
