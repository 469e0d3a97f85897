"""Forty mistakes, each answered in one line that names what is near, before data are read."""

import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI

import lambda_seq.tasks.cli as cli_module
from lambda_seq.tasks.cli import LambdaCLI
from lambda_seq.tasks.command_line import parser as parser_module
from lambda_seq.tasks.command_line.mistakes import in_a_line, nearest, parameters
from lambda_seq.tasks.configurations import located

FIT = LightningCLI.subcommands()["fit"]
COMMAND = ("fit", "--config", "text_classification", "--data.path", "x.csv")
WORDS = {  # on the command line
    ("--data.bath_size=3",): "--data.bath_size: TextData has no such option; did you mean --data.batch_size?",
    ("--data.tokeniser=bytes",): "did you mean --data.tokenizer?",
    ("--data.image_size=64",): "TextData has no such option, but ImageData has",
    ("--trainer.max_epoch=3",): "--trainer.max_epoch: there is no such option; did you mean --trainer.max_epochs",
    ("--trainer.max_epoch", "3"): "did you mean --trainer.max_epochs",
    ("--model.labelsmoothing=0.1",): "did you mean --model.label_smoothing?",
    (
        "--model.optimizer.lrr=0.1",
    ): "--model.optimizer.lrr: AdamW has no such option; did you mean --model.optimizer.lr?",
    ("--batch_size=3",): "did you mean --data.batch_size?",
    ("--max_epochs=3",): "did you mean --trainer.max_epochs",
    ("--lr=3",): "did you mean --model.optimizer.lr?",
    ("--outputdir=here",): "did you mean --output_dir?",
    ("--best.monitr=x",): "did you mean --best.monitor?",
    ("-data.batch_size=3",): "did you mean --data.batch_size?",
    ("more",): "more: belongs to no option",
    ("--data=TexData",): "--data TexData: there is no such class; did you mean TextData?",
    ("--model=Clasification",): "did you mean Classification?",
    ("--model.optimizer=AdmW",): "--model.optimizer AdmW: there is no such class; did you mean AdamW?",
    ("--trainer.callbacks+=EarlyStoping",): "did you mean EarlyStopping?",
    ("--data=nowhere.Mine",): "there is no module nowhere; run the command in the folder that holds nowhere.py",
    ("--data.batch_size=ten",): "--data.batch_size ten: expected a whole number",
    ("--data.test_fraction=ten",): "expected a number",
    ("--trainer.max_epochs=ten",): "--trainer.max_epochs ten: expected a whole number or null",
    ("--trainer.precision=bf17",): "--trainer.precision bf17: expected transformer-engine, ",
    ("--model.network",): "--model.network: a value is missing",
    ("--data.help", "TexData"): "--data.help TexData: there is no such class; did you mean TextData?",
}
EARLY = {  # in front of --config pixels
    "--data.path=x": (2, "--data.path stands before --config, which names the data that it belongs to; give --config"),
    "--model.options.heads=8": (2, "--model.options.heads stands before --config, which names the model"),
    "--trainer.max_epochs=1": (1, "--trainer.max_epochs stands before --config pixels, which has a value of its own;"),
    "--data.init_args.batch_size=2": (1, "--data.init_args.batch_size stands before --config pixels, which has"),
    "--model=LanguageModelling": (1, "--model stands before --config pixels"),
}
FILES = {  # in a configuration
    "data:\n  class_path: TextData\n  init_args:\n    bath_size: 3\n": "mine.yaml: data.bath_size: "
    "TextData has no such option; did you mean data.batch_size?",
    "data:\n  bath_size: 3\n": "did you mean data.batch_size?",
    "data:\n  class_path: TexData\n": "mine.yaml: data: TexData: there is no such class; did you mean TextData?",
    "data:\n  class_path: my.Data\n": "there is no module my;",
    "trainer:\n  max_epoch: 3\n": "mine.yaml: trainer.max_epoch: there is no such option; did you mean "
    "trainer.max_epochs",
    "trainr:\n  max_epochs: 3\n": "did you mean trainer.max_epochs?",
    "trainer:\n  max_epochs: three\n": "mine.yaml: trainer.max_epochs: three: expected a whole number or null",
    "best:\n  monitr: x\n": "did you mean best.monitor?",
    "model:\n  class_path: Classification\n  init_args:\n    optimizr: x\n": "did you mean model.optimizer?",
    "model:\n  init_args:\n    optimizer:\n      class_path: torch.optim.AdmW\n": "did you mean AdamW?",
    "trainer:\n  callbacks:\n  - class_path: EarlyStoping\n": "did you mean EarlyStopping?",
    "data:\n\tclass_path: x\n": "found character that cannot start any token",
    "[1, 2]": "Unexpected config",
}
WHOLE = {  # command lines
    ("fitt", "--config", "digits"): "fitt: there is no such command; did you mean fit?",
    ("--data.batch_size=3",): "options stand behind a command",
    ("--config", "digits"): "no command: write lambda-seq fit --config NAME",
    ("fit",): "neither data nor model: name a configuration",
}


@pytest.fixture(scope="module")
def parse():
    """Parses command lines by one parser: to make one for each takes longer than all else here."""
    made = []

    class Made(LambdaCLI):
        subcommands = staticmethod(lambda: {"fit": FIT})

        def parse_arguments(self, parser, args):
            made.append(parser)
            sys.exit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_module, "LambdaCLI", Made)
        with pytest.raises(SystemExit):
            cli_module.main()
    return lambda words: made[0].parse_args(located(words))


@pytest.fixture
def said(parse, monkeypatch, capsys):
    """What is said of a command line."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["lambda-seq", *words])
        with pytest.raises(SystemExit) as end:
            parse(words)
        assert end.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("words", WORDS)
def test_on_the_command_line(said, words):
    check(said(*COMMAND, *words), WORDS[words])


@pytest.mark.parametrize("text", FILES)
def test_in_a_configuration(said, text):
    Path("mine.yaml").write_text(text)
    check(said(*COMMAND, "--config", "mine.yaml"), FILES[text])


@pytest.mark.parametrize("words", WHOLE)
def test_of_the_command(said, words):
    check(said(*words), WHOLE[words])


def test_in_a_whole_run(cli):
    """An unknown configuration comes with the others' names, too."""
    check(cli(*COMMAND, "--data.bath_size=3", code=2).err, "did you mean --data.batch_size?")
    check(cli("fit", "--config", "text_clasification", code=1).err, "the nearest are text_classification")


@pytest.mark.parametrize("word", EARLY)
def test_in_front_of_a_configuration(cli, word):
    """What a configuration would overrule is refused, and so is what it alone could make sense of."""
    code, wanted = EARLY[word]
    check(cli("fit", word, "--config", "pixels", code=code).err, wanted)


def test_in_front_of_a_configuration_that_leaves_it_open(said):
    """Such an option is read; what is wrong comes behind it."""
    check(
        said("fit", "--output_dir=run", "--config", "digits", "--data.bath_size=3"), "did you mean --data.batch_size?"
    )


def check(said, wanted):
    line, *more = said.splitlines()
    assert line.startswith("error: ")
    assert wanted in line
    assert more in ([], ["(LAMBDA_SEQ_TRACEBACK=1 shows where)"])


def test_with_a_traceback_everything_is_said(cli, monkeypatch):
    monkeypatch.setenv("LAMBDA_SEQ_TRACEBACK", "1")
    said = cli(*COMMAND, "--data.bath_size=3", code=2).err
    assert "usage:" in said
    assert "Union subtypes" in said


def test_what_cannot_be_shortened_is_said_all_the_same(said, monkeypatch):
    monkeypatch.setattr(parser_module, "in_a_line", lambda *_: 1 / 0)
    assert said(*COMMAND, "--outputdir=here") == "error: unrecognized arguments: --outputdir=here\n"


def test_an_unknown_message_stays():
    assert in_a_line("a\nb", None) == "a b"
    tree = "\n".join(map(str, range(10)))
    assert in_a_line(tree, None) == tree


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("--data.bath_size", ["--data.batch_size"]), ("--batch_size", ["--data.batch_size"]), ("--zzz", [])],
)
def test_nearest(name, wanted):
    assert nearest(name, ["--data.batch_size", "--data.path", "--model.network"]) == wanted


def test_options_of_a_class():
    found = parameters("lambda_seq.tasks.classification.Classification")
    assert {"network", "label_smoothing", "warmup"} <= set(found)
    assert "facts" not in found
