"""The table of a network's parts, before the first step."""

import pytest
from small_data import TINY_ENCODER

from lambda_seq.tasks.callbacks.summary import NetworkSummary, said

FIT = ("fit", "--config", "text_classification", "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
BRIEF = (*FIT, "--test_after_fit=false", "--export=false", "--trainer.enable_progress_bar=false", *TINY_ENCODER)


def rows(printed):
    """Cells of a table's lines."""
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_parts_with_parameters(cli, stories):
    found = cli(*BRIEF, "--data.path", stories, "--data.tokenizer=bytes", "--model.options.stem=tokens")
    table = rows(found.out)
    assert [name for name, *_ in table] == [f"network{part}" for part in ("", ".stem", ".blocks", ".norm", ".head")]
    assert table[0][1] == "LambdaEncoder"
    assert " parameters, " in found.out
    assert "all of them trained" in found.out
    assert "FLOPs" not in found.out
    assert "Skipping" not in found.out + found.err


def test_another_summary_takes_its_place(cli, stories):
    found = cli(*BRIEF, "--data.path", stories, "--trainer.callbacks+=RichModelSummary")
    assert "Total FLOPs" in found.out
    assert "all of them trained" not in found.out


@pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)` but `Trainer\\(barebones=True\\)`")
@pytest.mark.parametrize("option", ["--trainer.enable_model_summary=false", "--trainer.barebones=true"])
def test_none_where_none_is_wanted(cli, stories, option):
    brief = [word for word in BRIEF if option.startswith("--trainer.enable") or "limit_val" not in word]
    assert "parameters, " not in cli(*brief, "--data.path", stories, option).out


def test_what_is_not_trained_is_said(capsys):
    columns = [("Name", ["network", "metrics"]), ("Type", ["A", "B"]), ("Params", ["12.3 K", "0"]), ("Mode", ["", ""])]
    NetworkSummary.summarize(columns, 12_345, 12_000, 0.0494, {"train": 1, "eval": 0}, total_flops=0)
    printed = capsys.readouterr().out
    assert rows(printed) == [["network", "A", "12.3 K"]]
    assert "12,345 parameters, 0.0494 MB, 12,000 of them trained" in printed
    assert said(1, 1, 1e-6) == "1 parameters, 1e-06 MB, all of them trained"
