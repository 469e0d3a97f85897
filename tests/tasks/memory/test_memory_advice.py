"""Errors of memory end with the options to change."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lambda_seq.tasks.memory.advice import advice, naming_options
from lambda_seq.tasks.memory.errors import says_no_memory


def trainer(fn=TrainerFn.FITTING, precision="32-true", accumulate=1):
    return SimpleNamespace(state=SimpleNamespace(fn=fn), precision=precision, accumulate_grad_batches=accumulate)


PICTURES = SimpleNamespace(batch_size=64, image_size=None)


def test_options_are_those_of_the_data():
    found = advice(PICTURES, trainer(), rows=16)
    assert found.startswith("--data.batch_size 16 --trainer.accumulate_grad_batches 4 (as many rows in a step)")
    for words in ("a smaller --data.image_size", "--trainer.precision bf16-mixed or a smaller network"):
        assert words in found
    clips = advice(SimpleNamespace(batch_size=1, crop_seconds=None, max_seconds=None), trainer(precision="bf16-mixed"))
    assert clips == "a shorter --data.crop_seconds, a shorter --data.max_seconds or a smaller network"
    assert "--data.max_length" in advice(SimpleNamespace(batch_size=8, max_length=9), trainer())


def test_half_of_the_rows_and_steps_that_accumulate_already():
    assert "--data.batch_size 32 --trainer.accumulate_grad_batches 6" in advice(PICTURES, trainer(accumulate=3))


def test_nothing_accumulates_in_a_test():
    found = advice(PICTURES, trainer(TrainerFn.TESTING))
    assert found == "--data.batch_size 32, a smaller --data.image_size or --trainer.precision bf16-mixed"


def real():
    return torch.empty(2**58, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "(MemoryError)"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "(Tried to allocate 2.00 GiB)",
        ),
        (None, "you tried to allocate 288230376151711744 bytes)"),
    ],
    ids=str,
)
def test_errors_of_memory_are_one_line(error, words):
    def fail():
        if error is None:
            real()  # torch's own on the CPU
        raise error

    with pytest.raises(MemoryError) as caught, naming_options(PICTURES, trainer()):
        fail()
    said = str(caught.value)
    assert said.startswith("out of memory (")
    assert words in said
    assert "\n" not in said
    for option in ("batch_size 32", "accumulate_grad_batches 2", "image_size", "precision"):
        assert option in said
    assert caught.value.__cause__ is not None


def test_operations_that_are_not_there_are_no_want_of_memory():
    for words in ("could not create a primitive", "could not execute a primitive", "std::bad_alloc"):
        assert says_no_memory(RuntimeError(words))  # oneDNN's, in a process that may have no more
    assert not says_no_memory(RuntimeError("could not create a primitive descriptor for a convolution forward"))


def test_other_errors_stay():
    assert not says_no_memory(RuntimeError("shapes do not fit"))
    assert not says_no_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes"), naming_options(PICTURES, trainer()):
        raise RuntimeError("shapes do not fit")
