"""Tests of what is refused because a fit could not end as it should."""

from types import SimpleNamespace

import pytest

from lambda_seq.tasks.callbacks.ending import Ending
from lambda_seq.tasks.strategies.distributed import ShardedStrategy


def trainer(limit=1.0, *, tested=True, strategy=None, batches=4):
    data = SimpleNamespace(tested=tested, test_dataloader=lambda: [0] * batches)
    return SimpleNamespace(datamodule=data, limit_test_batches=limit, strategy=strategy)


def ending(**given):
    return Ending(**({"tests": True, "exports": True, "keeps": True} | given))


def test_less_than_a_batch_to_test_is_refused():
    with pytest.raises(ValueError, match=r"limit_test_batches=0.2: less than one of the 4 batches to test; give 0.25"):
        ending().setup(trainer(0.2), None, "fit")
    for fine in (trainer(0.25), trainer(1), trainer(0), trainer(0.2, tested=False)):
        ending().setup(fine, None, "fit")
    ending(tests=False).setup(trainer(0.2), None, "fit")
    ending().setup(trainer(0.2), None, "test")


def test_weights_that_are_nowhere_whole_are_refused():
    spread = {"strategy": ShardedStrategy()}
    for given in ({}, {"exports": False}, {"tests": False}):
        with pytest.raises(ValueError, match=r"trainer.enable_checkpointing=False with trainer.strategy=fsdp2"):
            ending(keeps=False, **given).setup(trainer(**spread), None, "fit")
    ending(keeps=False, exports=False).setup(trainer(tested=False, **spread), None, "fit")
    ending(keeps=False, exports=False).setup(trainer(0, **spread), None, "fit")
    ending().setup(trainer(**spread), None, "fit")
    ending(keeps=False).setup(trainer(), None, "fit")
