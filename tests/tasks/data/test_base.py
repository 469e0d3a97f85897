"""Tests of when data are read: by Lightning's own hooks, once, and not before."""

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import move_data_to_device
from small_data import texts, write_jsonl
from torch.utils.data import DataLoader

from lambda_seq.functional import Packing
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import AudioData, CorpusData, ImageData, ListOpsData, SeriesData, TextData
from lambda_seq.tasks.data.batches import Packed
from lambda_seq.tasks.data.reading import tokens as tokens_module
from lambda_seq.tasks.language_modelling import LanguageModelling
from lambda_seq.tasks.pretraining import MaskedPretraining

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # of small data
]

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
TINY = {"dim": 8, "depth": 1, "heads": 2, "scope": 3}


@pytest.fixture
def reads(monkeypatch):
    """What was read since, by path."""
    found = []
    for kind in (TextData, CorpusData, ImageData, AudioData, SeriesData):
        own = kind.read

        def read(self, own=own):
            found.append(self.path)
            return own(self)

        monkeypatch.setattr(kind, "read", read)
    return found


@pytest.fixture
def trainer(tmp_path):
    return Trainer(default_root_dir=tmp_path / "run", max_epochs=1, **QUIET)


@pytest.mark.parametrize("kind", [TextData, CorpusData, ImageData, AudioData, SeriesData])
def test_nothing_is_read_before_it_is_asked_for(kind):
    data = kind("nowhere/at/all")
    for hook in (data.prepare_data, data.setup):
        with pytest.raises(FileNotFoundError, match="nowhere/at/all"):
            hook()


def test_what_is_read_stays(stories, reads):
    data = TextData(str(stories), tokenizer="train", vocab_size=300)
    assert not reads
    data.prepare_data()
    facts, splits = data.facts, data.splits
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)
    assert reads == [str(stories)]
    assert data.facts is facts
    assert data.splits is splits
    assert facts.labels == ["canine", "feline"]


@pytest.mark.parametrize("kind", [TextData, CorpusData])
def test_other_processes_find_tokenizer_and_tokens_on_disk(kind, stories, trainer, monkeypatch):
    options = {"tokenizer": "train", "vocab_size": 300}
    first, other = kind(str(stories), **options), kind(str(stories), **options)
    first.trainer, trainer.state.fn = trainer, TrainerFn.FITTING
    first.prepare_data()
    monkeypatch.setattr(tokens_module, "trainers", None)  # nothing can be trained any more
    monkeypatch.setattr(tokens_module.Tokens, "encode_all", None)  # and nothing be turned into ids
    other.setup("fit")
    assert other.facts == first.facts
    assert len(list(other.train_dataloader())) > 0
    assert len(list(other.val_dataloader())) > 0


def test_generated_data_are_on_disk_for_other_processes(tmp_path, monkeypatch):
    options = {"train_size": 40, "validation_size": 10, "test_size": 10, "shortest": 5, "longest": 60}
    ListOpsData(str(tmp_path / "trees"), **options).prepare_data()
    monkeypatch.setattr("lambda_seq.tasks.data.synthetic.listops.generate", None)
    data = ListOpsData(str(tmp_path / "trees"), **options)
    data.setup("fit")
    assert len(data.splits["train"]) == 40


def test_a_trainer_alone_reads_the_data_and_makes_the_network(stories, trainer, reads, tmp_path):
    data = TextData(str(stories), batch_size=4)
    task = Classification("lambda_encoder", TINY)
    trainer.fit(task, data)
    assert reads == [str(stories)]
    assert task.labels == ["canine", "feline"]
    assert task.network.options["vocab_size"] == 257
    figures = trainer.test(task, data, verbose=False)[0]
    assert set(figures) >= {"test/accuracy", "test/loss"}
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Classification.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)  # without data
    assert again.hparams["facts"] == task.hparams["facts"] == data.facts.to_dict()
    assert all(map(torch.equal, again.state_dict().values(), task.state_dict().values()))
    late = Classification("lambda_encoder", TINY)  # resumes with what it is made of now
    figures_again = Trainer(**QUIET).test(
        late, TextData(str(stories), batch_size=4), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True
    )
    assert figures_again[0] == pytest.approx(figures)


def test_a_network_that_is_made_late_is_the_same(stories):
    data = TextData(str(stories))
    torch.manual_seed(0)
    early = Classification("lambda_encoder", TINY, facts=data.facts)
    for precision in ("32-true", "64-true", "bf16-true"):
        trainer = Trainer(precision=precision, fast_dev_run=1, **QUIET)
        torch.manual_seed(0)
        late = Classification("lambda_encoder", TINY, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
        trainer.fit(late, TextData(str(stories)))
        for name, weight in early.named_parameters():
            found = late.get_parameter(name)
            expected = weight.to(found.dtype)
            assert found.dtype == {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
            assert torch.equal(found, expected)


def test_all_tasks_learn_their_facts_from_a_trainer(stories, tmp_path):
    data = CorpusData(str(write_jsonl(tmp_path / "book.jsonl", texts(20))), length=16, batch_size=2)
    task = LanguageModelling("lambda_lm", {"dim": 8, "depth": 1, "heads": 2, "scope": 3})
    Trainer(fast_dev_run=2, **QUIET).fit(task, data)
    task = MaskedPretraining(options=TINY)
    Trainer(fast_dev_run=2, **QUIET).fit(task, TextData(str(stories), batch_size=4))


def test_without_data_facts_must_be_given(trainer):
    rows = DataLoader(datasets.Dataset.from_dict({"x": [0]}))
    with pytest.raises(ValueError, match="facts"):
        trainer.fit(Classification("lambda_encoder", TINY), rows, rows)


def test_a_packing_travels_with_its_batch(tmp_path):
    data = CorpusData(
        str(write_jsonl(tmp_path / "book.jsonl", texts(20))), length=16, batch_size=2, num_workers=1, text_column="text"
    )
    data.setup("fit")
    (batch, *_), (plain, *_) = (
        list(DataLoader(loader.dataset, batch_size=2, num_workers=workers, collate_fn=data.collate))
        for loader, workers in ((data.val_dataloader(), 1), (data.val_dataloader(), 0))
    )
    assert torch.equal(batch["documents"].packing.index, plain["documents"].packing.index)
    for precision in (DoublePrecision(), HalfPrecision("bf16-true")):
        converted = precision.convert_input(batch)
        moved = move_data_to_device(converted, torch.device("meta"))
        packing = moved["documents"].packing
        assert isinstance(packing, Packing)
        assert packing.place.device.type == packing.buckets[0].documents.device.type == "meta"
        assert len(packing) == len(batch["documents"].packing)
        assert moved["x"].device.type == "meta"
        assert moved["bytes"] is not None
    assert isinstance(batch["documents"], Packed)
