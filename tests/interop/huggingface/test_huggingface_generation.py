"""`generate` of transformers from our streaming state: our own tokens, with and without the cache, padded or alone."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: .[huggingface]")

import transformers
from huggingface_models import build
from torch import nn

from lambda_seq.inference.predictor import Predictor
from lambda_seq.interop import huggingface
from lambda_seq.models import state_bytes

POSITIONS = {
    "local": {},
    "exponential": {"position": "exponential", "scope": None},
    "table": {"scope": None, "max_length": 64},
    "mixed": {"scope": [None, 3], "position": ["multiscale", True], "dim_intra": 2},
    "content": {"position": False, "block_norm": "layer"},
}
PROMPT = torch.tensor([list(b"once upon"), list(b"twice and")]) + 1
QUIET = {"do_sample": False, "max_new_tokens": 12}


def model_of(position="local", **options):
    """A language model that is not sure of one token, as fresh ones with tied weights are."""
    network = build("lm", tie=False, **{**POSITIONS[position], **options})
    return huggingface.from_ours(network)


def padded(rows, pad=0):
    """Rows of ids of different lengths, padded on their left, and their mask."""
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])


def ended(row, prompt):
    """New tokens up to the one that ends them."""
    new = row[prompt:].tolist()
    return new[: new.index(0) + 1] if 0 in new else new


@pytest.mark.parametrize("position", POSITIONS)
def test_greedy_tokens_are_our_own(position):
    model = model_of(position)
    expected = model.network.generate(PROMPT, 12, temperature=0, stop=0, pad_id=0)
    assert len(expected.unique()) > 4
    found = model.generate(PROMPT, **QUIET)
    assert torch.equal(found[:, : PROMPT.shape[1]], PROMPT)
    assert torch.equal(found[:, PROMPT.shape[1] :], expected)
    assert torch.equal(model.generate(PROMPT, use_cache=False, **QUIET), found)


@pytest.mark.parametrize("position", POSITIONS)
def test_prompts_of_different_lengths_are_as_alone(position):
    model = model_of(position)
    rows = [list(b"a long prompt"), list(b"b"), list(b"another one"), list(b"c")]
    ids, mask = padded(rows)
    options = {**QUIET, "max_new_tokens": 6}
    alone = [ended(model.generate(torch.tensor([row]), **options)[0], len(row)) for row in rows]
    for cached in (True, False):
        found = model.generate(ids, attention_mask=mask, use_cache=cached, **options)
        assert [ended(row, ids.shape[1]) for row in found] == alone


@pytest.mark.parametrize("position", POSITIONS)
def test_logits_of_padded_prompts_and_what_follows(position):
    """Equal to the parallel form over each row alone, position by position, from one cache for all rows."""
    model = model_of(position)
    rows = [list(b"a long prompt"), list(b"bc"), list(b"another one")]
    ids, mask = padded(rows)
    with torch.no_grad():
        output = model(ids, attention_mask=mask, use_cache=True)
        more = torch.randint(1, 257, (3, 4))
        longer = torch.cat([mask, torch.ones_like(more)], 1)
        second = model(more, attention_mask=longer, cache=output.cache)
        third = model(more[:, :1], cache=second.cache)
        for index, row in enumerate(rows):
            whole = torch.tensor([row + more[index].tolist() + more[index, :1].tolist()])
            logits = model(whole).logits[0]
            torch.testing.assert_close(output.logits[index, -len(row) :], logits[: len(row)], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(second.logits[index], logits[len(row) : len(row) + 4], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(third.logits[index, -1], logits[-1], rtol=1e-4, atol=1e-4)
    assert third.cache.get_seq_length() == ids.shape[1] + 5
    assert third.cache.batch_size == 3


def test_the_cache_does_not_grow_with_the_context():
    model = model_of()
    sizes = set()
    with torch.no_grad():
        for length in (20, 40, 400):
            cache = model(torch.randint(1, 257, (1, length)), use_cache=True, logits_to_keep=1).cache
            sizes.add(state_bytes(cache.state))
    assert len(sizes) == 1
    assert cache.get_max_length() == -1
    cache.reset()
    assert not cache.is_initialized
    assert cache.get_seq_length() == 0


def test_beams_with_a_cache_are_those_without():
    model = model_of()
    ids, mask = padded([list(b"a long prompt"), list(b"bc")])
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6, "do_sample": False}
    found = model.generate(ids, attention_mask=mask, **options)
    assert found.shape[0] == 4
    assert torch.equal(found, model.generate(ids, attention_mask=mask, use_cache=False, **options))


def test_sampling_with_a_cache_is_that_without():
    model = model_of()
    found = []
    for cached in (True, False):
        torch.manual_seed(3)
        found.append(model.generate(PROMPT, use_cache=cached, do_sample=True, top_k=20, max_new_tokens=8))
    assert torch.equal(*found)


def test_a_conversation_goes_on_from_its_cache():
    model = model_of()
    first = model.generate(PROMPT[:1], return_dict_in_generate=True, **QUIET)
    assert isinstance(first.cache, huggingface.LambdaSeqCache)
    whole = torch.cat([first.sequences, torch.tensor([list(b" more")]) + 1], 1)
    found = model.generate(whole, cache=first.cache, **QUIET)
    assert torch.equal(found, model.generate(whole, **QUIET))


def test_generation_goes_on_from_vectors():
    model = model_of()
    vectors = model.get_input_embeddings()(PROMPT)
    found = model.generate(inputs_embeds=vectors, **QUIET)
    assert torch.equal(found, model.generate(PROMPT, **QUIET)[:, PROMPT.shape[1] :])


def test_generation_ends_with_the_token_that_divides_documents(tmp_path):
    model = model_of()
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 0
    with torch.no_grad():
        model.network.head.weight[0] = model.network.head.weight.norm(dim=1).max() * 20
        features = model.network.features(PROMPT)[:, -1].mean(0)
        model.network.head.weight[0] *= (model.network.head.weight[0] @ features).sign()
    model.network.save_pretrained(tmp_path)
    for one in (model, transformers.AutoModelForCausalLM.from_pretrained(tmp_path)):
        expected = one.network.generate(PROMPT, 12, temperature=0, stop=0, pad_id=0)
        assert torch.equal(one.generate(PROMPT, **QUIET)[:, PROMPT.shape[1] :], expected)


def test_the_loss_is_that_of_the_next_token():
    model = model_of().train()
    labels = PROMPT.clone()
    labels[1, 5:] = -100
    output = model(PROMPT, labels=labels)
    expected = nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    assert output.cache is None
    assert "cache" not in output


def test_last_logits_only():
    model = model_of()
    with torch.no_grad():
        whole = model(PROMPT).logits
        torch.testing.assert_close(model(PROMPT, logits_to_keep=2).logits, whole[:, -2:])
    with pytest.raises(ValueError, match="logits_to_keep=1 with labels"):
        model(PROMPT, logits_to_keep=1, labels=PROMPT)


def test_what_a_state_cannot_do_is_refused():
    model = model_of()
    right = torch.ones_like(PROMPT)
    right[1, 6:] = 0
    with pytest.raises(ValueError, match="padding_side='left'"):
        model(PROMPT, attention_mask=right, use_cache=True)
    with pytest.raises(ValueError, match="padding_side='left'"):
        model(PROMPT, attention_mask=torch.zeros_like(PROMPT), use_cache=True)
    cache = model(PROMPT, use_cache=True).cache
    with pytest.raises(ValueError, match="padding within what follows a cache"):
        model(PROMPT, attention_mask=torch.cat([torch.ones_like(PROMPT), right.flip(1)], 1), cache=cache)
    with pytest.raises(ValueError, match="output_hidden_states=True with a cache"):
        model(PROMPT, use_cache=True, output_hidden_states=True)
    with pytest.raises(TypeError, match="cache is DynamicCache: expected a LambdaSeqCache"):
        model(PROMPT, cache=transformers.DynamicCache())
    with pytest.raises(NotImplementedError, match="tokens_to_remove=2: a state is a sum"):
        cache.crop(2)
    with pytest.raises(ValueError, match="assisted generation is not supported"):
        model.generate(PROMPT[:1], assistant_model=model_of(), **QUIET)


def test_a_pipeline_writes_what_our_predictor_writes(tmp_path):
    network = build("lm", tie=False)
    huggingface.from_ours(network).save_pretrained(tmp_path)
    huggingface.processor_of(network).save_pretrained(tmp_path)
    write = transformers.pipeline("text-generation", str(tmp_path), device="cpu")
    prompts = ["once upon <pad>", "ä"]
    expected = Predictor(network).generate(prompts, 10, temperature=0)
    options = {"max_new_tokens": 10, "do_sample": False, "return_full_text": False}
    for found in (write(prompts, **options), write(prompts, batch_size=2, **options)):
        assert [one[0]["generated_text"] for one in found] == [one.text for one in expected]
