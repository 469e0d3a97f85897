"""Predictors of models that are saved by hand: forms of inputs, heads, language models, and what cannot be read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import lambda_seq
from lambda_seq.inference.answers import Generation
from lambda_seq.inference.predictor import Predictor

SMALL = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}
RECORDS = {
    "text": {"tokens": {"kind": "bytes", "pad": 0, "vocab_size": 257, "max_length": 16, "part": "start"}},
    "picture": {"input": "image", "mean": [90.0, 80.0, 70.0], "std": [40.0, 50.0, 60.0], "size": [8, 8]},
    "clip": {"audio": {"sampling_rate": 4000, "max_length": 400, "clip_length": 400, "evaluate": "whole"}},
}
OPTIONS = {
    "text": {"stem": "tokens", "vocab_size": 257, "strides": [2]},
    "picture": {},
    "clip": {"stem": "waveform", "strides": [4, 4]},
}
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
SAMPLES = (0.3 * RNG.standard_normal(300)).astype(np.float32)


def saved(folder, kind, record=None, **options):
    """The folder of a small model; `record` in place of what it says of its inputs."""
    torch.manual_seed(0)
    name = "lambda_resnet_tiny" if kind == "picture" else "lambda_encoder"
    common = {"num_classes": 2} if kind == "picture" else {"num_classes": 2, **SMALL}
    model = lambda_seq.create_model(name, **{**common, **OPTIONS[kind], **options})
    given = {"version": 1, **RECORDS[kind]} if record is None else record
    return model.eval().save_pretrained(
        folder, labels=["no", "yes"] if model.num_classes == 2 else None, preprocessing=given
    )


def predictor(folder, kind, **options):
    return lambda_seq.load_predictor(saved(folder, kind, **options))


def same(found):
    """All answers are one."""
    assert len({one.label for one in found}) == 1
    assert all(np.allclose(one.answer, found[0].answer, atol=1e-5) for one in found)


def test_forms_of_pictures(tmp_path):
    answers = predictor(tmp_path / "model", "picture")
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(file)
    tensor = torch.from_numpy(PIXELS).movedim(-1, 0)
    forms = [file, str(file), file.read_bytes(), Image.open(file), PIXELS, tensor]
    found = answers(forms)
    same([*found, *map(answers, forms)])
    assert [one.id for one in found] == [str(file), str(file), "2", "3", "4", "5"]
    same([*answers(np.stack([PIXELS, PIXELS])), *answers(torch.stack([tensor, tensor])), found[0]])
    same(answers([PIXELS[..., :1], PIXELS[..., 0], Image.fromarray(PIXELS[..., 0])]))
    expected = (tensor - torch.tensor([90.0, 80, 70]).view(3, 1, 1)) / torch.tensor([40.0, 50, 60]).view(3, 1, 1)
    with torch.no_grad():
        assert np.allclose(found[0].answer, answers.model(expected[None]).softmax(-1)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("text", {}),
        ("text", {"head": "positions"}),
        ("text", {"head": "embedding", "num_classes": None}),
        ("clip", {}),
        ("picture", {}),
    ],
)
def test_vectors_are_what_the_head_answers_from_whatever_they_are_padded_with(tmp_path, kind, options):
    found = predictor(tmp_path / "model", kind, **options)
    given = {"text": ["cat", "a longer text", ""], "picture": [PIXELS, PIXELS[:4]], "clip": [(SAMPLES, 4000)] * 2}[kind]
    vectors = found.embed(given)
    assert vectors.shape == (len(given), next(iter(found.model.head.parameters()), torch.zeros(1, 8)).shape[-1])
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.allclose(vectors[0], found.embed(given[0]), atol=1e-5)
    assert [one.id for one in found.embeddings(given)] == [str(index) for index in range(len(given))]
    if "head" not in options:
        with torch.no_grad():
            answers = found.model.objective.answers(found.model.head(torch.from_numpy(vectors)))
        assert np.allclose(answers, [one.answer for one in found(given)], atol=1e-5)
    assert found.embed([]).shape == (0, 0)
    assert not found.model.head._forward_pre_hooks


def test_vectors_of_long_texts_are_means_over_windows_and_language_models_have_none(tmp_path):
    reads = {"tokens": {"kind": "bytes", "max_length": 4, "part": "windows", "stride": 4}}
    found = predictor(tmp_path / "model", "text", record={"version": 1, **reads})
    parts = found.embed(["abcd", "efgh"])
    assert np.allclose(found.embed("abcdefgh"), parts.mean(0), atol=1e-6)
    writes = Predictor(lambda_seq.create_model("lambda_lm_tiny", vocab_size=257))
    with pytest.raises(TypeError, match="no vector of a whole text"):
        writes.embed("a text")


def test_forms_of_clips(tmp_path, caplog):
    answers = predictor(tmp_path / "model", "clip")
    file = tmp_path / "a.wav"
    whole = (SAMPLES * 32767).astype(np.int16)
    soundfile.write(file, whole, 4000)
    exact = whole / 32768
    stereo = np.stack([exact, exact], 1)
    forms = [file, str(file), file.read_bytes(), (exact, 4000), (torch.from_numpy(exact), 4000), (whole, 4000)]
    same(answers([*forms, (stereo, 4000), (stereo.T, 4000), {"array": exact, "sampling_rate": 4000}]))
    same(answers(((exact, 4000), (exact, 4000), file)))
    assert not caplog.text
    fast = answers((np.repeat(exact, 2), 8000))
    assert fast.answer.shape == (2,)
    assert caplog.messages == ["clips of 8000 samples per second are resampled to 4000"]


def test_forms_of_texts(tmp_path, caplog):
    answers = predictor(tmp_path / "model", "text")
    (tmp_path / "a.txt").write_text("naïve", encoding="utf-8")
    same(answers(["naïve", "naïve".encode(), tmp_path / "a.txt"]))
    same([*answers(("naïve", "naïve")), *answers(np.array(["naïve"])), *answers({"naïve": 1}.keys()), answers("naïve")])
    assert answers(str(tmp_path / "a.txt")).id == "0"  # a text as any other
    assert answers(tmp_path / "a.txt").id == str(tmp_path / "a.txt")
    assert not caplog.text
    empty, other = answers(["", "x"])
    assert "an empty text has no token" in caplog.text
    assert np.isfinite(empty.answer).all()
    assert other.probabilities == pytest.approx(answers("x").probabilities, abs=1e-6)  # as of a padded batch


@pytest.mark.parametrize(
    ("kind", "given", "error", "message"),
    [
        ("picture", Path("none.png"), ValueError, r"inputs\[1\], none.png: there is no such file"),
        ("picture", "a.txt", ValueError, r"inputs\[1\], a.txt: not a readable image"),
        ("picture", 3, TypeError, r"inputs\[1\]: int 3 is no picture: the model takes paths, bytes of files"),
        ("picture", PIXELS / 255, ValueError, r"an array of float64 with shape \(8, 8, 3\) is no picture: .*uint8"),
        ("picture", PIXELS[..., :2], ValueError, r"shape \(8, 8, 2\) is no picture"),
        ("clip", "none.wav", ValueError, r"inputs\[1\], none.wav: there is no such file"),
        ("clip", "a.txt", ValueError, r"inputs\[1\], a.txt: no audio that can be read"),
        ("clip", b"", ValueError, r"inputs\[1\]: holds no bytes"),
        ("clip", SAMPLES, TypeError, r"samples without their rate: give \(samples, rate\)"),
        ("clip", (SAMPLES, 0), ValueError, r"rate=0: expected the number of samples per second"),
        ("clip", (SAMPLES[:0], 4000), ValueError, r"samples of shape \(0,\), float32: expected numbers"),
        ("clip", (SAMPLES * np.nan, 4000), ValueError, r"samples that are infinite or no numbers"),
        ("clip", Image.fromarray(PIXELS), TypeError, r"inputs\[1\]: Image .* is no clip"),
        ("text", Path("none.txt"), ValueError, r"inputs\[1\], none.txt: there is no such file; a text itself is given"),
        ("text", 3.5, TypeError, r"inputs\[1\]: float 3.5 is no text: the model reads texts"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, kind, given, error, message):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("no picture, no audio")
    good = {"picture": PIXELS, "clip": (SAMPLES, 4000), "text": "good"}[kind]
    with pytest.raises(error, match=message):
        predictor(tmp_path / "model", kind)([good, given])


def test_heads(tmp_path):
    several = predictor(tmp_path / "a", "text", head="labels", num_classes=2)("some text")
    assert several.label is None
    assert several.labels == [name for name, chance in several.probabilities.items() if chance >= 0.5]
    numbers = predictor(tmp_path / "b", "text", head="numbers", num_classes=3)(["a text", "another"])
    assert [one.answer.shape for one in numbers] == [(3,), (3,)]
    assert numbers[0].labels is None
    vector = predictor(tmp_path / "c", "clip", head="embedding", num_classes=None)((SAMPLES, 4000))
    assert vector.answer.shape == (8,)
    assert np.linalg.norm(vector.answer) == pytest.approx(1, abs=1e-5)
    answers = predictor(tmp_path / "d", "text", head="positions", num_classes=2)
    each = answers(["abcde", "abcdefghi"])  # two bytes a frame
    assert [one.answer.shape for one in each] == [(3, 2), (5, 2)]
    assert set(each[1].labels) <= {"no", "yes"}
    assert np.allclose(answers("abcde").answer, each[0].answer, atol=1e-5)


def test_windows_of_a_head_that_answers_for_each_position(tmp_path):
    record = {"version": 1, "tokens": {**RECORDS["text"]["tokens"], "part": "windows", "stride": 16}}
    answers = predictor(tmp_path, "text", record=record, head="positions")
    assert answers("short").answer.shape == (3, 2)
    with pytest.raises(ValueError, match=r"inputs\[0\]: it is longer than the 16 positions that are read at once"):
        answers("a text of more than sixteen bytes")


def test_prompts(tmp_path):
    torch.manual_seed(0)
    model = lambda_seq.create_model("lambda_lm_tiny", vocab_size=257).eval()
    model.save_pretrained(tmp_path / "model", preprocessing={"version": 1, "tokens": {"kind": "bytes"}})
    writes = lambda_seq.load_predictor(tmp_path / "model")
    assert writes.kind == "prompt"
    found = writes("Once", max_new_tokens=5, temperature=0)
    assert isinstance(found, Generation)
    prompt = torch.tensor([[0, *(1 + byte for byte in b"Once")]])
    ids = model.generate(prompt, 5, temperature=0, stop=0)[0]
    assert found == Generation(
        "0", "Once", bytes(index - 1 for index in ids.tolist() if index).decode(errors="replace")
    )
    (tmp_path / "a.txt").write_text("Once")
    assert writes([tmp_path / "a.txt", ""], max_new_tokens=5, temperature=0)[0].text == found.text
    with pytest.raises(ValueError, match=r"inputs\[0\]: temperature=-1"):
        writes("a", temperature=-1)
    with pytest.raises(TypeError, match=r"call the predictor, or its `generate`"):
        list(writes.stream(["a"]))
    with pytest.raises(TypeError, match="writes no text"):
        predictor(tmp_path / "other", "text").generate(["a"])
    with pytest.raises(TypeError, match="temperature: the model is no language model"):
        predictor(tmp_path / "other", "text")("a", temperature=1)


def test_any_number_of_inputs_at_any_batch_size(tmp_path):
    folder = saved(tmp_path, "text")
    texts = ["a" * count for count in range(12)]
    expected = [one.answer for one in lambda_seq.load_predictor(folder)(texts)]
    for size in (1, 5):
        found = lambda_seq.load_predictor(folder, batch_size=size)(iter(texts))
        assert np.allclose([one.answer for one in found], expected, atol=1e-5)
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1"):
        lambda_seq.load_predictor(folder, batch_size=0)


@pytest.mark.parametrize(
    ("kind", "record", "missing"),
    [
        ("text", {"tokens": {"kind": "bytes", "pad": 0, "vocab_size": 257}, "max_length": 16}, "max_length, part"),
        (
            "picture",
            {"input": "image", "mean": [90.0, 80.0, 70.0], "std": [40.0, 50.0, 60.0], "image_size": [8, 8]},
            "size",
        ),
        ("clip", {"audio": {"sampling_rate": 4000, "max_length": 400}}, "clip_length, evaluate"),
    ],
)
def test_models_of_before_answer_and_say_what_is_missing(tmp_path, caplog, kind, record, missing):
    given = {"picture": PIXELS, "clip": (SAMPLES, 4000), "text": "good"}[kind]
    expected = predictor(tmp_path / "new", kind)(given)
    assert not caplog.text
    found = predictor(tmp_path / "old", kind, record=record)(given)
    same([expected, found])
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'old'} was saved before models said all of how inputs are read: {missing} is")


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("text", {}, "does not say how tokens are made of inputs, it says nothing"),
        ("picture", {"labels": "x"}, "does not say how image are made of inputs, it says only labels"),
        ("picture", {"mean": [1.0], "std": [1.0]}, "does not say the size that pictures are brought to"),
        ("clip", {"audio": {"max_length": 1}}, "Audio lacks an entry: .*'sampling_rate'"),
        ("text", {"version": 9}, "in version 9 of the record, and this lambda_seq knows 1: update it"),
        ("text", {"tokens": [1]}, "is no record of how inputs are read"),
    ],
)
def test_models_that_do_not_say_enough(tmp_path, kind, record, message):
    with pytest.raises(ValueError, match=message):
        predictor(tmp_path, kind, record=record)


def test_models_in_other_precisions(tmp_path):
    model = predictor(tmp_path, "picture").model.bfloat16()
    found = Predictor(model)(PIXELS)
    assert found.answer.dtype == np.float32
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_process_without_what_trains(tmp_path):
    saved(tmp_path / "model", "picture")
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    script = (
        "import sys, lambda_seq\n"
        f"found = lambda_seq.load_predictor({str(tmp_path / 'model')!r})({str(tmp_path / 'a.png')!r})\n"
        "assert not {'lightning', 'datasets', 'matplotlib', 'soundfile', 'lambda_seq.tasks'} & set(sys.modules)\n"
        "print(found.label)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("no", "yes")


@pytest.mark.parametrize(("kind", "package"), [("picture", "PIL"), ("clip", "soundfile"), ("clip", "soxr")])
def test_a_package_that_is_missing(tmp_path, monkeypatch, kind, package):
    folder = saved(tmp_path, kind)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    with pytest.raises(ModuleNotFoundError, match=rf'the package {package}, .* is missing: pip install "lambda-seq'):
        lambda_seq.load_predictor(folder)
