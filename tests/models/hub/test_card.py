import pytest
from saved_models import SMALL, build, tokenizer

from lambda_seq.models import from_pretrained


def test_the_card_says_what_the_model_is(tmp_path):
    model = build()
    model.save_pretrained(
        tmp_path, labels=["no", "yes", "unclear"], preprocessing={"bytes": True}, card="Trained on **letters**: .87"
    )
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    count = sum(parameter.numel() for parameter in model.parameters())
    for part in (
        "library_name: lambda_seq",
        "pipeline_tag: text-classification",
        f"| parameters | {count:,} |",
        "`lambda_encoder_tiny`, a `LambdaEncoder`",
        "1. `yes`",
        '"scope": [',
        '"bytes": true',
        "Trained on **letters**: .87",
        f"from_pretrained({str(tmp_path)!r})",
    ):
        assert part in card, part


@pytest.mark.parametrize("name", SMALL)
def test_the_code_of_a_card_runs(name, tmp_path):
    model = build(name, **({} if name == "lambda_resnet_tiny" else {"vocab_size": 257}))
    model.save_pretrained(tmp_path)
    code = (tmp_path / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["new" if name == "lambda_lm_tiny" else "logits"].shape[0] == 1
    model = build("lambda_lm_tiny")
    model.save_pretrained(tmp_path, tokenizer=tokenizer())
    assert "model.tokenizer.encode" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_many_labels_stay_readable(tmp_path):
    build(num_classes=300).save_pretrained(tmp_path, labels=[f"class {index}" for index in range(300)])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "99. `class 99`\n\nand 200 more in config.json" in card
    assert from_pretrained(tmp_path).labels[299] == "class 299"


@pytest.mark.parametrize(
    ("preprocessing", "raw"),
    [
        ({"size": [8, 8], "mean": [1.0], "std": [2.0]}, '"one.png", "another.jpg"'),
        ({"audio": {"clip_length": 100}}, '"one.wav", "another.mp3"'),
        ({"tokens": {"kind": "bytes", "part": "start"}}, '"some text", "another"'),
        ({"audio": {"sampling_rate": 8000}}, None),
        (None, None),
    ],
)
def test_models_that_say_how_inputs_are_read_show_the_predictor(tmp_path, preprocessing, raw):
    build().save_pretrained(tmp_path, preprocessing=preprocessing)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("load_predictor" in card) == (raw is not None)
    assert raw is None or f"predictor([{raw}])" in card


def test_grey_pictures_have_one_channel_in_the_code(tmp_path):
    build("lambda_resnet_tiny", in_channels=1).save_pretrained(tmp_path)
    assert "torch.zeros(1, 1, 224, 224)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    build("lambda_resnet_tiny").save_pretrained(tmp_path)
    assert "torch.zeros(1, 3, 224, 224)" in (tmp_path / "README.md").read_text(encoding="utf-8")
