import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import gpu_report
import pytest
import torch
from benchmarks import comparing, peers
from benchmarks.measuring import NotInstalledError, WrongResultError
from benchmarks.methods import Case
from benchmarks.recording import Recorder
from benchmarks.reporting import Table
from gpu import (
    NAMES,
    aims,
    cores,
    exactness,
    generation,
    images,
    layers,
    memory,
    rates,
    report,
    several,
    suite,
    timing,
    training,
)
from gpu.requirements import Need, lines
from gpu.running import Section, Settings, run_section
from gpu.sections import SECTIONS
from paths import ROOT

from lambda_seq.functional.algorithm import REGISTRIES
from lambda_seq.functional.position.registry import REGISTRY

TINY = Settings("cpu", tiny=True)
CASE = Case((40,), dim=16, heads=2, dim_key=4, scope=9)


# What cells do; other processes import it from here


def act(key, settings):
    if key["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if key["do"] == "leave":
        os._exit(3)
    if key["do"] == "sleep":
        time.sleep(60)
    if key["do"] == "raise":
        raise WrongResultError("output is off")
    if key["do"] == "lack":
        raise NotInstalledError("pip install something")
    return {"value": key["do"], "tiny": settings.tiny}


def section_of(*actions, grace=0.0):
    keys = [{"do": action} for action in actions]
    return Section("toy", "Toy", 1, lambda settings: keys, act, lambda records, settings: (), grace), keys


def run(*actions, seconds=600.0, grace=0.0):
    section, keys = section_of(*actions, grace=grace)
    kept = []
    run_section(section, keys, TINY, seconds, lambda key, found: kept.append((key["do"], found)))
    return kept


def test_cells_are_kept_one_by_one_and_a_failed_one_costs_itself():
    kept = run("a", "raise", "lack", "die", "b", "leave", "c")
    assert [name for name, _ in kept] == ["a", "raise", "lack", "die", "b", "leave", "c"]
    assert [found["status"] for _, found in kept] == [
        *("measured", "wrong result", "not installed", "out of memory", "measured", "failed", "measured")
    ]
    assert kept[0][1]["value"] == "a"
    assert kept[0][1]["tiny"]
    assert kept[1][1]["message"] == "output is off"
    assert kept[5][1]["message"] == "the process ended with 3"


def test_a_cell_that_takes_too_long_is_ended_and_those_behind_it_are_not_begun():
    kept = run("sleep", "a", seconds=2.0)
    assert [(name, found["status"]) for name, found in kept] == [("sleep", "out of time")]
    assert run("a", seconds=-1.0) == []


# Requirements


def test_what_is_missing_is_said_first(capsys, monkeypatch, tmp_path):
    needs = (Need("torch", "torch"), Need("no_such_module", "a-package", "the section tests"))
    found, enough = lines(needs)
    assert enough
    assert found[0].startswith("installed: torch 2")
    assert found[1] == "missing: a-package; without it: the section tests"
    assert found[2].endswith("pip install a-package")
    monkeypatch.setattr(gpu_report, "requirements", partial(lines, (Need("no_such_module", "a-package"),)))
    assert gpu_report.main(["--out", str(tmp_path)]) == 2
    assert "without it: nothing works" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(capsys, tmp_path):
    assert gpu_report.main(["--out", str(tmp_path)]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_sections_are_those_that_are_named_and_cells_have_keys_of_their_own():
    assert tuple(sorted(SECTIONS)) == tuple(sorted(NAMES))
    assert sum(section.seconds for section in SECTIONS.values()) <= gpu_report.NINE
    for settings in (TINY, Settings("cuda"), Settings("cpu")):
        for section in SECTIONS.values():
            keys = [json.dumps(key) for key in section.cells(settings)]
            assert len(set(keys)) == len(keys) > 0
            assert [json.loads(key) for key in keys] == list(section.cells(settings))  # found again in a file


# Cores


@pytest.mark.parametrize("name", [name for name in cores.CORES if name != "window"])
def test_cores_compute_what_they_should(name):
    off = cores.verify(cores.CORES[name], CASE)
    assert off is None if name == "copy" else off <= 1e-5


def test_a_wrong_core_is_noticed(monkeypatch):
    exact = REGISTRY["banded"].forward
    for name in REGISTRY:
        monkeypatch.setattr(REGISTRY[name], "forward", lambda *arguments: exact(*arguments) * 1.001)
    with pytest.raises(WrongResultError, match="output is off by"):
        cores.verify(cores.CORES["local-23"], CASE)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("length", [100, 384, 1000])
@pytest.mark.parametrize("reach", [4, 63, 200])
def test_the_window_of_flex_attention_is_the_window(length, reach):
    from torch.nn.attention.flex_attention import flex_attention

    case = replace(CASE, size=(length,), scope=2 * reach + 1)
    tensors = [tensor.detach() for tensor in cores.heads_of(case)]
    found = flex_attention(*tensors, block_mask=cores.window_mask(length, reach, "cpu"))
    torch.testing.assert_close(found, cores.window_written_out(case)(*tensors), rtol=1e-4, atol=1e-5)


def test_times_of_calls():
    assert 0.002 <= timing.fastest(partial(time.sleep, 0.002), "cpu", 0.01) < 0.2
    assert timing.kernels(partial(time.sleep, 0.002), "cpu", 0.01) is None


# Exactness


def test_a_wrong_algorithm_is_noticed(monkeypatch):
    assert exactness.algorithm("dense", torch.float32, TINY)["off"] <= 1e-5
    assert exactness.algorithm("dense", torch.bfloat16, TINY)["shapes"] == len(exactness.TINY)
    exact = REGISTRY["dense"].backward

    def slightly_off(*arguments):
        query, *others = exact(*arguments)
        return query * 1.001, *others

    monkeypatch.setattr(REGISTRY["dense"], "backward", slightly_off)
    with pytest.raises(WrongResultError, match="gradient of query is off by"):
        exactness.algorithm("dense", torch.float32, TINY)


def test_an_algorithm_that_applies_nowhere_is_not_run(monkeypatch):
    monkeypatch.setattr(REGISTRY["dense"], "supports", lambda *where: "it needs a GPU")
    found = exactness.algorithm("dense", torch.float32, TINY)
    assert (found["status"], found["message"]) == ("not run", "it needs a GPU")


@pytest.mark.parametrize("part", exactness.CONTENT)
def test_a_wrong_content_lambda_is_noticed(part, monkeypatch):
    registry = REGISTRIES[part]
    assert exactness.of_content(part, part, torch.float32, TINY)["off"] <= 1e-5
    kernel = exactness.of_content(part, f"triton_{part}", torch.float32, TINY)
    assert (kernel["status"], kernel["message"]) == ("not run", "it runs on CUDA devices, not on cpu")
    exact = registry[part].forward
    monkeypatch.setattr(registry[part], "forward", lambda *given: tuple(one * 1.001 for one in exact(*given)))
    with pytest.raises(WrongResultError, match="is off by"):
        exactness.of_content(part, part, torch.float32, TINY)


@pytest.mark.parametrize("name", ["content", "auto", "banded", "toeplitz"])
def test_the_end_of_a_long_output(name, monkeypatch):
    assert exactness.past(name, TINY)["off"] <= 1e-5


@pytest.mark.parametrize("name", ["causal", "multi-scale", "image"])
def test_layers_against_themselves(name):
    assert max(exactness.layer(name, TINY)["checks"].values()) <= 1e-4


# Reading records


def core_record(name, length, **numbers):
    case = Case((length,), dtype="bfloat16", device="cuda")
    return {"key": layers.key("core", name, case), "status": "measured", "message": "", "taken": 1.0, **numbers}


CORES = [
    core_record("local-127", 65536, forward=9e-6, both=50e-6, forward_kernels=4e-6, both_kernels=14e-6),
    core_record("copy", 65536, forward=8e-6, forward_kernels=3e-6),
    core_record("fused", 16384, forward=1e-3, both=3e-4, both_kernels=2e-4),
    {**core_record("fused", 65536), "status": "predicted"},
    {**core_record("window", 65536), "status": "wrong result", "message": "output is off"},
]


def test_times_are_of_kernels_where_they_are_known_and_predicted_by_growth():
    times = layers.Times(CORES)
    assert times.get("core", "local-127", 65536, "backward") == pytest.approx(10e-6)
    assert layers.Times(CORES, kernels=False).get("core", "local-127", 65536, "backward") == pytest.approx(41e-6)
    assert times.expected("fused", 65536, "both") == pytest.approx(16 * 2e-4)
    assert times.expected("window", 65536, "both") is None


def test_aims_stand_beside_what_was_measured():
    rows = {row[0]: row[1:] for row in aims.table({"layers": CORES}).rows}
    copy = rows["local, scope 127, bf16, 65,536: forward, of the speed of a copy"]
    assert copy == ("≥ 60 %", "75 %", "met")
    assert rows["local, scope 127, bf16, 65,536: backward over forward"] == ("≤ 3×", "2.5×", "met")
    assert rows["local, scope 127, 65,536: faster than flash attention"] == ("≥ 100×", "229×", "met")
    assert rows["local, 65,536: faster than flex_attention, window 127"][1:] == ("", "not measured")  # it was wrong
    assert rows["global, 65,536: faster than flash attention"][2] == "not measured"
    slower = [{**one, "both_kernels": 1e-3} if one["key"]["method"] == "local-127" else one for one in CORES]
    missed = {row[0]: row[3] for row in aims.table({"layers": slower}).rows}
    assert missed["local, scope 127, 65,536: faster than flash attention"] == "not met"


def test_other_aims():
    photo = replace(comparing.PHOTO, device="cuda")
    shared = {"status": "measured", "message": "", "taken": 1.0}
    found = {
        "images": [
            {"key": comparing.key_of(name, photo), "both": both, **shared}
            for name, both in (("local", 1e-3), ("lambda-networks", 25e-3))
        ],
        "pictures": [
            {"key": {"network": name, "side": 224, "batch": 128, "train": True}, "pictures": rate, **shared}
            for name, rate in (("lambda_resnet50", 900.0), ("resnet50", 2000.0))
        ],
        "long": [
            {"key": {"method": "local", "size": [n]}, "peak_bytes": peak, **shared}
            for n, peak in ((2**20, 100), (2**22, 404))
        ],
    }
    rows = {row[0]: row[2:] for row in aims.table(found).rows}
    assert rows["2D, scope 23, (8, 64, 56, 56), float32: faster than pip's lambda-networks"] == ("25×", "met")
    assert rows["LambdaResNet-50, 224², training: pictures a second of ResNet-50's"] == ("0.45×", "not met")
    assert rows["four times the positions: memory over four times the memory"] == ("1.01×", "met")


def test_failures_are_listed():
    found = list(aims.failures({"layers": CORES}))
    assert len(found) == 1
    assert found[0].endswith("wrong result, output is off")


def test_no_ratio_over_a_wrong_result():
    tables = [part for part in layers.parts(CORES, Settings("cuda")) if isinstance(part, Table)]
    ratios = next(table for table in tables if table.title.startswith("Times as fast"))
    assert [row[0] for row in ratios.rows] == ["lambda, scope 127"]
    assert "wrong result" in next(table for table in tables if table.title.startswith("Forward")).markdown()


def test_rates_are_lines_to_paste():
    found = rates.LF.Rates(1e13, 3e11, 2e12, float("inf"), 1e12, 1e5)
    line = rates.constants("cuda", found)
    assert line == '"cuda": Rates(1e+13, 3e+11, 2e+12, float("inf"), 1e+12, 1e+05),'
    assert eval(f"{{{line}}}", {"Rates": rates.LF.Rates})["cuda"] == found


# Other sections, a cell of each


def test_a_training_learns_and_its_curve_is_kept(monkeypatch):
    found = training.learn("language", TINY)
    assert found["last"] < found["first"]
    assert found["steps"] >= 1
    records = [{"key": {"what": "language"}, "status": "measured", "message": "", "taken": 1.0, **found}]
    (line,) = training.series(records)
    assert len(line.points) == len(found["curve"])
    (table,) = training.parts(records, TINY)
    assert "→" in table.rows[0][1]


def test_pictures_that_a_network_shall_learn_differ_by_class():
    _, batch = training.pictures(TINY)
    x, labels = batch(torch.Generator().manual_seed(0))
    assert x.shape == (32, 3, 8, 8)
    assert 0 <= labels.min() <= labels.max() < 10


def test_memory_doubles_until_it_ends(tmp_path):
    found = {"key": {"method": "local"}, "status": "measured", "message": "", "taken": 1.0}
    found |= memory.run({"method": "local"}, TINY)
    assert [cell["status"] for cell in found["cells"]] == ["measured", "measured"]
    said, table = memory.parts([found], TINY)
    assert "2 GiB" in said
    assert table.rows[0][0] == "ours, local"


def test_images_beside_the_paper_s_convolution():
    key = comparing.key_of("convolved", Case((9, 9), batch=2, dim=16, scope=5))
    assert images.run(key, TINY)["both"] > 0


def test_tokens_by_both_loops(monkeypatch):
    (key, *_) = generation.cells(TINY)
    found = generation.run(key, TINY)
    assert min(found["plain"], found["graph"]) > 0
    (table,) = generation.parts([{"key": key, "status": "measured", "message": "", **found}], TINY)
    assert table.rows[0][0] == "lambda_lm_tiny, local, float32, batch 2"
    failed = {"key": key, "status": "failed", "message": "why"}
    assert next(generation.parts([failed], TINY)).rows[0][-1] == "failed: why"
    take = generation._take
    monkeypatch.setattr(generation, "_take", lambda steps, drawn: (take(steps, drawn), drawn[-1].random_(5)))
    with pytest.raises(WrongResultError, match="gives other tokens"):
        generation.run(key, TINY)


def test_one_gpu_has_nothing_to_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = several.run({"what": "ddp"}, Settings("cuda"))
    assert found == {"status": "not run", "message": "one GPU"}
    assert list(several.parts([{"key": {}, **found}], Settings("cuda"))) == ["One GPU: nothing to share."]


@pytest.mark.slow
def test_several_processes_compute_what_one_does():
    for key in several.cells(TINY):
        assert several.run(key, TINY)["processes"] == 2


@pytest.mark.slow
def test_tests_of_the_algorithms_take_the_device():
    assert suite.run({"tests": "properties"}, TINY)["counts"]["passed"] > 5


# The report


@pytest.fixture
def fake(monkeypatch):
    """Sections whose cells cost nothing."""
    made = []

    def go(name):
        def run_here(section, keys, settings, seconds, keep):
            for key in keys:
                made.append((section.name, json.dumps(key)))
                keep(key, {"status": "measured", "message": "", "taken": 0.0})

        return run_here

    monkeypatch.setattr("gpu.running.run_section", go("all"))
    return made


def test_nothing_is_measured_twice(fake, tmp_path, capsys):
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path)]
    assert gpu_report.main([*arguments, "--only", "machine", "rates"]) == 0
    some = len(fake)
    assert {name for name, _ in fake} == {"machine", "rates"}
    assert gpu_report.main(arguments) == 0
    assert len(set(fake)) == len(fake) > some
    capsys.readouterr()
    assert gpu_report.main(arguments) == 0
    assert len(set(fake)) == len(fake)
    assert "0 cells" in capsys.readouterr().out
    assert gpu_report.main([*arguments, "--again", "machine"]) == 0
    assert len(fake) - len(set(fake)) == len(SECTIONS["machine"].cells(TINY))
    found = json.loads((tmp_path / "report.json").read_text())
    assert len(found["records"]) == sum(len(section.cells(TINY)) for section in SECTIONS.values())
    text = (tmp_path / "report.md").read_text()
    assert "Tiny sizes" in text
    assert "cells were not run" not in text


def test_records_of_other_code_are_not_mixed(fake, tmp_path, monkeypatch):
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path), "--only", "machine"]
    assert gpu_report.main(arguments) == 0
    monkeypatch.setattr(report, "fingerprint", lambda: "other")
    with pytest.raises(SystemExit, match="--again to measure all anew"):
        gpu_report.main(arguments)
    assert gpu_report.main([*arguments, "--again"]) == 0


def test_a_section_that_cannot_be_written_costs_no_other(tmp_path):
    recorder = Recorder(tmp_path / "report.json", ["x"], {})
    recorder.add({"section": "nccl", "cell": {"strange": 1}}, status="measured", message="", taken=0.0)
    recorder.add({"section": "machine", "cell": {"what": "copy", "bytes": 2}}, status="measured", message="", rate=1e9)
    report.write(recorder, TINY, ["a note"])
    text = (tmp_path / "report.md").read_text()
    assert "This section could not be written: KeyError" in text
    assert "1 GB/s" in text
    assert "- a note" in text


@pytest.mark.slow(seconds=35)
def test_the_whole_report_on_a_cpu(tmp_path, monkeypatch, forks):
    words = ["--device", "cpu", "--tiny", "--out", str(tmp_path)]
    words += ["--minutes", "60"]  # of a machine that others keep busy, too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path.parent / "cache"))
    command = [sys.executable, "scripts/gpu_report.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"report.md", "report.json", "rates.json", "layers.png", "memory.png", "training.png"}
    assert len(files) <= report.FILES
    text = (tmp_path / "report.md").read_text()
    for section in SECTIONS.values():
        assert f"## {section.title}" in text
    assert "could not be written" not in text
    assert "cells were not run" not in text
    records = json.loads((tmp_path / "report.json").read_text())["records"]
    asked = []
    monkeypatch.setattr("gpu.running.run_section", lambda section, keys, *others: asked.extend(keys))
    assert gpu_report.main(words) == 0  # the same command again
    assert asked == []
    assert json.loads((tmp_path / "report.json").read_text())["records"] == records


def test_peers_are_those_of_the_benchmarks():
    assert set(layers.WHOLE) <= set(peers.METHODS)
