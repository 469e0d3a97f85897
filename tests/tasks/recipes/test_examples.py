"""The page on data shows what recipes choose today."""

import pytest
from paths import ROOT

from lambda_seq.tasks.recipes.examples import EXAMPLES, table
from lambda_seq.tasks.recipes.registry import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_shows_the_tables(recipe):
    assert table(recipe) in (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), (
        "docs/data.md shows other choices; put in what `python -m lambda_seq.tasks.recipes.examples` prints"
    )
    assert table(recipe).count("\n| `trainer.max_epochs` |") == 1
    assert len(EXAMPLES[recipe]) >= 3
