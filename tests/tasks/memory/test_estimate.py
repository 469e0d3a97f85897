"""Estimates against what a step takes."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from torch import nn

from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.facts import Audio, Facts, Pixels
from lambda_seq.tasks.memory.estimate import Alive, StepMemory, batch_like, estimate, kept_by
from lambda_seq.tasks.recipes.pictures import Images, choose

CPU = torch.device("cpu")
PIXELS = Pixels(mean=[0.0] * 3, std=[1.0] * 3)
IMAGES = Facts(
    kind="image", options={"num_classes": 2, "in_channels": 3, "image_size": [48, 64]}, labels=["a", "b"], pixels=PIXELS
)
TEXTS = Facts(kind="tokens", options={"num_classes": 2, "vocab_size": 257, "max_length": 1024}, labels=["a", "b"])
RESNET = {"stem": "small", "blocks": [1], "placement": "L", "width": 16, "heads": 2, "scope": 3}
ENCODER = {"stem": "tokens", "strides": [2], "dim": 32, "depth": 1, "scope": 7}


@pytest.mark.parametrize(
    ("facts", "network", "options"), [(IMAGES, "lambda_resnet50", RESNET), (TEXTS, "lambda_encoder", ENCODER)]
)
def test_as_the_allocator_has_it(facts, network, options):
    """To the byte, but for gradients: estimated as if all were there at the peak, where some of them are.

    What our operators take while they run is no tensor of the trace; here they do not run at the peak.
    """
    task = Classification(network, options, facts=facts)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    random = torch.random.get_rng_state()
    found = estimate(task, 32, kept=0)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(weight.grad is None for weight in task.parameters())
    batch, what = batch_like(facts, 32, None, CPU)
    assert found.what == what
    step(task, batch)  # makes what is kept for inputs of this size
    task.zero_grad()
    left, peak = allocated(lambda: step(task, batch))
    assert left == found.fixed  # the gradients
    assert found.activations <= peak <= found.total


def allocated(function):
    """Bytes that torch's allocator has after a function, and at most meanwhile, beside those it had before.

    It is asked itself: what a process takes of the system depends on what ran in it before.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    # Private to torch's profiler, whose public events have memory by operations only
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    course = list(accumulate(one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())))
    return course[-1], max(course)


def step(task, batch):
    x, mask = task.inputs(batch)
    task.answer(x, mask).log_softmax(-1).mean().backward()


def test_it_grows_with_the_batch_and_halves_with_precision():
    task = Classification("lambda_resnet50", RESNET, facts=IMAGES)
    few, many = (estimate(task, rows) for rows in (16, 64))
    assert few.fixed == many.fixed == 3 * sum(p.numel() * 4 for p in task.parameters())
    assert 3.8 < many.activations / few.activations < 4.2
    half = estimate(task, 64, context=torch.autocast("cpu", torch.bfloat16))
    assert half.activations < 0.75 * many.activations


def test_what_the_recipe_chooses_for_photos_fits():
    chosen = {one.option: one.value for one in choose(Images(rows=900, height=374, width=500, differ=True))}
    options = {name.removeprefix("model.options."): value for name, value in chosen.items() if "model.options" in name}
    facts = replace(IMAGES, options=IMAGES.options | {"image_size": chosen["data.image_size"]})
    found = estimate(Classification("lambda_resnet50", options, facts=facts), chosen["data.batch_size"])
    assert 2**26 < found.total < 2**30


@pytest.mark.parametrize(
    ("facts", "longest", "shapes", "what"),
    [
        (IMAGES, None, {"x": (4, 3, 48, 64)}, "4 pictures of 48 × 64"),
        (TEXTS, 96, {"x": (4, 96), "mask": (4, 96)}, "4 rows of 96 tokens"),
        (TEXTS, None, {"x": (4, 1024), "mask": (4, 1024)}, "4 rows of 1,024 tokens"),
        (
            Facts(
                kind="waveform", options={"max_length": 9}, labels=["a"], audio=Audio(sampling_rate=8000, max_length=9)
            ),
            None,
            {"x": (4, 9), "mask": (4, 9)},
            "4 rows of 9 samples",
        ),
        (
            Facts(kind="features", options={"max_length": 9, "in_channels": 3}, pixels=PIXELS),
            None,
            {"x": (4, 9, 3)},
            "4 rows of 9 positions",
        ),
    ],
)
def test_batches_are_as_the_data_are(facts, longest, shapes, what):
    batch, said = batch_like(facts, 4, longest, CPU)
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert said == what


def test_without_a_size_there_is_no_batch():
    assert batch_like(Facts(kind="image"), 4, None, CPU) is None
    assert batch_like(Facts(kind="tokens"), 4, None, CPU) is None


def test_what_is_alive():
    with Alive() as alive:
        first = torch.zeros(1000)
        second = first.view(10, 100)
        third = first + 1
        del first, second
        torch.zeros(500)
    assert alive.now == 4000
    assert alive.peak == 8000
    del third
    assert alive.now == 0


@pytest.mark.parametrize(("room", "rows"), [(10, None), (12, 1), (59, 16), (1000, 32)])
def test_rows_that_fit(room, rows):
    found = StepMemory(fixed=10, activations=128, rows=64, what="")
    assert found.total == 138
    assert found.fitting(room) == rows


def test_what_optimizers_keep():
    weights = nn.Linear(2, 2).parameters
    assert kept_by(torch.optim.AdamW(weights())) == 2
    assert kept_by(torch.optim.AdamW(weights(), amsgrad=True)) == 3
    assert kept_by(torch.optim.SGD(weights())) == 0
    assert kept_by(torch.optim.SGD(weights(), momentum=0.9)) == 1
    assert kept_by(torch.optim.Adagrad(weights())) == 1
