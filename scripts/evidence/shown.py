"""Networks whose figures the documentation shows: data, configuration, and what a person would try first."""

from __future__ import annotations

from dataclasses import dataclass

UNMIXED = ("--model.options.content=false", "--model.options.scope=1", "--model.options.position=table")


@dataclass(frozen=True)
class Shown:
    """A network that is trained, tested and compared.

    Attributes:
        name: of the network, in words.
        pack: folder or file of its data, below that of all data.
        data: what they are.
        config: name of the configuration.
        options: of `lambda-seq fit`, beside the configuration.
        seeds: of the trainings that are tested.
        first: test figure of a person's first try on the same split, and what that was; None where it is not known.
        licence: of the data, and where they are from; for a network that comes with the library.
        unmixed: options that leave the lambda layers no more than each position by itself; None where there are none.
        folds: column of the data that says in which fold a row is: each fold is tested by a network of its own, trained
            on the others. None where the data have a test split.
        metric: of validation, the figure that is shown, such as that of the first try; None for the one that the
            configuration monitors.
    """

    name: str
    pack: str
    data: str
    config: str
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    first: tuple[float, str] | None = None
    licence: str | None = None
    unmixed: tuple[str, ...] | None = UNMIXED
    folds: str | None = None
    metric: str | None = None


AUDIO = "log-mel statistics, logistic regression"
WORDS = "TF-IDF of words, logistic regression"
SHOWN = (
    Shown(
        "spoken digits",
        "fsdd",
        "Free Spoken Digit Dataset, raw 8 kHz; 2,400 / 300 / 300 clips",
        "spoken_digits",
        first=(0.967, AUDIO),
        licence="CC BY-SA 4.0, github.com/Jakobovski/free-spoken-digit-dataset",
    ),
    Shown(
        "speech commands",
        "arabic_speech_commands_10",
        "Arabic speech commands, 10 words by other speakers in each split, raw 16 kHz; 900 / 300 / 300 clips",
        "speech_commands",
        first=(0.847, AUDIO),
    ),
    Shown(
        "environmental sounds",
        "esc10",
        "ESC-10, raw 22.05 kHz, five seconds a clip; five folds of 80 clips, of which three train",
        "audio_classification",
        seeds=(0,),
        first=(0.75, AUDIO),
        folds="fold",
    ),
    Shown(
        "reviews",
        "imdb",
        "IMDB reviews; 20,500 / 2,500 / 25,000",
        "text_classification",
        first=(0.872, WORDS),
        unmixed=None,
    ),
    Shown(
        "novelists",
        "novels31",
        "31 novelists, other novels in each split; 690 / 111 / 228 windows of 32,768 characters",
        "text_classification",
        first=(0.838, WORDS),
        unmixed=None,
    ),
    Shown(
        "proposals",
        "peps",
        "Python Enhancement Proposals, 3 uneven kinds, up to 120 kB; 507 / 74 / 150",
        "text_classification",
        first=(0.853, WORDS),
        unmixed=None,
        metric="val/accuracy",
    ),
    Shown(
        "clothes as pixels",
        "fashion_mnist",
        "Fashion-MNIST as 784 grey pixels in a row; 20,000 / 2,000 / 10,000",
        "pixels",
        (
            *("--data.flip=true", "--data.crop_padding=2", "--model.options.ff=gated", "--model.options.scope=43"),
            *("--model.label_smoothing=0.1", "--trainer.max_epochs=24"),
        ),
        seeds=(0,),
        first=(0.83, "logistic regression on pixels"),
    ),
    Shown(
        "photos as pixels",
        "cifar10",
        "CIFAR-10, lossy, as 1,024 grey pixels in a row; 43,000 / 5,000 / 10,000",
        "pixels",
        ("--data.flip=true", "--data.crop_padding=2", "--trainer.max_epochs=7"),
        seeds=(0,),
        first=(0.28, "logistic regression on pixels"),
        unmixed=None,
    ),
    Shown(
        "plays",
        "tinyshakespeare",
        "Shakespeare byte by byte, 1.1 MB, split 90 / 5 / 5 %; nats per byte, of which fewer are better",
        "shakespeare",
        seeds=(0,),
        unmixed=None,
    ),
)
