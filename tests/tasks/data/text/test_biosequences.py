"""DNA and proteins: fasta files, tables, either strand in training and both in evaluation."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from small_data import TINY_ENCODER

import lambda_seq
from lambda_seq.inference.alphabets import DNA, reverse_complement
from lambda_seq.tasks.baselines.letters import kmers
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import BiosequenceData
from lambda_seq.tasks.data.text.sites import OPPOSITE, SITE, sites
from lambda_seq.tasks.export import export
from lambda_seq.tasks.inspection.guessing import guessed

SEQUENCES = ["ACGTAC", "ttgaNN", "GATTACA", "CCCC"] * 3
LABELS = ["a", "b"] * 6


def fasta(file, sequences, names=None, header="{}"):
    names = names or [f"s{row}" for row in range(len(sequences))]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f">{header.format(name)}\n{one[:4]}\n{one[4:]}\n\n" for one, name in zip(sequences, names, strict=True)
    )
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def read(path, **options):
    return BiosequenceData(str(path), validation_fraction=0, **options)


def rows(data, split="train"):
    items = list(data.rows_as_items(data.split(split), split))
    letters = [data.tokens.decode(item["x"].tolist()) for item in items]
    return [item["id"] for item in items], letters, [data.labels[item["label"]] for item in items]


EXPECTED_ROWS = ([f"s{row}" for row in range(12)], [one.upper() for one in SEQUENCES], LABELS)


def test_labels_in_headers(tmp_path):
    names = [f"s{row} gene=x label={label}; more" for row, label in enumerate(LABELS)]
    assert rows(read(fasta(tmp_path / "a.fa", SEQUENCES, names))) == EXPECTED_ROWS
    names = [f"s{row} [organism=x] [class={label}]" for row, label in enumerate(LABELS)]
    assert rows(read(fasta(tmp_path / "b.fasta.gz", SEQUENCES, names))) == EXPECTED_ROWS


def test_labels_in_a_table(tmp_path):
    fasta(tmp_path / "d" / "s.fna", SEQUENCES)
    table = pd.DataFrame({"id": EXPECTED_ROWS[0], "label": LABELS})[::-1]
    table.to_csv(tmp_path / "d" / "l.csv", index=False)
    table.to_csv(tmp_path / "l.tsv", index=False, sep="\t")
    assert rows(read(tmp_path / "d")) == EXPECTED_ROWS
    assert rows(read(tmp_path / "d" / "s.fna", label_table=str(tmp_path / "l.tsv"))) == EXPECTED_ROWS
    table[:-1].to_csv(tmp_path / "d" / "l.csv", index=False)
    with pytest.raises(ValueError, match=r"1 of 12 rows have no label .* row 0 \(s0\)"):
        _ = read(tmp_path / "d").splits
    assert len(read(tmp_path / "d", drop_incomplete=True).split("train")) == 11
    pd.concat([table, table[:1]]).to_csv(tmp_path / "d" / "l.csv", index=False)
    with pytest.raises(ValueError, match="it has several rows of s11"):
        _ = read(tmp_path / "d").splits
    with pytest.raises(ValueError, match=r"label_table='nowhere\.csv': there is no such file"):
        _ = read(tmp_path / "d", label_table="nowhere.csv").splits


def test_classes_by_folders_and_by_names_of_files(tmp_path):
    for split, count in {"train": 6, "test": 3}.items():
        for label in "ab":
            fasta(tmp_path / "folders" / split / label / "x.fa", SEQUENCES[:count])
            fasta(tmp_path / "names" / split / f"{label}.fa.gz", SEQUENCES[:count])
            fasta(tmp_path / "flat" / f"{label}.fa", SEQUENCES[:count])
    for place in ("folders", "names"):
        data = read(tmp_path / place)
        assert {name: len(own) for name, own in data.splits.items()} == {"train": 12, "test": 6}
        assert rows(data, "test")[2] == ["a"] * 3 + ["b"] * 3
    assert rows(read(tmp_path / "flat"))[2] == ["a"] * 3 + ["b"] * 3
    for split in ("train", "test"):
        fasta(tmp_path / "splits" / f"{split}.fa", SEQUENCES, [f"s{row} label={LABELS[row]}" for row in range(12)])
    assert {name: len(own) for name, own in read(tmp_path / "splits").splits.items()} == {"train": 12, "test": 12}


def test_tables_and_proteins(tmp_path):
    pd.DataFrame({"name": LABELS, "sequence": SEQUENCES, "label": LABELS}).to_csv(tmp_path / "a.csv", index=False)
    assert rows(read(tmp_path / "a.csv"))[1:] == EXPECTED_ROWS[1:]
    pd.DataFrame({"seq": ["MKT*", "GAVL"], "label": [0, 1]}).to_parquet(tmp_path / "b.parquet")
    data = read(tmp_path / "b.parquet", tokenizer="protein")
    assert rows(data)[1] == ["MKT*", "GAVL"]
    assert data.facts.options["vocab_size"] == 29


def test_other_characters_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lambda_seq.tasks.data.reading.notes._said", set())
    names = [f"s{row} label={label}" for row, label in enumerate("ab")]
    data = read(fasta(tmp_path / "a.fa", ["ACG?J", "AC GT?"], names))
    assert rows(data)[1] == ["ACGNN", "ACGTN"]
    _ = data.facts
    assert "3 characters are no letters of dna, such as '?', 'J': they are read as N" in caplog.text


def test_generated_sites_are_on_either_strand_and_their_letters_alone_elsewhere():
    def likeness(sequence):
        """Letters of the site that the most similar place has, of either strand."""
        places = range(len(sequence) - len(SITE) + 1)
        both = (sequence, sequence[::-1].translate(OPPOSITE))
        return [max(sum(a == b for a, b in zip(SITE, one[place:], strict=False)) for place in places) for one in both]

    tables = sites()
    assert {name: len(table) for name, table in tables.items()} == {"train": 1000, "validation": 200, "test": 300}
    found = {"site": [], "none": []}
    for row in tables["test"]:
        found[row["label"]].append(likeness(row["sequence"]))
        assert 100 <= len(row["sequence"]) <= 200
    with_site, without = np.array(found["site"]), np.array(found["none"])
    assert (with_site.max(1) >= 11).mean() > 0.95
    assert (without.max(1) >= 11).mean() < 0.05
    assert 0.4 < (with_site[:, 0] > with_site[:, 1]).mean() < 0.6  # strands
    assert sites()["train"][0] == tables["train"][0]
    data = BiosequenceData(both_strands=True)
    assert fit_baseline(data).figures["test"]["accuracy"] == pytest.approx(0.847, abs=0.01)
    assert data.labels == ["none", "site"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ACGT\n>a\nAC\n", "a.fa, line 1: letters in front of the first header"),
        ("", "a.fa: it has no header"),
        ("; a comment\n", "a.fa: it has no header"),
        (">a\nAC\n>b\nGT\n", "no column chosen for label_column|no classes"),
    ],
)
def test_what_is_no_fasta(tmp_path, text, message):
    (tmp_path / "a.fa").write_text(text)
    with pytest.raises(ValueError, match=message):
        _ = read(tmp_path / "a.fa").splits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "bytes"}, "tokenizer='bytes': expected one of 'dna', 'protein'"),
        ({"tokenizer": "protein", "both_strands": True}, "both_strands=true with tokenizer='protein': only DNA"),
        ({"tokenizer": "protein", "reverse_complement": True}, "reverse_complement=true with tokenizer='protein'"),
        ({"part": "half"}, "part='half': expected one of"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        BiosequenceData("x", **options)
    with pytest.raises(ValueError, match="tokenizer='protein' with path='generated:sites', which is DNA: give a path"):
        BiosequenceData(tokenizer="protein")


def labelled(place, **options):
    names = [f"s{row} label={label}" for row, label in enumerate(LABELS)]
    return read(fasta(place / "a.fa", SEQUENCES, names), **options)


def test_training_reads_either_strand_by_seed_and_epoch(tmp_path):
    data = labelled(tmp_path, reverse_complement=True)
    items = data.rows_as_items(data.split("train"), "train", training=True)
    plain = data.rows_as_items(data.split("train"), "train")
    turned = 0
    for epoch in range(20):
        for row in range(12):
            x, own = items[epoch, row]["x"], plain[row]["x"]
            other = torch.from_numpy(reverse_complement(own.numpy()))
            assert torch.equal(x, own) or torch.equal(x, other)
            assert torch.equal(x, items[epoch, row]["x"])
            turned += not torch.equal(x, own)
    assert 0.3 < turned / 240 < 0.6  # of which some are their own reverse complement
    assert len(list(data.train_dataloader())) == 1


@pytest.mark.parametrize("part", ["start", "windows"])
def test_evaluation_reads_both_strands_of_each_window(tmp_path, part):
    data = labelled(
        tmp_path, both_strands=True, part=part, max_length=4, batch_size=5, predict_path=str(tmp_path / "b.fa")
    )
    fasta(tmp_path / "b.fa", SEQUENCES[:4])
    batches = list(data.predict_dataloader())
    assert [name for batch in batches for name in batch["id"]] == ["s0", "s1", "s2", "s3"]
    for batch in batches:
        assert batch["readings"] == 2
        for place, name in enumerate(batch["id"]):
            windows = [
                DNA.decode(x[mask].numpy())
                for x, mask, document in zip(batch["x"], batch["mask"], batch["document"], strict=True)
                if document == place
            ]
            assert len(windows) == 2 * (2 if part == "windows" and len(SEQUENCES[int(name[1:])]) > 4 else 1)
            half = len(windows) // 2
            for one, two in zip(windows[:half], windows[half:], strict=True):
                assert two == DNA.decode(reverse_complement(DNA.encode(one.encode())))
            assert windows[0] == SEQUENCES[int(name[1:])].upper()[:4]


def test_kmers_by_hand():
    x = torch.from_numpy(DNA.encode(b"AACN"))
    found = np.expm1(kmers(x, 4, 2)).round()
    assert found[:4].tolist() == [2, 1, 0, 0]
    assert found[4:].sum() == 2  # AA and AC; CN is none
    assert found[4] == found[5] == 1
    both = np.expm1(kmers(x, 4, 2, both=True)).round()
    assert both[:4].tolist() == [2, 1, 1, 2]  # and NGTT
    other = torch.from_numpy(reverse_complement(x.numpy()))
    assert np.array_equal(both, np.expm1(kmers(other, 4, 2, both=True)).round())
    assert not kmers(x[:0], 4, 2).any()


def motifs(file, count, seed, motif="TGACGTCCA"):
    """Random letters, half of them with a motif on either strand."""
    random = np.random.default_rng(seed)
    other = DNA.decode(reverse_complement(DNA.encode(motif.encode())))
    sequences, names = [], []
    for row in range(count):
        letters = random.choice(list("ACGT"), 60)
        if row % 2:
            begin = int(random.integers(0, 60 - len(motif)))
            letters[begin : begin + len(motif)] = list(motif if random.random() < 0.5 else other)
        sequences.append("".join(letters))
        names.append(f"s{row} label={'bound' if row % 2 else 'free'}")
    return fasta(file, sequences, names)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning's own use of torch
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_trained_network_answers_alike_to_both_strands_as_the_run_did(tmp_path):
    for split, count in {"train": 64, "validation": 16, "test": 24}.items():
        motifs(tmp_path / "d" / f"{split}.fa", count, len(split))
    data = BiosequenceData(str(tmp_path / "d"), reverse_complement=True, both_strands=True, batch_size=16)
    torch.manual_seed(0)
    task = Classification("lambda_encoder", {"dim": 16, "depth": 1, "heads": 2, "scope": 5, "stem": "tokens"})
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, **quiet)
    trainer.fit(task, data)
    by_run = torch.cat([batch["probabilities"] for batch in trainer.predict(task, data)])
    export(task, tmp_path / "model", source="data", metrics={})
    answers = lambda_seq.load_predictor(tmp_path / "model")
    texts = [item[1] for item in zip(*rows(data, "test"), strict=True)]
    found = np.stack([one.answer for one in answers(texts)])
    assert np.allclose(found, by_run, atol=1e-5)
    others = [DNA.decode(reverse_complement(DNA.encode(text.encode()))) for text in texts]
    assert np.allclose(found, np.stack([one.answer for one in answers(others)]), atol=1e-5)
    assert np.allclose(found, np.stack([one.answer for one in answers([text.lower() for text in texts])]), atol=1e-6)
    assert np.allclose(answers.embed(texts[:3]), answers.embed(others[:3]), atol=1e-5)
    once = labelled(tmp_path / "once")
    assert once.facts.tokens.strands is None
    with pytest.raises(ValueError, match=r"give --data.both_strands true for 2 strands"):
        once.facts.check(data.facts, predicting=True)
    with pytest.raises(ValueError, match="strands=2; leave that out"):
        data.facts.tokens.check(replace(data.facts.tokens, strands=None), predicting=True)
    assert fit_baseline(data).line.startswith("logistic regression on k-mers: ")


def test_the_command_line(cli, tmp_path):
    for split, count in {"train": 24, "validation": 8, "test": 8}.items():
        motifs(tmp_path / "d" / f"{split}.fa", count, len(split))
    assert guessed(str(tmp_path / "d"))[0] == "biosequences"
    short = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    printed = cli("fit", "--config", "biosequences", "--data.path", tmp_path / "d", *TINY_ENCODER, *short)
    assert "recipe texts: 24 training texts" in printed.err
    assert "data.max_length 64: 95 % of the texts have 60 letters or less" in printed.err
    card = Path("outputs/biosequences/model/README.md").read_text()
    assert 'Tokens.of(model).encode("ACGTTGCATGCA")' in card
    assert 'predictor(["ACGTTGCATGCA"])' in card
