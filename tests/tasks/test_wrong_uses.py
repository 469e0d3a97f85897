"""Wrong uses of the command line, and what is said of each: the argument, its value, and what would be right."""

import re
import zipfile

import pytest
from small_audio import clip_folder
from small_data import SHORT, TINY_ENCODER, image_folder, texts, write_jsonl

TEXTS = "fit --config text_classification --data.path"
BYTES = f"fit --config text_classification --recipe null {' '.join(TINY_ENCODER)} --data.path"
IMAGES = "fit --config image_classification --recipe null --data.path"
AUDIO = "fit --config audio_classification --recipe null --data.path"
LANGUAGE = "fit --config language_modelling --trainer.fast_dev_run 1 --data.path"

WRONG = {
    # What data there are
    "no path": (
        "fit --config text_classification",
        r"path: no data given; --data.path takes a hub name, a file or a folder",
    ),
    "a file that is nowhere": (
        f"{TEXTS} nowhere.csv",
        r"path='nowhere.csv': no such file or folder \(looked for .*nowhere.csv\)",
    ),
    "a hub name without a network": (
        f"{TEXTS} nobody/nothing",
        r"path='nobody/nothing': there is no such local file .*connect to the network, or give an existing file",
    ),
    "a file of another kind": (
        f"{TEXTS} a.xyz",
        r"path='a.xyz': unknown kind of file '.xyz'; expected one of .parquet, .*.csv",
    ),
    "an archive": (
        f"{TEXTS} a.zip",
        r"path='a.zip': unknown kind of file '.zip'; unpack it; expected one of .parquet",
    ),
    "an empty file": (
        f"{TEXTS} empty.csv",
        r"empty.csv: the file is empty; put rows in it or remove it",
    ),
    "a header alone": (
        f"{TEXTS} header.csv",
        r"path='header.csv': the train split has no rows; remove it or put rows in it",
    ),
    "an empty folder": (
        f"{TEXTS} nothing",
        r"path='nothing': no data found .*it is empty.*; expected one folder of files per class, or parquet",
    ),
    "a subset that is nowhere": (
        f"{TEXTS} split --data.subset french",
        r"subset='french': there is no such folder in path='split'; leave it out",
    ),
    "two kinds of tables": (
        f"{TEXTS} kinds",
        r"path='kinds' holds tables of several kinds, one.csv, two.jsonl: leave one kind, or give one table",
    ),
    # What stands in tables
    "a cell too many": (
        f"{TEXTS} cells.csv",
        r"cells.csv, line 14: 3 cells, but the header has 2; put .* quotation marks, or .*--data.table.separator",
    ),
    "a quotation mark that is not closed": (
        f"{TEXTS} quote.csv",
        r"quote.csv: Error: unexpected end of data; a cell with a quotation mark is put between such",
    ),
    "a line that is no JSON": (
        f"{TEXTS} bad.jsonl",
        r"bad.jsonl, line 2: no JSON that can be read \(Expecting value\); expected one object a line",
    ),
    "text in an encoding that is not clear": (
        f"{TEXTS} cyrillic.csv",
        r"cyrillic.csv, line 2: its text is neither UTF-8 nor .*--data.table.encoding NAME, such as cp1251",
    ),
    "an encoding that there is not": (
        f"{TEXTS} cyrillic.csv --data.table.encoding klingon",
        r"table.encoding='klingon': Python knows no such encoding; expected one such as utf-8",
    ),
    "a separator of two characters": (
        f"{TEXTS} ok.csv --data.table.separator ::",
        r"table.separator='::': expected one character, such as ';', or 'tab'",
    ),
    "a column of labels that is not there": (
        f"{TEXTS} ok.csv --data.label_column lable",
        r"label_column='lable': there is no such column; did you mean 'label'\? The columns are text, label",
    ),
    "a column of texts that is not there": (
        f"{TEXTS} ok.csv --data.text_column review",
        r"text_column='review': there is no such column; the columns are text, label",
    ),
    "a column of texts with numbers": (
        f"{TEXTS} numbers.jsonl --data.text_column n --data.label_column n",
        r"text_column='n' holds Value\('int64'\): expected strings or bytes.* --data.text_column NAME",
    ),
    "no column of labels": (
        f"{TEXTS} unlabelled.csv",
        r"path='unlabelled.csv': there are no classes; .*or give a table .*with a column of labels",
    ),
    "several columns that may be labels": (
        f"{TEXTS} moods.csv",
        r"no column chosen for label_column: several hold few values: mood, tone. .*--data.label_column NAME",
    ),
    "one class": (
        f"{TEXTS} one.csv",
        r"label_column='label' of path='one.csv': all training rows have the same label, 'a'; add rows of another",
    ),
    "rows without a label": (
        f"{TEXTS} holes.csv",
        r"path='holes.csv': 2 of 14 rows have no label .*row 12, row 13; 1 .*--data.drop_incomplete true",
    ),
    "labels that are fractions": (
        f"{TEXTS} numbers.jsonl --data.label_column half",
        r"label_column='half': .* holds 0.5; expected a class name or a whole number. Name another column",
    ),
    "a label that no training row has": (
        f"{TEXTS} split",
        r"test split of path='split': row 1 has the label 'c', .*; add such rows .*or remove this one",
    ),
    "nothing that is complete": (
        f"{TEXTS} hollow.csv --data.drop_incomplete true",
        r"path='hollow.csv': no row is complete; leave out --data.drop_incomplete, or fill in column 'text'",
    ),
    # What is known of rows
    "a kind of target that there is not": (
        f"{TEXTS} ok.csv --data.target.kind tags",
        r"target.kind='tags': expected one of classes, labels, numbers",
    ),
    "a separator of numbers": (
        f"{TEXTS} ok.csv --data.target.kind numbers --data.target.separator ;",
        r"target.separator=';' with target.kind='numbers': it parts labels; leave one out",
    ),
    "columns of labels that are not there": (
        f"{TEXTS} moods.csv --data.target.columns [mood,tine]",
        r"target.columns='tine': there is no such column; did you mean 'tone'\? The columns are text, mood, tone",
    ),
    "columns of labels that hold words": (
        f"{TEXTS} moods.csv --data.target.columns [mood,tone]",
        r"train split of path='moods.csv': row 0 has 'a' in column 'mood'; expected 0 or 1. Correct it",
    ),
    "numbers that are words": (
        f"{TEXTS} ok.csv --data.target.kind numbers",
        r"train split of path='ok.csv': row 0 has 'a' in column 'label'; expected a number",
    ),
    "a separator in lists": (
        f"{TEXTS} lists.jsonl --data.target.separator ;",
        r"target.separator=';': column 'label' of path='lists.jsonl' holds lists already; leave it out",
    ),
    "a list with a label that no training row has": (
        f"{TEXTS} lists",
        r"test split of path='lists': row 0 has the label 'c', which no training row has \(training labels: a, b\)",
    ),
    "weights of another kind": (
        f"{BYTES} ok.csv --model.class_weight even",
        r"class_weight='even': expected 'balanced', a number for each class, or numbers by name",
    ),
    "too many weights": (
        f"{BYTES} ok.csv --model.class_weight [1,2,3]",
        r"class_weight has 3 numbers, and there are 2 classes: a, b; give one for each, in this order",
    ),
    "the weight of a class that there is not": (
        f'{BYTES} ok.csv --model.class_weight {{"c":2}}',
        r"class_weight: there is no class 'c'; the classes are a, b",
    ),
    "a weight below 0": (
        f"{BYTES} ok.csv --model.class_weight [1,-2]",
        r"class_weight: -2.0 of 'b'; expected a number of at least 0",
    ),
    "weights of numbers": (
        f"{BYTES} numbers.jsonl --data.label_column half --data.target.kind numbers --model.class_weight balanced",
        r"class_weight='balanced': is of classes and labels, and the data have numbers; leave it out",
    ),
    "Huber's loss of classes": (
        f"{BYTES} ok.csv --model.huber 1",
        r"huber=1.0: is of numbers, --data.target.kind numbers, and the data have none; leave it out",
    ),
    # Pictures and clips
    "pictures without classes": (
        f"{IMAGES} loose",
        r"path='loose': there are no classes; put files of each class into a folder of its own",
    ),
    "a picture that cannot be read": (
        f"{IMAGES} pictures",
        r"path='pictures', row 3, .*bad.png: not a readable image .*; replace or remove it",
    ),
    "a table of pictures that are nowhere": (
        f"{IMAGES} named.csv",
        r"row 0, x.png: there is no such file; replace or remove it",
    ),
    "pixels that are no square": (
        f"{IMAGES} pixels.csv",
        r"pixel_shape: there is no square of the 20 numbers .*; give height and width.*--data.pixel_shape \[H, W\]",
    ),
    "pixels of another shape": (
        f"{IMAGES} pixels.csv --data.pixel_shape [5,5]",
        r"pixel_shape=\[5, 5\]: does not fit the 20 numbers .*--data.pixel_shape",
    ),
    "texts as pictures": (
        f"{IMAGES} ok.csv",
        r"row 0, text 0: there is no such file; replace or remove it",
    ),
    "a clip that cannot be read": (
        f"{AUDIO} clips",
        r"path='clips', row 6, .*bad.wav: no audio that can be read: .*; replace or remove it",
    ),
    "pictures as clips": (
        f"{AUDIO} pictures",
        r"no column chosen for audio_column: .*the columns are image, label. Name one: --data.audio_column NAME",
    ),
    # Values of options
    "a batch of nothing": (
        f"{BYTES} ok.csv --data.batch_size 0",
        r"batch_size=0: expected at least 1",
    ),
    "a batch of many": (
        f"{BYTES} ok.csv --data.batch_size many",
        r"batch_size many: expected a whole number",
    ),
    "workers below none": (
        f"{BYTES} ok.csv --data.num_workers -1",
        r"num_workers=-1: expected at least 0",
    ),
    "more than all for validation": (
        f"{BYTES} ok.csv --data.validation_fraction 1.5",
        r"validation_fraction=1.5: expected a number from 0 to below 1",
    ),
    "no tokens": (
        f"{BYTES} ok.csv --data.max_length 0",
        r"max_length=0: expected at least 1 token",
    ),
    "a part that there is not": (
        f"{BYTES} ok.csv --data.part beginning",
        r"part='beginning': expected one of start, middle, end, random, windows",
    ),
    "a stride without windows": (
        f"{BYTES} ok.csv --data.stride 5",
        r"stride=5 with part='start' .*; give --data.part windows and a stride from 1 to max_length",
    ),
    "a tokenizer that is nowhere": (
        f"{BYTES} ok.csv --data.tokenizer mine.json",
        r"tokenizer='mine.json': there is no such file .*; give an existing tokenizer.json",
    ),
    "a vocabulary below the bytes": (
        f"{BYTES} ok.csv --data.tokenizer train --data.vocab_size 100",
        r"vocab_size=100: expected at least 258, as padding and 256 bytes come first",
    ),
    "a border below none": (
        f"{IMAGES} up --data.crop_padding -1",
        r"crop_padding=-1: expected a number of pixels, at least 0",
    ),
    "a colour that there is not": (
        f"{IMAGES} up --data.background whitish",
        r"background='whitish': expected an opaque colour, such as 'white'",
    ),
    "an augmentation that there is not": (
        f"{IMAGES} up --data.augment magic",
        r"augment='magic': expected one of 'none', 'randaugment', 'trivialaugment'",
    ),
    "a size for reading without crops": (
        f"{IMAGES} up --data.read_size 9",
        r"read_size=9 without crop_scale: pictures are read at image_size; leave it out",
    ),
    "windows without a length": (
        f"{AUDIO} ok --data.evaluate windows",
        r"evaluate='windows': windows are as long as what training hears; give crop_seconds",
    ),
    "a representation that there is not": (
        f"{AUDIO} ok --data.representation mel",
        r"representation='mel': expected 'waveform' or 'log_mel'",
    ),
    "a rate of nothing": (
        f"{AUDIO} ok --data.sampling_rate 0",
        r"sampling_rate=0: expected at least 1 sample",
    ),
    "words of which none can be predicted": (
        f"{LANGUAGE} ok.jsonl --data.tokenizer words",
        r"tokenizer='words' knows words by hashes, .*: give bytes, .train., or a tokenizer.json",
    ),
    "a stride that leaves tokens out": (
        f"{LANGUAGE} ok.jsonl --data.stride 6000",
        r"stride=6000: expected from 1 to length=512, so that no token is left out",
    ),
    # Networks, training and places
    "a network that there is not": (
        f"{BYTES} ok.csv --model.network lambda_encodr",
        r"name='lambda_encodr' is no model: did you mean 'lambda_encoder'",
    ),
    "an option that the network has not": (
        f"{BYTES} ok.csv --model.options.width 3",
        r"lambda_encoder has no option 'width': It accepts .*depth",
    ),
    "a network for other data": (
        f"{BYTES} ok.csv --model.network lambda_resnet_tiny --model.options null",
        r"network='lambda_resnet_tiny' takes image but the data are tokens: choose lambda_encoder",
    ),
    "smoothing of all": (
        f"{BYTES} ok.csv --model.label_smoothing 1",
        r"label_smoothing=1.0: expected a number from 0 to below 1",
    ),
    "a mixture of words": (
        f"{BYTES} ok.csv --model.mixup 0.2",
        r"mixup=0.2: is for pictures, audio and vectors, and lambda_encoder takes tokens, .*; leave it out",
    ),
    "weights that are nowhere": (
        f"{BYTES} ok.csv --model.init_from nowhere.ckpt",
        r"init_from='nowhere.ckpt': there is no such file or folder; give a checkpoint",
    ),
    "a decay above one": (
        f"{BYTES} ok.csv --ema_decay 2",
        r"ema_decay=2.0: expected a number from 0 to below 1, such as 0.9999",
    ),
    "no threads": (
        f"{BYTES} ok.csv --threads 0",
        r"threads 0: expected a whole number above 0 or null",
    ),
    "a recipe that there is not": (
        f"{TEXTS} ok.csv --recipe text",
        r"recipe='text': did you mean texts\? The recipes are audio, pictures, series, texts",
    ),
    "a checkpoint that is nowhere": (
        f"{BYTES} ok.csv --ckpt_path nowhere.ckpt",
        r"ckpt_path='nowhere.ckpt': there is no file .*; train first .*or name a checkpoint with --ckpt_path",
    ),
    "a test before a fit": (
        "test --config text_classification --recipe null --data.path ok.csv",
        r"there is no file .*last.ckpt; train first with `lambda-seq fit`, or name a checkpoint with --ckpt_path",
    ),
    "a file where a folder should be": (
        f"{BYTES} ok.csv --output_dir a.xyz",
        r"output_dir: .*a.xyz is a file, and a folder is needed there; move it, or give another name",
    ),
    "predictions of another kind": (
        f"{BYTES} ok.csv --predictions.path a.xlsx",
        r"predictions.path='a.xlsx': unknown kind of file; expected .csv, .jsonl, .parquet",
    ),
    "epochs that are no number": (
        f"{BYTES} ok.csv --trainer.max_epochs some",
        r"max_epochs some: expected a whole number or null",
    ),
    # Names
    "a configuration that there is not": (
        "fit --config text_clasification",
        r"--config=text_clasification: there is no such file, .*the nearest are text_classification",
    ),
    "an option of the data that there is not": (
        f"{BYTES} ok.csv --data.bath_size 3",
        r"bath_size",
    ),
    "an option of the trainer that there is not": (
        f"{BYTES} ok.csv --trainer.epochs 3",
        r"trainer.epochs",
    ),
    "a command that there is not": (
        "fitt --config text_classification",
        r"fitt: there is no such command; did you mean fit\? Commands are .*, data",
    ),
    "data to look at that are nowhere": (
        "inspect nowhere.csv",
        r"path='nowhere.csv': no such file or folder .*; correct it",
    ),
    "nothing to look at": (
        "inspect",
        r"data.path: no data given to look at; name a file or a folder: lambda-seq data PATH",
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with all that these command lines name."""
    folder = tmp_path_factory.mktemp("wrong")
    rows = "".join(f"text {row},{'ab'[row % 2]}\n" for row in range(12))
    tables = {
        "a.xyz": "x",
        "empty.csv": "",
        "header.csv": "text,label\n",
        "ok.csv": f"text,label\n{rows}",
        "cells.csv": f"text,label\n{rows}one, two,a\n",
        "quote.csv": f'text,label\n{rows}"open,a\n',
        "bad.jsonl": '{"text": "x", "label": "a"}\n{"text": \n',
        "unlabelled.csv": "text\n" + "".join(f"text {row}\n" for row in range(12)),
        "moods.csv": "text,mood,tone\n" + rows.replace(",a", ",a,x").replace(",b", ",b,y"),
        "one.csv": "text,label\n" + rows.replace(",b", ",a"),
        "holes.csv": f"text,label\n{rows}x,\n,\n",
        "hollow.csv": "text,label\n" + rows.replace("text ", "").translate(str.maketrans("", "", "0123456789")),
        "named.csv": "image,label\nx.png,a\ny.png,b\n",
        "pixels.csv": ",".join(["label", *(f"pixel{n}" for n in range(20))])
        + "".join(f"\n{row % 2}" + ",7" * 20 for row in range(6)),
        "split/train.csv": f"text,label\n{rows}",
        "split/test.csv": "text,label\nx,a\ny,c\n",
        "kinds/one.csv": f"text,label\n{rows}",
        "kinds/two.jsonl": '{"text": "x", "label": "a"}\n',
    }
    for name, text in tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "cyrillic.csv").write_bytes("text,label\nхорошо,да\nплохо,нет\n".encode("cp1251"))
    write_jsonl(folder / "ok.jsonl", texts(20))
    write_jsonl(folder / "numbers.jsonl", [{"text": f"t{row}", "n": row, "half": row / 2} for row in range(8)])
    lists = [{"text": f"t{row}", "label": ["a", "b"][: row % 3]} for row in range(12)]
    write_jsonl(folder / "lists.jsonl", lists)
    write_jsonl(folder / "lists" / "train.jsonl", lists)
    write_jsonl(folder / "lists" / "test.jsonl", [{"text": "t", "label": ["c"]}])
    (folder / "nothing").mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.csv", "text,label\n")
    image_folder(folder / "up", {"": 3})
    image_folder(folder / "loose", {"": 3}, names=("",))
    (image_folder(folder / "pictures", {"": 3}) / "down" / "bad.png").write_text("no picture")
    clip_folder(folder / "ok", {"": 3})
    (clip_folder(folder / "clips", {"": 3}) / "low" / "bad.wav").write_text("no audio")
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_use_ends_with_what_would_be_right(cli, files, monkeypatch, name):
    command, message = WRONG[name]
    words = command.split() + (list(SHORT) if " --data.path " in command else [])  # should it be right after all
    monkeypatch.chdir(files)
    before = contents(files)
    try:
        said = cli(*words, code=1).err
    except AssertionError as error:  # the parser's own
        said = str(error)
        assert said.startswith("exit status 2"), said
    assert "Traceback" not in said
    assert re.search(message, said), said
    assert contents(files) == before


def contents(folder):
    """What lies in a folder, without folders of runs, which are made before a network is."""
    return {file for file in folder.rglob("*") if "outputs" not in file.parts}


def test_there_are_enough():
    assert len(WRONG) >= 40
    assert len({command for command, _ in WRONG.values()}) == len(WRONG)
