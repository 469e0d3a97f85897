"""Trainer, accelerate and PEFT train our networks; what they leave is read by both libraries."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: .[huggingface]")
pytest.importorskip("accelerate")

import accelerate
import transformers
from huggingface_models import build, draw

import lambda_seq
from lambda_seq.interop import huggingface
from lambda_seq.models import create_model

# PEFT asks transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no", "seed": 1}


class Rows(torch.utils.data.Dataset):
    """Rows of an input that `draw` gives, with labels."""

    def __init__(self, kind, rows=4):
        given = draw(kind, rows)
        if kind == "lm":
            given["labels"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        elif kind == "tags":
            given["labels"] = (given["input_ids"] % 4).masked_fill(given["attention_mask"] == 0, -100)
        else:
            given["labels"] = torch.arange(rows) % 3
        self.given = given

    def __len__(self):
        return len(self.given["labels"])

    def __getitem__(self, index):
        return {name: tensor[index] for name, tensor in self.given.items()}


def trainer(model, kind, folder, **options):
    arguments = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01, "save_steps": 2}
    settings = transformers.TrainingArguments(str(folder), **{**QUIET, **arguments, **options})
    return transformers.Trainer(model, settings, train_dataset=Rows(kind), eval_dataset=Rows(kind))


@pytest.mark.parametrize("kind", ["texts", "tags", "lm", "clips", "pictures"])
def test_trainer_trains_and_its_checkpoint_is_one_of_ours(kind, tmp_path):
    model = huggingface.from_ours(build(kind)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = trainer(model, kind, tmp_path)
    first = trained.evaluate()["eval_loss"]
    trained.train()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert trained.evaluate()["eval_loss"] < first
    for back in (
        lambda_seq.from_pretrained(tmp_path / "checkpoint-2"),
        type(model).from_pretrained(tmp_path / "checkpoint-2").network,
    ):
        for name, tensor in back.state_dict().items():
            assert torch.equal(tensor, model.network.state_dict()[name])


def test_trainer_goes_on_from_its_checkpoint(tmp_path):
    whole = huggingface.from_ours(build("texts")).train()
    trainer(whole, "texts", tmp_path / "whole", max_steps=4).train()
    half = huggingface.from_ours(build("texts")).train()
    trainer(half, "texts", tmp_path / "half", max_steps=4).train(str(tmp_path / "whole" / "checkpoint-2"))
    for name, tensor in half.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name])


@pytest.mark.parametrize("kind", ["lm", "tags"])
def test_accumulated_batches_weigh_their_tokens(kind, tmp_path):
    """Four batches of a row, with different numbers of tokens, are one of four rows."""
    found = []
    for size, steps in ((4, 1), (1, 4)):
        model = huggingface.from_ours(build(kind, norm="rms", block_norm="layer")).train()
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        trainer(model, kind, tmp_path, optim="sgd", learning_rate=1.0, save_strategy="no", **options).train()
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_accelerate_prepares_and_goes_back(tmp_path):
    accelerator = accelerate.Accelerator(cpu=True)
    model = huggingface.from_ours(build("texts")).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = torch.utils.data.DataLoader(Rows("texts"), batch_size=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for batch in [*loader] * 2:
        output = model(**batch)
        accelerator.backward(output.loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert sum(losses[2:]) < sum(losses[:2])
    accelerator.unwrap_model(model).save_pretrained(tmp_path)
    assert lambda_seq.from_pretrained(tmp_path).num_classes == 3


# PEFT


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


@pytest.mark.parametrize("kind", ["texts", "tags", "lm"])
def test_adapters_train_alone_and_merge_into_a_network_of_ours(kind, peft, tmp_path):
    base, plain = huggingface.from_ours(build(kind)), build(kind)
    task = {"texts": "SEQ_CLS", "tags": "TOKEN_CLS", "lm": "CAUSAL_LM"}[kind]
    options = {"target_modules": ["project", "inner", "out"]}
    if kind != "lm":  # batch norms have statistics, which adapters leave out
        options["modules_to_save"] = ["head", "norm", "norm_query", "norm_value"]
    model = peft.get_peft_model(base, peft.LoraConfig(task_type=task, r=2, lora_alpha=4, **options))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in trainable)
    assert any("project" in name for name in trainable)
    given = draw(kind)
    with torch.no_grad():
        expected = huggingface.from_ours(plain)(**given).logits
        torch.testing.assert_close(model.eval()(**given).logits, expected)  # adapters begin as nothing
    trainer(model.train(), kind, tmp_path, save_strategy="no").train()
    model.eval().save_pretrained(tmp_path / "adapters")
    with torch.no_grad():
        changed = model(**given).logits
    assert not torch.allclose(changed, expected)
    loaded = peft.PeftModel.from_pretrained(huggingface.from_ours(build(kind)), tmp_path / "adapters").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**given).logits, changed)
    merged = huggingface.to_ours(loaded.merge_and_unload())
    merged.save_pretrained(tmp_path / "merged")
    again = huggingface.from_ours(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(again(**given).logits, changed, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == plain.state_dict().keys()


def test_adapted_language_models_generate(peft):
    model = huggingface.from_ours(build("lm", tie=False))
    prompt = torch.tensor([list(b"once")]) + 1
    expected = model.generate(prompt, max_new_tokens=6, do_sample=False)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["out"])).eval()
    assert torch.equal(adapted.generate(input_ids=prompt, max_new_tokens=6, do_sample=False), expected)


def test_prompts_can_be_learned(peft):
    """Vectors in front of those of the tokens, by `inputs_embeds`."""
    model = huggingface.from_ours(build("lm"))
    learned = peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, num_attention_heads=1)
    )
    output = learned(**{**draw("lm"), "labels": draw("lm")["input_ids"]})
    output.loss.backward()
    grads = [parameter.grad for parameter in learned.parameters() if parameter.requires_grad]
    assert len(grads) == 1
    assert grads[0].abs().sum() > 0


def test_what_adapters_are_in_is_not_ours_yet(peft):
    model = peft.get_peft_model(huggingface.from_ours(build("texts")), peft.LoraConfig(target_modules=["out"]))
    with pytest.raises(TypeError, match=r"of adapters of PEFT give what model\.merge_and_unload\(\) returns"):
        huggingface.to_ours(model)


def test_gradients_reach_what_create_model_makes():
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        huggingface.LambdaSeqConfig(model="lambda_lm_tiny", options={"dim_key": 4, "heads": 2, "depth": 1})
    )
    model(**draw("lm"), labels=draw("lm")["input_ids"]).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len(list(model.parameters())) == len(list(create_model("lambda_lm_tiny", depth=1).parameters()))
