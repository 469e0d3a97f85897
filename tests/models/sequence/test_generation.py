import math

import numpy as np
import pytest
import torch

from lambda_seq.models import LambdaLM, state_bytes
from lambda_seq.models.sequence.generation import sample

SMALL = {"vocab_size": 11, "dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LambdaLM(**SMALL).double().eval()


def prompts(batch=3, length=9):
    return torch.randint(1, 11, (batch, length), generator=torch.Generator().manual_seed(1))


def generator():
    return torch.Generator().manual_seed(0)


def test_greedy_is_the_likeliest_of_the_parallel_form(model):
    tokens = prompts()
    for _ in range(12):
        logits = model(tokens)[:, -1]
        logits[:, 0] = -torch.inf  # padding
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(prompts(), 12, temperature=0), tokens[:, 9:])


def test_draws_follow_the_parallel_form(model):
    """Each token is what `sample` draws from the logits of all that is before it."""
    tokens, draws = prompts(), generator()
    for _ in range(8):
        logits = model(tokens)[:, -1].detach()
        logits[:, 0] = -torch.inf
        drawn = sample(logits, temperature=0.7, top_k=5, top_p=0.9, generator=draws)
        tokens = torch.cat([tokens, drawn[:, None]], 1)
    found = model.generate(prompts(), 8, temperature=0.7, top_k=5, top_p=0.9, seed=0)
    assert torch.equal(found, tokens[:, 9:])


@pytest.mark.parametrize("prefill", [1, 2, 4, 9, 100])
def test_a_prompt_is_read_in_pieces(model, prefill, monkeypatch):
    expected, sizes, step = model.generate(prompts(), 6, seed=3), [], model.step_features

    def noted(tokens, state):
        sizes.append(tokens.shape[1] if tokens.ndim == 2 else 0)
        return step(tokens, state)

    monkeypatch.setattr(model, "step_features", noted)
    assert torch.equal(model.generate(prompts(), 6, seed=3, prefill=prefill), expected)
    assert max(sizes) == min(prefill, 9)
    assert sum(sizes) == 9  # once
    assert sizes.count(0) == 5  # no step after the last token


def test_a_long_prompt_leaves_a_small_state(model, monkeypatch):
    sizes, step = [], model.step_features

    def noted(tokens, state):
        features, state = step(tokens, state)
        sizes.append(state_bytes(state))
        return features, state

    monkeypatch.setattr(model, "step_features", noted)
    model.generate(prompts(1, 300), 3, prefill=50)
    assert len(set(sizes)) == 1


def test_the_seed_decides_and_torch_is_left_alone(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (model.generate(prompts(), 20, seed=7) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model.generate(prompts(), 20, seed=8))
    assert not torch.equal(model.generate(prompts(), 20), model.generate(prompts(), 20))
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_stop_by_themselves(model):
    free = model.generate(prompts(), 30, seed=2)
    stops = [4, 6]
    stopped = model.generate(prompts(), 30, seed=2, stop=stops, pad_id=0)
    longest = 0
    for row, expected in zip(stopped, free, strict=True):
        places = [place for place, token in enumerate(expected.tolist()) if token in stops]
        length = places[0] + 1 if places else 30
        longest = max(longest, length)
        assert torch.equal(row[:length], expected[:length])  # with its stop token
        assert not row[length:].any()
        assert (row != 0).sum() == length
    assert stopped.shape == (3, longest)
    assert len({(row != 0).sum().item() for row in stopped}) > 1, "the seed should show rows of different lengths"
    one = model.generate(prompts(1), 30, seed=2, stop=4)
    assert one.tolist()[0].count(4) <= 1


def test_what_fills_may_be_outside_the_vocabulary_or_a_stop_token(model):
    found = model.generate(prompts(), 40, seed=2, stop=[4], pad_id=-1)
    assert (found == -1).any()
    assert (model.generate(prompts(), 60, seed=2, pad_id=-1) == 0).any()  # now a token as any other
    assert not (model.generate(prompts(), 60, seed=2) == 0).any()
    ended = model.generate(prompts(), 60, seed=2, stop=0)  # padding is the end, and so is sampled
    assert (ended == 0).any()


def test_tokens_come_one_at_a_time(model, monkeypatch):
    steps, step = [], model.step_features
    monkeypatch.setattr(model, "step_features", lambda *given: steps.append(1) or step(*given))
    columns = model.generate_steps(prompts(), 5, seed=0)
    assert not steps  # nothing is computed before a token is asked for
    first = next(columns)
    assert len(steps) == 1
    assert first.shape == (3,)
    assert not torch.is_inference_mode_enabled()
    first += 0  # a tensor as any other
    rest = list(columns)
    assert torch.equal(torch.stack([first, *rest], 1), model.generate(prompts(), 5, seed=0))
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        model.generate_steps(prompts(), 0)  # errors do not wait either


def test_no_gradients_and_the_dtype_of_the_prompt(model):
    found = model.generate(prompts().int(), 3)
    assert found.dtype == torch.int32
    assert torch.is_grad_enabled()
    assert model.float().bfloat16().generate(prompts(), 4).shape == (3, 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5263, 0.3158, 0.1579, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0.375, 0, 0]),  # 0.8 of what top_k leaves
        ({"temperature": 0.5}, [0.6849, 0.2466, 0.0616, 0.0068]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
    ],
    ids=str,
)
def test_tokens_are_drawn_with_their_probability(options, expected):
    order = torch.tensor([2, 0, 3, 1])  # the likeliest is token 2, then 0, …
    logits = torch.empty(40_000, 4)
    logits[:, order] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log() + 7
    given = {"temperature": 1.0, "top_k": None, "top_p": None, "generator": generator(), **options}
    shares = torch.bincount(sample(logits, **given), minlength=4)[order] / len(logits)
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0.012)
    assert not shares[torch.tensor(expected) == 0].any()


def test_rows_are_drawn_from_their_own_logits():
    logits = torch.full((3, 5), -torch.inf)
    logits[range(3), [4, 0, 2]] = 1.0
    given = {"temperature": 1.0, "top_k": None, "top_p": 0.5, "generator": generator()}
    assert sample(logits, **given).tolist() == [4, 0, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_weights_are_told(model, value):
    with torch.no_grad():
        model.norm.weight.fill_(value)
    with pytest.raises(ValueError, match=r"the model's logits are NaN or infinite: its weights have diverged"):
        model.generate(prompts(), 2)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ([[1, 2]], TypeError, r"prompt is list: expected token ids, torch.int64"),
        (torch.zeros(1, 3), TypeError, r"prompt is torch.float32: expected token ids"),
        (torch.tensor([1, 2]), ValueError, r"prompt has shape \(2,\): expected \(B, T\), B and T at least 1"),
        (torch.zeros(1, 0, dtype=torch.int64), ValueError, r"prompt has shape \(1, 0\)"),
        (torch.zeros(0, 2, dtype=torch.int64), ValueError, r"prompt has shape \(0, 2\)"),
        (torch.tensor([[1, 11]]), ValueError, r"ids from 1 to 11: expected 0 ≤ id < vocab_size=11; give the tokens of"),
        (torch.tensor([[1, -1]]), ValueError, r"prompt holds token ids from -1 to 1"),
        (torch.tensor([[1, 2], [3, 0]]), ValueError, r"prompt holds the padding pad_id=0, which is no text: call once"),
    ],
)
def test_bad_prompts(model, prompt, error, message):
    with pytest.raises(error, match=message):
        model.generate(prompt, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, r"max_new_tokens=0: expected at least 1"),
        ({"prefill": 0}, r"prefill=0: expected at least 1"),
        ({"temperature": -0.1}, r"temperature=-0.1: expected a number of at least 0"),
        ({"temperature": math.inf}, r"temperature=inf: expected a number"),
        ({"temperature": math.nan}, r"temperature=nan: expected a number"),
        ({"top_k": 0}, r"top_k=0: expected at least 1 token, or None for all"),
        ({"top_p": 0.0}, r"top_p=0.0: expected a probability above 0 and at most 1"),
        ({"top_p": 1.1}, r"top_p=1.1: expected a probability"),
        ({"seed": -1}, r"seed=-1: expected an integer from 0 to 2\^63 − 1"),
        ({"stop": [3, 11]}, r"stop=\[3, 11\] holds 11: expected ids, 0 ≤ id < vocab_size=11"),
        ({"stop": -2}, r"stop=\[-2\] holds -2: expected ids"),
    ],
    ids=str,
)
def test_bad_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompts(), **{"max_new_tokens": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 2.5}, r"max_new_tokens=2.5: expected an integer"),
        ({"prefill": "64"}, r"prefill='64': expected an integer"),
        ({"top_k": True}, r"top_k=True: expected an integer"),
        ({"seed": 1.0}, r"seed=1.0: expected an integer"),
        ({"pad_id": None, "stop": "a"}, r"stop='a': expected an integer"),
        ({"stop": [1.5]}, r"stop=1.5: expected an integer"),
        ({"temperature": "1"}, r"temperature='1': expected a number"),
        ({"temperature": None}, "temperature=None: expected a number; leave temperature out"),
        ({"pad_id": None}, "pad_id=None: expected a number; leave pad_id out"),
        ({"stop": None}, "stop=None: expected a number; leave stop out"),
        ({"stop": torch.tensor([1.5])}, "stop=1.5: expected an integer"),
        ({"top_p": [0.9]}, r"top_p=\[0.9\]: expected a number"),
    ],
    ids=str,
)
def test_options_of_a_wrong_type(model, options, message):
    with pytest.raises(TypeError, match=message):
        model.generate(prompts(), **{"max_new_tokens": 3, **options})


@pytest.mark.parametrize(
    "options",
    [{"seed": np.int64(1)}, {"prefill": np.int32(2)}, {"stop": np.array(3)}, {"stop": torch.tensor(3)}, {"stop": {3}}],
    ids=str,
)
def test_numbers_of_numpy_and_torch_are_numbers(model, options):
    plain = {name: 3 if name == "stop" else int(option) for name, option in options.items()}
    found, expected = (model.generate(prompts(), 5, **{"seed": 1, **given}) for given in (options, plain))
    assert found.equal(expected)


def test_training_mode_is_refused(model):
    with pytest.raises(ValueError, match=r"the model is in training mode, in which dropout .*: call eval\(\) first"):
        model.train().generate(prompts(), 3)


def test_a_global_table_ends():
    model = LambdaLM(**{**SMALL, "scope": None, "max_length": 12}).eval()
    assert model.generate(prompts(1), 4).shape == (1, 4)  # the last one is predicted from 12 tokens
    with pytest.raises(ValueError, match=r"max_new_tokens=5 after a prompt of 9 tokens is longer than max_length=12"):
        model.generate(prompts(1), 5)
