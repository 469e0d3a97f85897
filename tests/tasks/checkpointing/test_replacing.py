"""A new run replaces what an earlier one has left only if that is asked for."""

from pathlib import Path

import pytest
import yaml
from small_data import SHORT, TINY_ENCODER

from lambda_seq.tasks.checkpointing.runs import check_replaces, free

TEXTS = ("--config", "text_classification", "--data.batch_size=8", *TINY_ENCODER, "--data.path=stories")
RUN = ("--output_dir=run", "--export=false", "--report=false", "--test_after_fit=false")
FOLDERS = Path("run"), Path("run/checkpoints"), Path("run/checkpoints")


def test_a_second_fit_is_refused_before_data_are_read(cli, stories):
    cli("fit", *TEXTS, *RUN, *SHORT)
    left = {file: file.stat().st_mtime_ns for file in Path("run").rglob("*")}
    refused = cli("fit", *TEXTS, *RUN, *SHORT, "--recipe=texts", "--data.path=nowhere/at/all", code=1).err
    assert refused.count("error: ") == 1
    assert "output_dir='run': an earlier run has left run/checkpoints/best.ckpt there" in refused
    for remedy in ("--ckpt_path last", "--output_dir run-2", "--overwrite"):
        assert remedy in refused
    assert left == {file: file.stat().st_mtime_ns for file in Path("run").rglob("*")}
    cli("fit", *TEXTS, *RUN, *SHORT, "--overwrite")
    assert yaml.safe_load(Path("run/config.yaml").read_text())["overwrite"] is False  # or it would be asked for ever


@pytest.mark.parametrize(
    "left", ["summary.json", "model/config.json", "checkpoints/last.ckpt", "checkpoints/last.previous.ckpt"]
)
def test_what_is_kept(left):
    file = Path("run", left)
    check_replaces(*FOLDERS, None, overwrite=False)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    for given in (None, "elsewhere/last.ckpt"):
        with pytest.raises(ValueError, match=r"output_dir='run': an earlier run has left run/"):
            check_replaces(*FOLDERS, given, overwrite=False)
    for given in ("last", "best", "run/checkpoints/last.ckpt", str(Path("run/checkpoints/best.ckpt").absolute())):
        check_replaces(*FOLDERS, given, overwrite=False)
    check_replaces(*FOLDERS, None, overwrite=True)


def test_a_baseline_alone_is_no_run(cli, stories):
    Path("run").mkdir()
    Path("run/baseline.json").write_text("{}")
    check_replaces(*FOLDERS, None, overwrite=False)


def test_a_name_that_is_free(tmp_path):
    assert free(tmp_path / "run") == tmp_path / "run-2"
    (tmp_path / "run-2").mkdir()
    assert free(tmp_path / "run") == tmp_path / "run-3"


def test_the_configuration_lies_in_the_folder(cli, stories):
    cli("fit", *TEXTS, *RUN, *SHORT)
    text = Path("run/config.yaml").read_text()
    assert yaml.safe_load(text)["data"]["init_args"]["batch_size"] == 8
    cli("validate", *TEXTS, *RUN, *SHORT[1:])
    assert Path("run/config.yaml").read_text() == text  # of the fit
    assert Path("run/validate_config.yaml").is_file()
    refused = cli("fit", "--config=run/config.yaml", code=1).err  # it is all that a fit needs, the folder included
    assert "output_dir='run': an earlier run has left" in refused
