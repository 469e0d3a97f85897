"""The parser of the command line."""

import yaml

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
