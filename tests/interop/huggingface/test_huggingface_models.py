"""Our networks as models of transformers: the Auto classes, the same files, losses, hidden states."""

import json

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: .[huggingface]")

import transformers
from huggingface_models import LABELS, NETWORKS, TINY, build, draw, ours
from safetensors.torch import load_file, save_file
from torch import nn

import lambda_seq
from lambda_seq.interop import huggingface
from lambda_seq.models import LambdaEncoder, create_model
from lambda_seq.models.heads import Numbers

AUTO = {
    "texts": "AutoModelForSequenceClassification",
    "words": "AutoModelForSequenceClassification",
    "tags": "AutoModelForTokenClassification",
    "lm": "AutoModelForCausalLM",
    "clips": "AutoModelForAudioClassification",
    "frames": "AutoModelForAudioClassification",
    "pictures": "AutoModelForImageClassification",
    "pixels": "AutoModelForImageClassification",
}


def auto(kind):
    return getattr(transformers, AUTO[kind])


def config(kind="texts", **others):
    name, options = NETWORKS[kind]
    return huggingface.LambdaSeqConfig(model=name, options=options, **others)


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_folder_of_ours_is_one_of_theirs_and_back(kind, tmp_path):
    model, given = build(kind), draw(kind)
    expected = ours(kind, model, given)
    model.save_pretrained(tmp_path / "ours")
    theirs = auto(kind).from_pretrained(tmp_path / "ours")
    assert type(theirs) is type(huggingface.from_ours(model))
    with torch.no_grad():
        assert torch.equal(theirs(**given).logits, expected)
    theirs.save_pretrained(tmp_path / "theirs")
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    back = lambda_seq.from_pretrained(tmp_path / "theirs")
    same_weights(back, model)
    assert type(back) is type(model)
    assert back.labels == model.labels
    assert back.preprocessing == model.preprocessing
    assert torch.equal(ours(kind, back, given), expected)
    again = auto(kind).from_pretrained(tmp_path / "theirs")
    same_weights(again, theirs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_from_ours_shares_its_weights_and_to_ours_gives_it_back(kind):
    model, given = build(kind), draw(kind)
    theirs = huggingface.from_ours(model)
    with torch.no_grad():
        assert torch.equal(theirs(**given).logits, ours(kind, model, given))
    assert huggingface.to_ours(theirs) is model
    assert not theirs.training
    if model.labels:
        assert list(theirs.config.id2label.values()) == model.labels


def test_a_config_is_one_of_ours_and_of_theirs(tmp_path):
    theirs = huggingface.from_ours(build("texts"))
    theirs.save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    assert entries["model_type"] == "lambda_seq"
    assert entries["model"] == "lambda_encoder"
    assert entries["options"]["num_classes"] == 3
    assert entries["labels"] == LABELS[:3]
    assert entries["architectures"] == ["LambdaSeqForSequenceClassification"]
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, huggingface.LambdaSeqConfig)
    assert read.num_labels == 3
    assert read.label2id == {"no": 0, "perhaps": 1, "yes": 2}
    assert (read.hidden_size, read.num_hidden_layers, read.vocab_size) == (16, 2, 257)


def test_a_config_begins_a_network_as_create_model_does():
    torch.manual_seed(5)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config())
    torch.manual_seed(5)
    same_weights(theirs.network, create_model("lambda_encoder", **NETWORKS["texts"][1]))
    assert theirs.training


def test_classes_of_a_name_are_its_own():
    assert huggingface.LambdaSeqConfig(model="lambda_resnet_tiny").num_labels == 10
    assert huggingface.LambdaSeqConfig().num_labels == 2
    assert huggingface.LambdaSeqConfig(num_labels=7).num_labels == 7
    assert config(id2label={0: "a", 1: "b"}).labels is None  # until a network has as many


def test_another_number_of_classes(tmp_path):
    build("texts").save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        auto("texts").from_pretrained(tmp_path, num_labels=5)
    model = auto("texts").from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    own = lambda_seq.from_pretrained(tmp_path)
    for name, tensor in own.body().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    assert model.network.head.weight.shape == (5, 16)
    assert 0.05 < model.network.head.weight.std() < 0.5
    assert model.network.num_classes == 5
    assert model.config.labels is None
    model.save_pretrained(tmp_path / "five")
    assert lambda_seq.from_pretrained(tmp_path / "five").num_classes == 5


def test_a_pretrained_network_gets_a_head(tmp_path):
    """What a file lacks is drawn as the network draws it, the rest stays."""
    hidden = build("texts", head="tokens", num_classes=None)
    hidden.save_pretrained(tmp_path)
    model = auto("texts").from_pretrained(tmp_path, num_labels=2, ignore_mismatched_sizes=True)
    assert model.network.objective.name == "classes"
    assert torch.equal(model.network.stem.embedding.weight, hidden.stem.embedding.weight)
    assert model(**draw("texts")).logits.shape == (2, 2)


def test_weights_that_are_missing_are_drawn(tmp_path):
    build("lm", position="exponential", scope=None).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = [name for name in weights if "blocks.1" in name]
    save_file({k: v for k, v in weights.items() if k not in lost}, tmp_path / "model.safetensors", {"format": "pt"})
    model, info = auto("lm").from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {f"network.{name}" for name in lost}
    torch.manual_seed(3)
    reference = create_model("lambda_lm", **{**NETWORKS["lm"][1], "position": "exponential", "scope": None})
    for name in lost:
        found, other = model.network.state_dict()[name], reference.state_dict()[name]
        assert found.isfinite().all()
        assert found.float().mean().item() == pytest.approx(other.float().mean().item(), abs=0.3)
        if other.numel() > 64:
            assert found.float().std().item() == pytest.approx(other.float().std().item(), rel=0.5, abs=1e-6)
    assert model.network.head.weight is model.network.stem.embedding.weight


def test_half_precision(tmp_path):
    build("lm").to(torch.bfloat16).save_pretrained(tmp_path)
    model = auto("lm").from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert auto("lm").from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32
    model.save_pretrained(tmp_path / "again")
    assert lambda_seq.from_pretrained(tmp_path / "again").head.weight.dtype == torch.bfloat16


# Losses


def test_the_loss_is_the_objectives():
    model, given = huggingface.from_ours(build("texts")), draw("texts")
    labels = torch.tensor([2, 0])
    output = model(**given, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    unknown = model(**given, labels=torch.tensor([2, -100]))
    torch.testing.assert_close(unknown.loss, nn.functional.cross_entropy(output.logits[:1], labels[:1]))
    shared = model(**given, labels=labels, num_items_in_batch=torch.tensor(8)).loss
    torch.testing.assert_close(shared, output.loss * 2 / 8)
    loss, logits = model(**given, labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)


def test_tags_have_a_loss_at_real_tokens():
    model, given = huggingface.from_ours(build("tags")), draw("tags")
    labels = torch.randint(4, (2, 24))
    output = model(**given, labels=labels)
    real = given["attention_mask"].bool()
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits[real], labels[real]))
    assert output.logits.shape == (2, 24, 4)


def test_several_labels():
    model = transformers.AutoModelForSequenceClassification.from_config(
        config(problem_type="multi_label_classification")
    )
    assert model.network.objective.name == "labels"
    labels = torch.tensor([[1, 0, 1], [0, 0, 1]])
    output = model.eval()(**draw("texts"), labels=labels)
    torch.testing.assert_close(
        output.loss, nn.functional.binary_cross_entropy_with_logits(output.logits, labels.float())
    )
    assert huggingface.from_ours(huggingface.to_ours(model)).config.problem_type == "multi_label_classification"


def test_numbers_are_answered_in_their_own_units():
    options = {"head": "numbers", "head_options": {"mean": [10.0], "std": [4.0]}, "num_classes": 1}
    network = build("texts", **options)
    model, given = huggingface.from_ours(network), draw("texts")
    assert model.config.problem_type == "regression"
    output = model(**given, labels=torch.tensor([11.0, 7.0]))
    raw = ours("texts", network, given)
    torch.testing.assert_close(output.logits, 10 + 4 * raw)
    assert isinstance(network.objective, Numbers)
    torch.testing.assert_close(output.loss, (raw - torch.tensor([[0.25], [-0.75]])).square().mean())


def test_one_label_is_a_number():
    made = huggingface.LambdaSeqConfig(model="lambda_encoder", options=TINY, num_labels=1)
    model = transformers.AutoModelForSequenceClassification.from_config(made)
    assert model.network.objective.name == "numbers"
    assert model(**draw("texts"), labels=torch.tensor([1.0, 2.0])).logits.shape == (2, 1)


# Inputs and hidden states


def test_padding_changes_nothing():
    model, given = huggingface.from_ours(build("texts")), draw("texts")
    with torch.no_grad():
        alone = model(input_ids=given["input_ids"][1:, :17]).logits
        torch.testing.assert_close(model(**given).logits[1:], alone)


@pytest.mark.parametrize("kind", ["texts", "lm", "tags"])
def test_vectors_in_place_of_ids(kind):
    model, given = huggingface.from_ours(build(kind)), draw(kind)
    vectors = model.get_input_embeddings()(given["input_ids"])
    with torch.no_grad():
        expected = model(**given).logits[:, :17]
        found = model(inputs_embeds=vectors, attention_mask=given["attention_mask"]).logits[:, :17]
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="input_ids and inputs_embeds: both given"):
        model(**given, inputs_embeds=vectors)
    with pytest.raises(ValueError, match="input_ids and inputs_embeds: neither given"):
        model()


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_of_any_network(kind, tmp_path):
    network, given = build(kind), draw(kind)
    network.save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert isinstance(model, huggingface.LambdaSeqModel)
    with torch.no_grad():
        output = model(**given, output_hidden_states=True)
    states = output.hidden_states
    assert len(states) == 1 + model.config.num_hidden_layers
    if kind == "pictures":
        assert output.last_hidden_state.shape[:2] == (2, network.channels[-1])
        torch.testing.assert_close(states[-1], output.last_hidden_state)
    else:
        mask = given.get("attention_mask")
        mask = None if mask is None else mask[:, :: network.stem.stride].bool() if hasattr(network, "stem") else mask
        torch.testing.assert_close(network.norm(states[-1], mask), output.last_hidden_state)
    if output.pooler_output is not None:
        torch.testing.assert_close(network.head(output.pooler_output), ours(kind, network, given))
    assert (output.pooler_output is None) == (kind in ("tags", "lm"))
    model.save_pretrained(tmp_path / "again")  # the head stays in the file
    same_weights(lambda_seq.from_pretrained(tmp_path / "again"), network)


def test_hidden_states_of_a_classifier():
    model, given = huggingface.from_ours(build("texts")), draw("texts")
    assert model(**given).hidden_states is None
    states = model(**given, output_hidden_states=True).hidden_states
    real = given["attention_mask"].bool()
    torch.testing.assert_close(states[0][real], model.get_input_embeddings()(given["input_ids"][real]))
    assert len(states) == 3
    model.config.output_hidden_states = True
    assert len(model(**given).hidden_states) == 3


def test_pictures_of_several_sizes():
    model = huggingface.from_ours(build("pictures"))
    pixels = torch.randn(2, 3, 12, 10)
    mask = torch.ones(2, 12, 10, dtype=torch.int64)
    mask[1, 8:] = 0
    mask[1, :, 6:] = 0
    with torch.no_grad():
        found = model(pixels, mask).logits
        torch.testing.assert_close(found[1:], model(pixels[1:, :, :8, :6]).logits)


# What is refused


def test_what_does_not_fit_is_said(tmp_path):
    build("texts").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="takes tokens, but LambdaSeqForImageClassification is for image or features"):
        transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'lambda_encoder' does not predict the next token"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'lambda_lm' answers by head='tokens'"):
        transformers.AutoModelForSequenceClassification.from_config(config("lm"))
    with pytest.raises(ValueError, match=r"strides=\[2\]: the network answers for frames of 2 tokens"):
        transformers.AutoModelForTokenClassification.from_config(config("words"))
    with pytest.raises(ValueError, match="no model"):
        huggingface.LambdaSeqConfig(model="lambda_encodr")
    with pytest.raises(
        ValueError, match="hidden_size=32: the network of model='lambda_encoder' and its options has 64"
    ):
        huggingface.LambdaSeqConfig(hidden_size=32)
    with pytest.raises(TypeError, match="has no option 'dimm'"):
        huggingface.LambdaSeqConfig(options={"dimm": 3})
    model = huggingface.from_ours(build("texts"))
    with pytest.raises(ValueError, match="no maps of attention"):
        model(**draw("texts"), output_attentions=True)
    with pytest.raises(NotImplementedError, match="'vocab_size': 300"):
        model.resize_token_embeddings(300)
    with pytest.raises(TypeError, match="model is Linear: expected a model of"):
        huggingface.to_ours(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="takes input_values, samples, and nothing else"):
        huggingface.from_ours(build("clips"))(input_features=torch.randn(1, 5, 1))
    with pytest.raises(ValueError, match="input_ids is missing"):
        huggingface.LambdaSeqModel(config())(pixel_values=torch.randn(1, 3, 4, 4))


def test_weights_of_other_options_are_named():
    network = build("texts")
    network.options = {**network.options, "depth": 3}
    with pytest.raises(ValueError, match=r"given: weights are not those of its options \(blocks.2"):
        huggingface.from_ours(network)


def test_a_class_of_ones_own(tmp_path):
    network = LambdaEncoder(num_classes=3, **TINY).eval()
    huggingface.from_ours(network).save_pretrained(tmp_path)
    same_weights(auto("texts").from_pretrained(tmp_path).network, network)
    same_weights(lambda_seq.from_pretrained(tmp_path), network)
