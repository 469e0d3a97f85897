"""The page of a run: what stands in it, for each kind of input, and that a browser shows all of it."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import run
from PIL import Image
from small_data import SHORT, TINY_ENCODER, texts, write_jsonl
from small_runs import KINDS, ambiguous

from lambda_seq.tasks.report import page as pages_of
from lambda_seq.tasks.report.page import confused, figures

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEXTS = ("--config", "text_classification", "--data.batch_size=8", *TINY_ENCODER)
VOID = {"meta", "link", "img", "br", "input"}


class Reader(HTMLParser):
    """Reads a page; one whose elements are not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_page_has(pages, kind):
    folder, html, printed = pages(kind)
    read = Reader(html)
    for words in ("lambda-seq fit --config", "seed_everything", "torch 2.", "Confusion matrix", "Reliability", "Loss"):
        assert words in read.words
    summary = json.loads((folder / "summary.json").read_text())
    assert f"{summary['test/loss']:.3f}" in read.words
    assert f"{summary['test/accuracy']:.1%}" in read.words
    assert summary["page"] == str(folder / "report.html")
    assert re.search(r"^page +\S+report.html$", printed, re.MULTILINE)
    assert "figures of the test split" in read.words
    # Nothing comes from elsewhere, and nothing is a script
    assert not read.of("script")
    addresses = [one[name] for _, one in read.found for name in ("src", "href") if name in one]
    assert all(address.startswith("data:") for address in addresses)
    assert "url(" not in html
    assert "@import" not in html


def test_mistakes_in_pictures(pages):
    folder, html, _ = pages("pictures")
    read = Reader(html)
    pictures = read.of("img")
    assert len(pictures) == 4  # of 8 in the test, each twice
    for one in pictures:
        kind, _, content = one["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(Image.open(one["alt"]).convert("RGB")))
    assert "All wrong answers of the test split" in read.words
    assert "baseline" in read.words
    assert "better" in read.words
    assert (folder / "baseline.json").is_file()


def test_mistakes_in_clips(pages):
    read = Reader(pages("clips").html)
    clips = read.of("audio")
    assert len(clips) == 4
    for one in clips:
        assert "controls" in one
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(one["src"].partition(",")[2])))
        assert rate == 4000
        assert len(samples) in range(400, 700)
    assert len([one for one in read.of("svg") if one.get("class") == "wave"]) == 4
    assert "Accuracy by length" in read.words
    assert "length in samples" in read.words


def test_mistakes_in_texts(pages):
    read = Reader(pages("texts").html)
    assert "Colours by occlusion" in read.words
    marked = [one["title"] for one in read.of("mark")]
    assert marked
    assert all(re.fullmatch(r"without it [+-]0\.\d{3}", title) for title in marked)
    assert "naïve" in read.words
    assert "<feline>" in read.words  # as text
    assert "length in words" in read.words


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed: apt-get install chromium")
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_shows_all_of_it(pages, tmp_path, kind):
    """No errors on the console, pictures that are decoded, clips that can be played; in the light and in the dark."""
    asked = """<script>
      addEventListener("error", event => errors.push(event.message || event.target.outerHTML.slice(0, 60)), true);
      const errors = [];
      const loaded = audio => new Promise(done => {
        audio.addEventListener("loadedmetadata", done);
        audio.addEventListener("error", done);
        if (audio.readyState > 0 || audio.error) done();
      });
      addEventListener("load", async () => {
        const pictures = [...document.images].map(image => image.complete && image.naturalWidth);
        const clips = [...document.querySelectorAll("audio")];
        await Promise.all(clips.map(loaded));
        const wide = document.documentElement.scrollWidth > innerWidth;
        const seconds = clips.map(clip => clip.duration);
        const ground = getComputedStyle(document.body).backgroundColor;
        const found = document.createElement("output");
        found.textContent = JSON.stringify({pictures, seconds, errors, wide, ground});
        document.body.append(found);
      });
    </script></head>"""
    file = tmp_path / "page.html"
    file.write_text(pages(kind).html.replace("</head>", asked, 1), encoding="utf-8")
    grounds = set()
    for scheme in (0, 1):  # dark, light
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command += [f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--virtual-time-budget=8000", "--window-size=390,800", "--dump-dom", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ":CONSOLE" not in done.stderr
        found = json.loads(re.search(r"<output>(.*)</output>", done.stdout)[1])
        assert found["errors"] == []
        assert not found["wide"]  # on a telephone, either
        assert all(width == 8 for width in found["pictures"])
        assert all(0.09 < seconds < 0.2 for seconds in found["seconds"])
        assert len(found["pictures"]) == 4 * (kind == "pictures")
        assert len(found["seconds"]) == 4 * (kind == "clips")
        grounds.add(found["ground"])
    assert len(grounds) == 2


@pytest.mark.slow
def test_two_processes_make_one_page(tmp_path, monkeypatch):
    """Each row is counted once, and the mistakes of both are shown."""
    monkeypatch.chdir(tmp_path)
    config, *options = KINDS["pictures"]
    both = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--output_dir=run")
    data = ambiguous("pictures", tmp_path / "data")
    printed = run("fit", "--config", config, f"--data.path={data}", *options, *SHORT, *both)
    assert len(re.findall(r"^page +run/report.html$", printed, re.MULTILINE)) == 1
    read = Reader(Path("run/report.html").read_text())
    assert "figures of the test split, 8 rows" in read.words
    assert "2 × " in read.words
    names = [Path(one["alt"]).name.removeprefix("copied ") for one in read.of("img")]
    assert sorted(names) == ["00.png", "00.png", "01.png", "01.png"]


def test_without_a_test_split_it_is_of_validation(cli, tmp_path):
    file = write_jsonl(tmp_path / "texts.jsonl", texts(40))
    printed = cli("fit", *TEXTS, "--data.path", file, *SHORT, "--output_dir=run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 <= summary["val/accuracy"] <= 1
    assert "val/calibration_error" in printed.out
    assert "figures of the validation split, 4 rows" in Reader(Path("run/report.html").read_text()).words
    logged = Path("run/csv/version_0/metrics.csv").read_text().splitlines()
    assert sum("val/accuracy" in line for line in logged) == 1  # the header: nothing is logged twice
    column = logged[0].split(",").index("val/accuracy")
    assert sum(bool(line.split(",")[column]) for line in logged[1:]) == 1


def test_without_a_test_the_table_has_the_figures_of_the_best_checkpoint(cli, stories):
    options = ("--test_after_fit=false", "--report=false", "--trainer.max_epochs=3", "--output_dir=run")
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, *options)
    summary = json.loads(Path("run/summary.json").read_text())
    assert {"val/accuracy", "val/loss", "val/f1", "val/calibration_error"} <= summary.keys()
    assert not any(name.startswith("test/") for name in summary)
    best = max(float(score) for score in accuracies(Path("run")))
    assert summary["val/accuracy"] == pytest.approx(best)
    assert "val/accuracy" in printed.out
    assert "page" not in summary
    assert not Path("run/report.html").exists()  # as --report false says


def accuracies(folder: Path) -> list[str]:
    header, *rows = (line.split(",") for line in (folder / "csv/version_0/metrics.csv").read_text().splitlines())
    column = header.index("val/accuracy")
    return [row[column] for row in rows if row[column]]


def test_a_page_that_fails_costs_nothing_else(cli, stories, monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(pages_of, "context", fail)
    printed = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run")
    assert "run/report.html could not be made (RuntimeError: no luck); all else of this fit is done" in printed.out
    assert "test/accuracy" in json.loads(Path("run/summary.json").read_text())


def test_figures_stand_beside_the_baselines():
    final = {"test/accuracy": 0.9, "test/loss": 0.5, "test/baseline_accuracy": 0.8, "test/baseline_loss": 0.4}
    rows = {row["name"]: row for row in figures(final | {"test/baseline_majority": 0.3, "val/f1": 0.1}, "test")}
    assert list(rows) == ["accuracy", "loss", "accuracy of the most frequent class"]
    assert rows["accuracy"]["better"] is True
    assert rows["loss"]["better"] is False
    assert rows["accuracy of the most frequent class"]["value"] is None


def test_pairs_that_are_confused():
    found = confused([[5, 3, 0], [0, 1, 1], [4, 0, 0]], ["a", "b", "c"])
    assert [(pair["label"], pair["answer"], pair["rows"]) for pair in found] == [
        ("c", "a", 4),
        ("a", "b", 3),
        ("b", "c", 1),
    ]
    assert found[1]["share"] == 0.375
