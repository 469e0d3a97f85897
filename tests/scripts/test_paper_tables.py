import json
import subprocess
import sys
from dataclasses import asdict

import paper_tables as script
import pytest
import torch
from benchmarks.measuring import Measurement
from paper.figures import Training, computed, held_bytes, loss_of
from paper.rows import TABLES, PaperTable, Row
from paths import ROOT

from lambda_seq.tasks.detection import requirements

CHECKED = [(name, row) for name, table in TABLES.items() for row in table.rows if row.checked]
TINY = {"num_classes": 3}


@pytest.fixture
def tiny(monkeypatch):
    rows = (
        Row("C", "resnet_tiny", TINY, 32, speed="2000", score="1.0"),
        Row("L", "lambda_resnet_tiny", TINY, 32, parameters="0.1"),
    )
    monkeypatch.setitem(script.TABLES, "tiny", PaperTable("Tiny", rows, notes=("as it is",)))
    return rows


def run(folder, *options, measured=True):
    arguments = ["--tables", "tiny", "--threads", "1", "--seconds", "0", "--out", str(folder), *options]
    return script.main([*arguments, *(["--measure"] if measured else [])])


def left(folder):
    return json.loads((folder / "paper_tables.json").read_text(encoding="utf-8"))["records"]


def measured_in(folder):
    return [record for record in left(folder) if "table" not in record["key"]]


@pytest.mark.parametrize(("table", "row"), CHECKED, ids=[f"{name}-{row.label}" for name, row in CHECKED])
def test_rows_that_match_to_the_printed_decimal(table, row):
    figures = computed(row)
    values = {"parameters": figures.parameters / 1e6, "flops": figures.flops / 1e9}
    for name in row.checked:
        assert script.matches(values[name], getattr(row, name)), (values[name], getattr(row, name))


def test_no_row_that_matches_was_left_out():
    # As marked in the reference: 11 of placement, neither C C L L nor content + position; all scopes; 101 and 152
    counts = {name: sum(row.checked != () for row in table.rows) for name, table in TABLES.items()}
    assert {name: count for name, count in counts.items() if name != "mixers" and count} == {
        "placement": 11,
        "scope": 6,
        "deep": 8,
    }
    for table in TABLES.values():
        assert len({row.label for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize(
    ("label", "at_4_bytes", "as_printed"),
    [
        ("global self-attention", 122.8, False),
        ("axial self-attention", 4.82, True),
        ("lambda", 1.92, True),
        ("lambda k=8", 0.96, True),
        ("lambda, shared embeddings", 0.625, True),
    ],
)
def test_the_memory_column(label, at_4_bytes, as_printed):
    (row,) = [row for row in TABLES["layers"].rows if row.label == label]
    numbers = computed(row).numbers
    decimals = len(str(at_4_bytes).partition(".")[2])
    assert round(4 * numbers / 2**30, decimals) == at_4_bytes
    assert script.matches(row.memory_bytes * numbers / 2**30, row.memory) == as_printed


def test_other_layers_memory_by_hand():
    rows = {row.label: row for row in TABLES["layers"].rows}
    positions = [(56**2, 3), (28**2, 4), (14**2, 6), (7**2, 3)]
    local = sum(128 * 8 * n * 49 * count for n, count in positions)
    assert computed(rows["local self-attention 7×7"]).numbers == local
    assert computed(rows["lambda convolution 7×7"]).numbers == 16 * 16 * 49
    assert computed(Row("", "resnet50")).numbers == 0
    linear = sum(128 * width * width // 8 * count for width, (_, count) in zip((64, 128, 256, 512), positions))  # noqa: B905
    assert computed(Row("", "resnet50_linear_attention")).numbers == linear


@pytest.mark.parametrize(
    ("value", "printed", "same"),
    [(25.557, "25.6", True), (15.560, "15.4", False), (14.9956, "15.0", True), (122.8, "120", False)],
)
def test_matching_is_to_the_last_decimal(value, printed, same):
    assert script.matches(value, printed) == same


def test_computed_columns_by_the_command_line(tmp_path, request):
    strictness = request.config.getini("filterwarnings")[0]  # check_versions.py lets other versions warn
    command = [
        sys.executable,
        "-W",
        strictness,
        "scripts/paper_tables.py",
        "--tables",
        "layers",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The layers in a ResNet-50" in done.stdout
    assert "FLOPS are 2 × multiply-adds" in done.stdout
    assert (tmp_path / "paper_tables.png").stat().st_size > 10_000
    found = {record["key"]["row"]: record for record in left(tmp_path)}
    assert found["lambda"]["matches"] == {"memory": True}
    assert found["global self-attention"]["matches"] == {"memory": False}
    assert found["lambda"]["measured"] is None
    check_markdown((tmp_path / "paper_tables.md").read_text(encoding="utf-8"))


def check_markdown(text):
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    assert blocks
    for header, rule, *rows in blocks:
        assert set(rule) <= set("|:- ")
        assert rows
        assert {line.count("|") for line in (header, rule, *rows)} == {header.count("|")}
    return blocks


def test_both_numbers_and_the_difference_are_shown(tiny, tmp_path):
    assert run(tmp_path, measured=False) == 0
    ((header, _, _, second),) = check_markdown((tmp_path / "paper_tables.md").read_text(encoding="utf-8"))
    millions = computed(tiny[1]).parameters / 1e6
    assert f"| {millions:.3f} ({millions - 0.1:+.3f}) | 0.1 |" in second
    assert "params (M) | printed | GFLOPS | pictures/s printed" in header
    assert "tiny: as it is" in (tmp_path / "paper_tables.md").read_text(encoding="utf-8")


def test_without_torchvision_detectors_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    rows = (Row("D", "resnet_tiny", {"features_only": True}, 32, score="1 / 2", detector=True), Row("C", "resnet50"))
    monkeypatch.setitem(script.TABLES, "tiny", PaperTable("Tiny", rows))
    assert run(tmp_path, measured=False) == 0
    text = (tmp_path / "paper_tables.md").read_text(encoding="utf-8")
    ((_, _, first, second),) = check_markdown(text)
    assert first == "| D | not installed | not installed | 1 / 2 |"
    assert second.startswith("| C | 25.557 |")
    assert 'tiny: detection needs torchvision and pycocotools: pip install "lambda-seq[detection]"' in text


def test_a_row_that_should_match_and_does_not_is_an_error(monkeypatch, tmp_path):
    row = Row("L", "lambda_resnet_tiny", TINY, 32, parameters="0.1", checked=("parameters",))
    monkeypatch.setitem(script.TABLES, "tiny", PaperTable("Tiny", (row,)))
    assert run(tmp_path, measured=False) == 1


@pytest.mark.slow
def test_training_is_measured_and_too_little_memory_is_seen(tiny, tmp_path, capsys):
    assert run(tmp_path / "some", "--budget", "1GiB") == 0
    first, second = left(tmp_path / "some")[:2]
    assert (first["status"], second["status"]) == ("measured", "measured")
    shown = [record["measured"] for record in left(tmp_path / "some")[2:]]
    assert all(one["training_bytes"] > held_bytes(row, 32, 2) for one, row in zip(shown, tiny, strict=True))
    assert all(one["pictures_per_second"] == 2 / one["seconds"] for one in shown)

    assert run(tmp_path / "none", "--budget", "1MiB", "--image_size", "512") == 0
    assert [record["status"] for record in measured_in(tmp_path / "none")] == ["out of memory"] * 2
    text = (tmp_path / "none" / "paper_tables.md").read_text(encoding="utf-8")
    assert "| out of memory |" in text
    assert "pictures of 512², 32-true, at most 1 MiB" in text
    capsys.readouterr()


def pretend(monkeypatch, *outcomes):
    """Measurements that come to this, one after the other."""
    waiting = list(outcomes)

    def measure(job, limits):
        found = waiting.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(script, "measure", measure)
    return waiting


FINE = Measurement("measured", "", 0.5, 0.6, 3, 2**20, 2**21, 2**20, 0.5)


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, FINE, KeyboardInterrupt())
    assert run(tmp_path) == 130
    assert [record["status"] for record in measured_in(tmp_path)] == ["measured"]
    assert "go on with --resume" in capsys.readouterr().out
    waiting = pretend(monkeypatch, FINE)
    assert run(tmp_path, "--resume") == 0  # the budget is that of the first run, whatever is free by now
    assert not waiting
    assert [record["status"] for record in measured_in(tmp_path)] == ["measured"] * 2
    assert run(tmp_path, measured=False) == 0  # shows them too
    assert [record["status"] for record in measured_in(tmp_path)] == ["measured"] * 2
    text = (tmp_path / "paper_tables.md").read_text(encoding="utf-8")
    assert "| 500 ms |" in text
    assert "other processes took much of all cores: C 50%, L 50%" in text


def test_equal_networks_are_measured_once(tiny, tmp_path, monkeypatch):
    rows = (*tiny, Row("C again", "resnet_tiny", TINY, 32))
    monkeypatch.setitem(script.TABLES, "tiny", PaperTable("Tiny", rows))
    waiting = pretend(monkeypatch, FINE, FINE)
    assert run(tmp_path) == 0
    assert not waiting
    assert [record["measured"]["seconds"] for record in left(tmp_path)[2:]] == [0.5] * 3


def test_failures_are_told_and_the_others_go_on(tiny, tmp_path, monkeypatch):
    pretend(monkeypatch, Measurement("failed", "it broke"), Measurement("out of memory", "no more"))
    assert run(tmp_path) == 1
    text = (tmp_path / "paper_tables.md").read_text(encoding="utf-8")
    assert "C: failed, it broke" in text
    assert "L: out of memory, no more" in text
    pretend(monkeypatch, FINE)  # tried again; what does not fit is not
    assert run(tmp_path, "--resume") == 0
    assert sorted(record["status"] for record in measured_in(tmp_path)) == ["measured", "out of memory"]


def test_the_table_says_which_mixers_fit(monkeypatch):
    records = [{"measured": asdict(FINE)} for _ in TABLES["mixers"].rows]
    records[-1]["measured"]["status"] = "out of memory"
    settings = {"batch": 2, "image_size": None, "budget": 20 * 2**30}
    trains, not_fitting = script.fitting(TABLES["mixers"], records, settings)
    assert trains.startswith("mixers: trains a step (batch 2, 224², 20 GiB): C: convolution · ")
    assert not_fitting == "mixers: does not fit (batch 2, 224², 20 GiB): G, materialised"


def test_points_keep_the_printed_speed():
    computed_alike = {"parameters": 15.0, "flops": 12.0}
    measured = {"pictures_per_second": 1.5, "training_bytes": 1}
    tables = {"some": PaperTable("", (Row("L L", "x"), Row("L: lambda", "x", speed="1160"), Row("again", "x")))}
    records = {"some": [{"computed": computed_alike, "measured": measured}] * 3}
    (point,) = script.points_of(tables, records)
    assert (point.label, point.printed, point.measured) == ("lambda", 1160.0, 1.5)


@pytest.mark.parametrize("row", TABLES["mixers"].rows, ids=lambda row: row.label)
def test_every_mixer_trains(row):
    size = 32 if row.label[0] != "A" else 64
    step = Training(row.name, row.options, size, 2, "32-true", "cpu", row.materialised)()
    step()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_moves_weights_and_needs_no_classifier(precision):
    options = {**TINY, "features_only": True}
    Training("lambda_resnet_tiny", options, 16, 2, precision, "cpu")()()
    maps = [torch.ones(1, 2, 3, 3, requires_grad=True), torch.ones(1, 2, 2, 2, requires_grad=True)]
    loss_of(maps, torch.zeros(1)).backward()
    assert all(one.grad.abs().sum() > 0 for one in maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "1"), "argument --batch: '1': expected an integer of 2 or more"),
        (("--image_size", "big"), "argument --image_size/--image-size: 'big': expected an integer of 32 or more"),
        (("--budget", "much"), "'much': expected a size such as 8GiB or 500MiB"),
        (("--tables", "nothing"), "invalid choice: 'nothing'"),
    ],
)
def test_options_that_do_not_fit(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing")
def test_no_gpu(tiny, tmp_path):
    with pytest.raises(SystemExit, match="--device cuda: no CUDA device was found; use --device cpu"):
        run(tmp_path, "--device", "cuda")
