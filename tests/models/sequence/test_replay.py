"""Generation over buffers that stay where they are gives what the plain loop gives, bit for bit."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lambda_seq.functional.states import taken_apart
from lambda_seq.layers.positions.kept import kept_of
from lambda_seq.models import LambdaLM
from lambda_seq.models.sequence import generation
from lambda_seq.models.sequence.replay import WARM_UP, Replay, changes

SMALL = {"vocab_size": 11, "dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5}
CONSTANT = {
    "local": {},
    "scopes that differ, l2": {"scope": [3, 9], "key_norm": "l2"},
    "exponential": {"scope": None, "position": "exponential"},
    "exponential and local": {"scope": [None, 5], "position": ["exponential", "table"]},
    "content only": {"position": False},
    "position only": {"content": False},
    "intra-depth, not normalised": {"dim_intra": 2, "key_norm": "none"},
}
GROWING = {
    "table": {"scope": None, "max_length": 100},
    "multi-scale": {"scope": None, "position": "multiscale"},
    "one of two": {"scope": [5, None], "position": ["table", "multiscale"]},
}


def made(options, dtype=torch.float32):
    torch.manual_seed(0)
    return LambdaLM(**{**SMALL, **options}).to(dtype).eval()


def prompts(batch=3, length=9):
    return torch.randint(1, 11, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def replays(monkeypatch):
    """Those that generation makes."""
    found = []

    class Noted(Replay):
        def __init__(self, *given):
            found.append(self)
            self.calls = 0
            super().__init__(*given)

        def __call__(self, tokens):
            self.calls += 1
            return super().__call__(tokens)

    monkeypatch.setattr(generation, "Replay", Noted)
    return found


def last_state(model, monkeypatch, **options):
    """Tokens of the plain loop, and the state after its last step."""
    states, step = [], model.step_features

    def noted(tokens, state):
        features, state = step(tokens, state)
        states.append(state)
        return features, state

    with monkeypatch.context() as patch:
        patch.setattr(model, "step_features", noted)
        return model.generate(prompts(), 14, cuda_graph=False, **options), states[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CONSTANT)
def test_tokens_and_state_are_those_of_the_plain_loop(case, dtype, replays, monkeypatch):
    model, options = made(CONSTANT[case], dtype), {"seed": 3, "stop": 7}
    expected, state = last_state(model, monkeypatch, **options)
    assert not replays
    assert torch.equal(model.generate(prompts(), 14, cuda_graph=True, **options), expected)
    (replay,) = replays
    assert replay.calls == expected.shape[1] - 2  # the first token is the prompt's, the second step tells
    for found, wanted in zip(replay.leaves, taken_apart(state)[0], strict=True):
        assert torch.equal(found, wanted)


def test_a_short_prompt_fills_the_state_first(replays):
    model = made({"scope": [7, 3]})
    expected = model.generate(prompts(2, 2), 20, seed=1, cuda_graph=False)
    assert torch.equal(model.generate(prompts(2, 2), 20, seed=1, cuda_graph=True), expected)
    (replay,) = replays
    assert [leaf.shape[2] for leaf in replay.leaves if leaf.shape[-2:] == (6, 4)] == [6]
    assert replay.calls == 19 - 5  # the sixth position is the last that makes it larger


def test_buffers_stay_where_they_are_and_leave_what_was_given_alone():
    model = made({})
    with torch.no_grad():
        logits, state = model.step(prompts(), model.init_state(3))
        before = [leaf.clone() for leaf in taken_apart(state)[0]]
        tokens = logits[:, -1].argmax(-1)
        replay = Replay(model.step, tokens, state)
        places, outputs = [leaf.data_ptr() for leaf in replay.leaves], []
        for _ in range(3):
            expected, state = model.step(tokens, state)
            outputs.append(replay(tokens))
            assert torch.equal(outputs[-1], expected)
            tokens = expected.argmax(-1)
    assert [leaf.data_ptr() for leaf in replay.leaves] == places
    assert len({output.data_ptr() for output in outputs}) == 1
    assert replay.state.seen == 9  # what nothing depends on
    given = taken_apart(model.step(prompts(), model.init_state(3))[1])[0]
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))


@pytest.mark.parametrize("case", GROWING)
def test_a_state_that_grows_has_none(case, replays):
    model = made(GROWING[case])
    with pytest.raises(ValueError, match=r"cuda_graph=True: the model's state grows with the context; give it a local"):
        model.generate_steps(prompts(), 5, cuda_graph=True)
    for given in ("auto", False):
        assert model.generate(prompts(), 5, cuda_graph=given).shape == (3, 5)
    assert not replays


def test_auto_is_for_gpus_and_many_tokens(replays):
    model = made({})
    model.generate(prompts(), 100)
    assert not replays
    place = torch.device("cuda")
    assert model._least_to_replay("auto", place, False) == generation.WORTH
    assert model._least_to_replay(True, place, False) == model._least_to_replay(True, torch.device("cpu"), False) == 0
    assert model._least_to_replay(False, place, False) is None
    assert model._least_to_replay("auto", place, True) is None  # spread over processes
    assert made(GROWING["table"])._least_to_replay("auto", place, False) is None
    with pytest.raises(ValueError, match="cuda_graph=True: weights that are spread over processes"):
        model._least_to_replay(True, place, True)


@pytest.mark.parametrize("given", ["yes", None, 2])
def test_other_options_are_refused(given):
    with pytest.raises(ValueError, match=r"cuda_graph=.*: expected 'auto', True or False"):
        made({}).generate_steps(prompts(), 5, cuda_graph=given)


def test_numbers_that_are_no_counters_are_told(monkeypatch, replays):
    model = made({})
    expected, step = model.generate(prompts(), 9, seed=1), model.step_features

    def unsteady(tokens, state):
        features, state = step(tokens, state)
        return features, replace(state, seen=state.seen + 4)

    monkeypatch.setattr(model, "step_features", unsteady)
    with pytest.warns(UserWarning, match="without a CUDA graph, as a step changes more .*: 13 becomes 18") as told:
        found = model.generate(prompts(), 9, seed=1, cuda_graph=True)
    assert torch.equal(found, expected)
    assert len(told) == 1
    assert not replays


def test_a_step_that_cannot_be_recorded_is_told(monkeypatch):
    model = made({})

    def failing(*given):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(generation, "Replay", failing)
    expected = model.generate(prompts(), 9, seed=1, cuda_graph=False)
    with pytest.warns(UserWarning, match="without a CUDA graph, as a step cannot be recorded: operation not permitted"):
        assert torch.equal(model.generate(prompts(), 9, seed=1, cuda_graph=True), expected)


def test_what_a_step_changes():
    model = made({})
    _, first = model.step(prompts(3, 1), model.init_state(3))
    _, second = model.step(prompts(3, 1), first)
    shapes = [((3, 1, length, 4), torch.float32) for length in (1, 2)]
    assert changes(first, second) == [tuple(shapes)] * 2
    _, full = model.step(prompts(3, 3)[:, :1], model.step(prompts(), first)[1])
    _, after = model.step(prompts(3, 1), full)
    assert changes(full, after) == []
    assert changes(full, replace(after, seen=3)) == [(full.seen, 3)]
    assert changes(full, replace(after, blocks=after.blocks[:1]))[0] == ("2 parts", "1 parts")


def test_what_a_graph_reads_is_held():
    model = made(CONSTANT["exponential"])
    with torch.inference_mode():
        model.step(torch.ones(1, dtype=torch.int64), model.init_state(1))
    kept = kept_of(model)
    assert len(kept) == 2 * 7  # of each block: rates, frequencies, coefficients, and what a step turns
    weight = model.head.weight
    replay = Replay(model.step, torch.ones(1, dtype=torch.int64), model.init_state(1), [*kept, weight])
    place = weight.data_ptr()
    model.to(torch.float64)
    assert replay.reads[-1].data_ptr() == place
    assert replay.reads[-1].dtype == torch.float32
    assert kept_of(model.train()) == []


def test_a_graph_is_recorded_after_a_warm_up_on_another_stream(monkeypatch):
    """As CUDA asks for it; what a GPU does stands in for by names."""
    done = []

    class Stream:
        def wait_stream(self, other):
            done.append("wait")

    class Graph:
        def replay(self):
            done.append("replay")

    def recording(graph, **options):
        done.append("record")
        assert not torch.is_autocast_cache_enabled()
        return nullcontext()

    names = {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "graph": recording}
    for name, stand_in in {**names, "stream": nullcontext, "device": nullcontext}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)

    def step(tokens, state):
        done.append("step")
        return tokens.float(), (state[0] + tokens,)

    replay = Replay.__new__(Replay)
    monkeypatch.setattr(torch, "empty_like", lambda one: torch.zeros(one.shape))
    tokens = SimpleNamespace(clone=lambda: torch.ones(2), device=torch.device("cuda"))
    Replay.__init__(replay, step, tokens, (torch.zeros(2),))
    assert done == ["wait", *["step"] * WARM_UP, "wait", "record", "step"]
    replay(torch.ones(2))
    assert done[-1] == "replay"
    assert torch.is_autocast_cache_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(torch.ones(2))
