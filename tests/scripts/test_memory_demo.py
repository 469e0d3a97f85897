import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial

import memory_demo
import pytest
import torch
from benchmarks import peers
from benchmarks.measuring import Limits, WrongResultError
from benchmarks.methods import Case
from demo import cells
from demo import decode as demo_decode
from demo import encoder as demo_encoder
from demo import layers as demo_layers
from demo import picture as demo_picture
from demo import report as demo_report
from paths import ROOT

LIMITS = Limits(budget=2**30, deadline=120, threads=1)
CASE = Case((32,), dim=16, scope=7)
IMAGE = Case((9, 9), dim=16, scope=5)
TINY = ("--dim", "16", "--scope", "7", "--threads", "1", "--limit", "30")
PATIENCE = cells.Patience(limit=30, repeat=0)


def record(section, method, length, status="measured", case=CASE, **found):
    key = cells.key_of(section, method, replace(case, size=(length,)))
    return {"key": key, "status": status, "message": "", "seconds": None, "peak_bytes": None, "repeats": 1, **found}


# What is compared computes what it should


@pytest.mark.parametrize("section", ["layer", "encoder"])
@pytest.mark.parametrize("name", list(demo_layers.METHODS))
def test_layers_and_encoders_agree_with_references(section, name):
    for dims, case in ((1, CASE), (2, IMAGE)):
        if dims in demo_layers.METHODS[name].dims:
            cells.SECTIONS[section].verify(name, case)


@pytest.mark.parametrize("name", list(demo_decode.DECODERS))
def test_steps_agree_with_the_whole(name):
    demo_decode.verify_decoder(name, CASE)


@pytest.mark.parametrize("name", list(demo_decode.DECODERS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_filled_state_is_that_of_a_context(name, dtype):
    case = replace(CASE, dtype=dtype)
    decoder = demo_decode.new_decoder(name, case)
    with torch.inference_mode():
        walked, filled = decoder.empty(1), decoder.fill(1, 20)
        for _ in range(20):
            _, walked = decoder(torch.randn(1, 16, dtype=getattr(torch, dtype)), walked)
        found, _ = decoder(torch.randn(1, 16, dtype=getattr(torch, dtype)), filled)
    assert found.isfinite().all()
    if name in ("content", "local", "exponential", "global"):
        assert filled.seen == walked.seen == 20
        assert filled.values.shape == walked.values.shape
    demo_decode.step_of_decoder(name, case)()


def test_wrong_methods_are_noticed(monkeypatch):
    wrong = partial(demo_layers.attention, lambda q, k, v: 1.001 * peers.fused(q, k, v))
    monkeypatch.setitem(demo_layers.METHODS, "fused", replace(demo_layers.METHODS["fused"], build=wrong))
    with pytest.raises(WrongResultError, match="is off by"):
        demo_encoder.verify_in_layer("fused", CASE)
    with pytest.raises(WrongResultError, match="is off by"):
        demo_encoder.verify_in_encoder("fused", CASE)
    decoder = partial(demo_decode.AttentionDecoder, lambda q, k, v: v.mean(2, keepdim=True))
    changed = replace(demo_decode.DECODERS["fused"], build=decoder)
    monkeypatch.setitem(demo_decode.DECODERS, "fused", changed)
    with pytest.raises(WrongResultError, match="in steps"):
        demo_decode.verify_decoder("fused", CASE)


def test_embeddings_are_gathered_by_offset():
    table = torch.arange(5.0)[None]  # offsets −2 … 2
    assert demo_layers.gathered(table, (3,))[..., 0].tolist() == [[2, 3, 4], [1, 2, 3], [0, 1, 2]]


# Cells


def test_a_cell_is_measured():
    found = cells.measure(cells.key_of("layer", "fused", replace(CASE, size=(2048,))), PATIENCE, LIMITS)
    assert (found["status"], found["message"]) == ("measured", "")
    inputs = 2 * 2048 * 16 * 4  # x and its gradient
    assert inputs < found["peak_bytes"] < 40 * inputs
    assert found["seconds"] > 0
    assert found["repeats"] == 1


@pytest.mark.parametrize(
    ("shares", "times", "taken", "seconds", "disturbed"),
    [
        ([0.0], [3], 1, 3, False),
        ([1.0, 0.0], [3, 4], 2, 4, False),  # the undisturbed one counts
        ([1.0, 0.9], [5, 3], 2, 3, True),
        ([1.0, None], [5, None], 2, 5, True),  # the second one failed
    ],
)
def test_what_is_disturbed_is_measured_again_once(monkeypatch, shares, times, taken, seconds, disturbed):
    made = iter(zip(shares, times, strict=True))

    def once(*_):
        share, time = next(made)
        return {"status": "failed" if time is None else "measured", "seconds": time, "others": share}

    monkeypatch.setattr(cells, "_measure_once", once)
    found = cells.measure({}, PATIENCE, replace(LIMITS, threads=os.cpu_count()))
    assert (found.get("taken", 1), found["seconds"], found["disturbed"]) == (taken, seconds, disturbed)
    assert next(made, None) is None


def test_the_load_stands_beside_the_figures():
    times = {"peak_bytes": 2**20, "seconds": 0.5}
    found = [record("layer", "fused", 32, **times, others=0.01, disturbed=False)]
    found.append(record("layer", "fused", 64, **times, others=0.7, disturbed=True, taken=2))
    results = demo_report.Results(["layer"], [(32,), (64,)], found, 2**30)
    (line,) = demo_report.load_notes(results)
    assert line.startswith(
        "Other programs took 36% of the cores (median of 2 cells), at most 70%; 1 cells were disturbed"
    )
    assert line in demo_report.notes(results)
    row = demo_report.whole(results, "layer").rows[0]
    assert "~" not in row[1]
    assert "~500 ms" in row[2]
    assert "~500 ms" in demo_report.summary(results, "layer").rows[0]
    assert demo_report.load_notes(replace(results, records=[])) == []


@pytest.mark.parametrize("name", ["materialised", "published"])
def test_out_of_memory_is_reached(name):
    case = replace(CASE, size=(4096,))
    found = cells.measure(cells.key_of("layer", name, case), PATIENCE, replace(LIMITS, budget=100 * 2**20))
    assert found["status"] == "out of memory"
    assert found["peak_bytes"] is None
    assert "allocate" in found["message"]  # torch's words, not a guess


def test_a_long_step_is_too_slow():
    key = cells.key_of("encoder", "published", replace(CASE, size=(1024,)))
    begin = time.monotonic()
    found = cells.measure(key, cells.Patience(limit=0.01, repeat=0), LIMITS)
    assert (found["status"], found["message"]) == ("too slow", "one step not done after 0.01 s")
    assert time.monotonic() - begin < 100


def test_which_lengths_are_tried():
    patience = cells.Patience(1, 0)
    found = [record("layer", "fused", 2**power, peak_bytes=4**power, seconds=1e-9) for power in (3, 4, 5)]
    growth = {"peak_bytes": demo_layers.SQUARE, "seconds": demo_layers.SQUARE}
    ask = partial(cells.to_try, growth=growth, patience=patience)
    assert ask(found, 64, 10**9)
    slow = [*found, record("layer", "fused", 64, "too slow")]
    assert not ask(slow, 128, 10**9)  # it would fit, and takes even longer
    assert ask(slow, 128, 100 * 100)  # it should not fit: seen by trying
    assert not ask([*slow, record("layer", "fused", 128, "out of memory")], 256, 100)
    assert not ask([record("layer", "fused", 64, "too slow")], 128, 1)  # nothing is known
    late = [{**one, "seconds": 1e-3 * one["peak_bytes"]} for one in found]  # 1 s for 32, 4 s for 64
    assert ask(late[:2], 32, 10**9)
    assert not ask(late, 64, 10**9)  # predicted to take too long
    assert ask(late, 64, 64 * 60)


# Predictions


def test_predictions():
    found = [(n, 100.0 + 3 * n + 0.5 * n**2) for n in (8, 16, 32, 64)]
    assert cells.predictor(found, demo_layers.SQUARE)(1024) == pytest.approx(100 + 3 * 1024 + 0.5 * 1024**2)
    assert cells.predictor(found[:1], ("0", "1"))(16) == pytest.approx(2 * found[0][1])  # in proportion
    assert cells.predictor([], ("0", "1")) is None
    fallen = [(8, 9.0), (16, 3.0), (32, 2.0)]
    assert cells.predictor(fallen, ("0", "1"))(10**6) > 0  # no negative factor
    assert cells.predictor([(4, 2.0), (16, 4.0)], ("0",))(64) == pytest.approx(2.4)


def test_predictions_are_checked():
    line = [(2**power, 7.0 * 2**power) for power in range(5)]
    assert cells.check(line, ("0", "1")) == (16, pytest.approx(0, abs=1e-9))
    positions, error = cells.check([*line[:-1], (16, 2 * 7.0 * 16)], ("0", "1"))
    assert (positions, error) == (16, pytest.approx(-0.5))
    assert cells.check(line[:4], ("0", "1")) is None


def test_slopes():
    assert cells.slope([(2**power, 3.0 * 4**power) for power in range(6)]) == pytest.approx(2)
    assert cells.slope([(1, 1.0)]) is None


# What is said and drawn


def test_labels_do_not_overlap():
    heights = demo_picture.spread([0.0, 0.1, 0.2, 3.0, 3.0], 0.5, 3.2)
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(heights))
    assert heights[-1] <= 3.2
    assert heights[:3] == pytest.approx([-0.4, 0.1, 0.6])
    assert demo_picture.spread([1.0, 9.0], 0.5, 10) == [1, 9]


def test_texts_in_the_picture_do_not_overlap(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    def line(name, scale, power, failed=()):
        measured = tuple((2**n, scale * 2.0 ** (n * power)) for n in range(10, 14))
        growth = ("0", "1") if power == 1 else demo_layers.SQUARE
        return demo_picture.Line(
            name,
            demo_layers.METHODS[name].label,
            measured,
            failed,
            cells.predictor(measured, growth),
            power,
            name in ("local", "global", "content"),
        )

    lines = [
        line("materialised", 50, 2, ((2**14, "out of memory"),)),
        line("published", 200, 2, ((2**14, "too slow"),)),
    ]
    lines += [line("fused", 10, 2), *(line(name, 4000, 1) for name in ("local-attention", "linear-attention"))]
    lines += [line(name, 3900, 1) for name in ("content", "local", "global")]
    panel = demo_picture.Panel("Peak memory", lines, (2.0**33, "budget 8 GiB"), demo_picture.size_text)
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    lengths = [2**power for power in range(10, 21)]
    demo_picture.draw(tmp_path / "a.png", "title", "subtitle", [panel, panel], lengths, [str(n) for n in lengths])
    (figure,) = kept
    figure.canvas.draw()  # anew: the last was for SVG, which counts in other units
    drawer = figure.canvas.get_renderer()
    labels = [method.label for method in demo_layers.METHODS.values()]
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text().startswith(tuple(labels))]
    texts += [*figure.texts, *(axes._left_title for axes in figure.axes)]
    boxes = [(text.get_text(), matplotlib_box(text, drawer)) for text in texts]
    monkeypatch.undo()
    plt.close(figure)
    assert len(boxes) == 2 * 8 + 3 + 2
    for index, (name, box) in enumerate(boxes):
        assert box.x0 >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        for other, second in boxes[index + 1 :]:
            assert not box.overlaps(second), (name, other)


def matplotlib_box(text, drawer):
    from matplotlib.text import Text

    return Text.get_window_extent(text, drawer)


def test_notes_compare_with_fused_attention_and_tell_errors():
    lengths = [2**power for power in range(10, 16)]
    found = [record("layer", "fused", n, peak_bytes=100 * n, seconds=1e-6 * n**2) for n in lengths]
    found += [record("layer", "local", n, peak_bytes=60 * n, seconds=1e-6 * n) for n in [*lengths, 2**16]]
    found += [record("layer", "published", n, peak_bytes=2 * n**2, seconds=1e-6 * n**2) for n in lengths[:3]]
    found += [record("layer", "published", lengths[3], "out of memory")]
    results = demo_report.Results(["layer"], [(n,) for n in [*lengths, 2**16]], found, 10**8)
    lines = demo_report.notes(results)
    assert "ours, local: 0.60 times the peak of fused attention at most" in lines[0]
    assert "over 7 lengths, of which attention's is predicted at 1" in lines[0]
    assert "off by 0% (median of 2 lines)" in lines[1]
    assert lines[-1].startswith("Out of memory in 1 cells; the prediction is above the budget")
    assert lines[-1].endswith("in 1 of them")
    rows = {row[0]: row[1:] for row in demo_report.summary(results, "layer").rows}
    assert rows["ours, local"] == ("65,536", "3.75 MiB", "65.5 ms", "1.00", "1.00", "")
    assert rows["published lambda"][-1] == "out of memory at 8,192"


# The command


def run(*arguments, **options):
    command = [sys.executable, "scripts/memory_demo.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, **options)


def check_files(folder, stem, sections):
    whole = json.loads((folder / f"{stem}.json").read_text())
    assert whole["command"].startswith("python scripts/memory_demo.py")
    assert whole["machine"]["torch"] == torch.__version__
    with (folder / f"{stem}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["section"] for row in rows} == set(sections)
    assert {row["status"] for row in rows} <= {"measured", "predicted", "out of memory", "too slow", "not run"}
    for suffix in ["", *(f"_{section}" for section in sections[1:])]:
        assert (folder / f"{stem}{suffix}.png").read_bytes().startswith(b"\x89PNG")
        ET.parse(folder / f"{stem}{suffix}.svg")
    page = (folder / f"{stem}.html").read_text()
    assert page.count("<svg") == len(sections)
    assert "src=" not in page  # self-contained
    assert "<link" not in page
    assert whole["command"] in page.replace("&#x27;", "'")
    assert torch.__version__ in page
    return whole["records"], rows


@pytest.mark.slow(seconds=30)
def test_the_command_reaches_the_budget_and_leaves_files(tmp_path, forks):
    methods = ("--methods", "materialised", "fused", "local", "published")
    lengths = ("--lengths", "256", "512", "1024", "2048")
    done = run(*TINY, *methods, *lengths, "--budget", "24MiB", "--repeat", "0", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    records, rows = check_files(tmp_path, "memory_demo", ["layer", "decode", "encoder"])
    found = [one for one in records if "check" not in one["key"]]
    status = {(one["key"]["section"], one["key"]["method"], one["key"]["size"][0]): one["status"] for one in found}
    for section in ("layer", "encoder"):
        out = {name: n for (where, name, n), what in status.items() if (where, what) == (section, "out of memory")}
        assert out == {"materialised": 1024, "published": 512}  # maps of 16 MiB each; embeddings of 16 MiB
        assert status[section, "fused", 2048] == status[section, "local", 2048] == "measured"
    assert status["decode", "materialised", 2048] == "measured"
    after = [row for row in rows if (row["section"], row["method"], row["size"]) == ("encoder", "published", "2048")]
    assert [row["status"] for row in after] == ["predicted"]
    assert float(after[0]["predicted_peak_bytes"]) > 24 * 2**20
    assert "times the peak of fused attention" in done.stdout
    assert "| published lambda |" in (tmp_path / "memory_demo.md").read_text()


@pytest.mark.slow(seconds=30)
def test_images(tmp_path, forks):
    done = run("--dims", "2", *TINY, "--lengths", "8", "12", "--sections", "layer", "encoder", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    records, _ = check_files(tmp_path, "memory_demo_2d", ["layer", "encoder"])
    assert {"axial-attention", "local-attention", "global"} <= {one["key"]["method"] for one in records}
    assert {one["status"] for one in records} == {"measured"}


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    options = (*TINY, "--sections", "layer", "--methods", "content", "fused", "--out", str(tmp_path))
    command = [sys.executable, "scripts/memory_demo.py", *options, "--total", "500"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    file, deadline = tmp_path / "memory_demo.json", time.monotonic() + 300
    while time.monotonic() < deadline and (not file.exists() or '"repeats"' not in file.read_text()):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "go on with --resume" in output
    kept = json.loads(file.read_text())["records"]
    measured = [one for one in kept if "check" not in one["key"]]
    assert measured
    assert (tmp_path / "memory_demo.png").exists()

    lengths = ("--lengths", "1024", "2048")
    assert memory_demo.main([*options, *lengths, "--resume"]) == 0
    after = json.loads(file.read_text())["records"]
    assert [one for one in after if one in measured] == measured
    found = {(one["key"]["method"], one["key"]["size"][0]) for one in after if "check" not in one["key"]}
    assert {(name, n) for name in ("content", "fused") for n in (1024, 2048)} <= found


def test_what_other_limits_would_change_is_measured_again():
    options = memory_demo.parser().parse_args(["--budget", "1GiB", "--limit", "2"])
    out = record("layer", "fused", 64, "out of memory", budget=2**29)
    assert not memory_demo.holds(out, options)
    assert memory_demo.holds({**out, "budget": 2**31}, options)
    slow = record("layer", "fused", 64, "too slow", limit=1.0)
    assert not memory_demo.holds(slow, options)
    assert memory_demo.holds({**slow, "limit": 2.0}, options)
    assert memory_demo.holds(record("layer", "fused", 64, peak_bytes=2**29), options)
    assert not memory_demo.holds(record("layer", "fused", 64, peak_bytes=2**31), options)
    assert not memory_demo.holds(record("layer", "fused", 64, "failed"), options)


def test_a_wrong_result_is_not_timed(tmp_path, monkeypatch, capsys):
    def wrong(section, method, case, limits):
        return {"status": "wrong result", "message": "output is off by 1.0e+00"}

    monkeypatch.setattr(memory_demo, "verify", wrong)
    options = (*TINY, "--lengths", "64", "--sections", "layer", "--methods", "fused", "--out", str(tmp_path))
    assert memory_demo.main(options) == 1
    assert "output is off by" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    records = json.loads((tmp_path / "memory_demo.json").read_text())["records"]
    assert [one["status"] for one in records] == ["wrong result"]
    assert not (tmp_path / "memory_demo.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dim", "10"], "--heads 4 does not divide --dim 10"),
        (["--lengths", "0"], "--lengths 0: expected"),
        (["--dims", "2", "--sections", "decode"], "use --dims 1"),
    ],
)
def test_errors_name_the_option(arguments, words):
    with pytest.raises(SystemExit, match=words):
        memory_demo.main(arguments)


def test_no_gpu():
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="--device cpu"):
            memory_demo.main(["--device", "cuda"])


def test_another_machine_is_refused(tmp_path):
    kept = {"command": "x", "machine": {"cores": 999}, "records": []}
    (tmp_path / "memory_demo.json").write_text(json.dumps(kept))
    with pytest.raises(SystemExit, match="another --out"):
        memory_demo.main(["--resume", "--out", str(tmp_path)])


def test_a_large_budget_is_cut(capsys):
    options = memory_demo.parser().parse_args(["--budget", "999999GiB"])
    memory_demo.complete(options, memory_demo.Console())
    assert options.budget < 999999 * 2**30
    assert "are free" in capsys.readouterr().out
    assert options.lengths[-1] == 2**20
    assert math.isfinite(options.total)
