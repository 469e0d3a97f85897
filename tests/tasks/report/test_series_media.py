"""Series as a page shows them: the course of some channels, with gaps."""

import jinja2
import pytest
import torch
from paths import ROOT

from lambda_seq.tasks.facts import Facts, Series
from lambda_seq.tasks.report import media

NAN = float("nan")
FACTS = Facts(kind="features", series=Series(channels=list("abcd"), mean=[0.0] * 4, std=[1.0] * 4))


def test_courses_have_gaps_where_numbers_are_missing():
    x = torch.tensor([[0.0, 5, NAN, 1], [1, 5, NAN, 1], [NAN, 5, NAN, 1], [2, 5, NAN, 1]])
    found = media.shown(x, FACTS)
    assert (found["kind"], found["steps"], found["points"], found["more"]) == ("series", 4, 4, 1)
    first, constant, unknown = found["channels"]
    assert (first["name"], first["least"], first["most"]) == ("a", 0, 2)
    assert first["course"] == "M0 39.0L1 20.0M3 1.0"
    assert constant["course"].startswith("M0 39.0L1 39.0")
    assert unknown["course"] == ""


def test_long_courses_are_thinned_to_their_end():
    found = media.shown(torch.randn(1000, 4), FACTS)
    assert found["points"] == 167
    assert found["channels"][0]["course"].count("L") == 166


@pytest.mark.parametrize("length", [0, 1])
def test_short_ones(length):
    assert media.shown(torch.zeros(length, 4), FACTS)["points"] == length


def test_the_page_draws_them():
    page = (ROOT / "tasks" / "report" / "page.html").read_text(encoding="utf-8")
    begin, end = page.index('<article class="card mistake">'), page.index("</article>")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    one = {"answer": "up", "sure": "90.0%", "label": "down", "own": "10.0%", "name": "s1", "windows": 1}
    one |= media.shown(torch.arange(8.0).view(2, 4), FACTS)
    shown = environment.from_string(page[begin:end]).render(one=one)
    assert shown.count("<svg") == 3
    assert 'd="M0 39.0L1 1.0"' in shown
    assert "2 steps, 1 more channels" in shown
