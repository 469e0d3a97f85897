"""Processes whose recipes have chosen differently do not begin."""

from types import SimpleNamespace

import pytest

from lambda_seq.tasks.callbacks.agreeing import SameChoices


def trainer(first):
    """One whose process 0 has chosen `first`."""
    strategy = SimpleNamespace(broadcast=lambda _: first, reduce_boolean_decision=lambda decision: decision)
    return SimpleNamespace(strategy=strategy, global_rank=1)


def test_the_same_choices_may_begin():
    SameChoices(["--data.batch_size=16"]).setup(trainer(["--data.batch_size=16"]), None, "fit")


def test_other_choices_are_an_error():
    with pytest.raises(
        ValueError, match=r"process 1 has chosen --data.batch_size=16, and process 0 .*=32; --data.path"
    ):
        SameChoices(["--data.batch_size=16"]).setup(trainer(["--data.batch_size=32"]), None, "fit")
