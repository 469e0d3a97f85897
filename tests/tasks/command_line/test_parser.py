"""The parser of the command line."""

import pytest
import yaml

from lambda_seq.tasks.command_line.parser import with_null

NULL = {
    "--data.augmentation.noise": ("data", "augmentation", "noise"),
    "--data.max_seconds": ("data", "max_seconds"),
    "--model.optimizer.foreach": ("model", "init_args", "optimizer", "init_args", "foreach"),
    "--model.options.scope": ("model", "init_args", "options", "scope"),
    "--trainer.gradient_clip_val": ("trainer", "gradient_clip_val"),
}


def test_null_is_none_in_options_within_options(cli):
    words = [f"{option}=null" for option in NULL]
    found = yaml.safe_load(cli("fit", "--config=audio_classification", *words, "--print_config").out)
    found["data"] = found["data"].get("init_args", found["data"])
    for option, place in NULL.items():
        value = found
        for name in place:
            value = value[name]
        assert value is None, option


@pytest.mark.parametrize(
    "value", [[31, None], [None], {"a": None, "b": [1e-05, True, "None of it"]}, {"a": {"b": None}}]
)
def test_null_is_none_in_lists_and_mappings(cli, value):
    given = yaml.safe_dump(value, default_flow_style=True).strip().replace("1.0e-05", "0.00001")
    words = ("--model.options.scope", given, "--print_config")
    found = yaml.safe_load(cli("fit", "--config=listops", *words).out)
    assert found["model"]["init_args"]["options"]["scope"] == value


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--a=None", "--a=null"),
        ("--a=[1, None]", "--a=[1, null]"),
        ("--a=None of these", "--a=None of these"),
        ("--a=NoneType", "--a=NoneType"),
        ("--a=['ü 😀', None]", '--a=["ü 😀", null]'),
        ("--a='None'", '--a="None"'),
        ("--None=1", "--None=1"),
        ("None", "None"),
        ("--a=[1, 2]", "--a=[1, 2]"),
    ],
)
def test_words_of_options_within_options(word, expected):
    assert with_null(word) == expected
