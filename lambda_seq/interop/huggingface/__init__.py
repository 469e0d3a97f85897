"""Hugging Face: our networks as classes of transformers, for `Trainer`, `pipeline`, `generate`, accelerate and PEFT.

    from lambda_seq.interop import huggingface  # registers all with AutoConfig, AutoModel, AutoModelFor… and processors

    model = huggingface.from_ours("outputs/text_classification/model")
    model.save_pretrained("shared")  # which lambda_seq.from_pretrained reads, too
    huggingface.processor_of("outputs/text_classification/model").save_pretrained("shared")
    transformers.pipeline("text-classification", "shared")("a text")

Weights have the same names and values in files of both. Nothing here is imported by `import lambda_seq`.
"""

from importlib.util import find_spec

if find_spec("transformers") is None:
    raise ModuleNotFoundError(
        'lambda_seq.interop.huggingface needs the package transformers: pip install "lambda-seq[huggingface]"',
        name="transformers",
    )

from lambda_seq.interop.huggingface.classification import (
    LambdaSeqForAudioClassification,
    LambdaSeqForImageClassification,
    LambdaSeqForSequenceClassification,
    LambdaSeqForTokenClassification,
)
from lambda_seq.interop.huggingface.configuration import LambdaSeqConfig
from lambda_seq.interop.huggingface.conversion import from_ours, to_ours
from lambda_seq.interop.huggingface.generation import LambdaSeqCache, LambdaSeqForCausalLM
from lambda_seq.interop.huggingface.modelling import LambdaSeqModel
from lambda_seq.interop.huggingface.processing import (
    LambdaSeqFeatureExtractor,
    LambdaSeqImageProcessor,
    processor_of,
)
from lambda_seq.interop.huggingface.registering import register
from lambda_seq.interop.huggingface.tokenizing import LambdaSeqWordTokenizer

__all__ = [
    "LambdaSeqCache",
    "LambdaSeqConfig",
    "LambdaSeqFeatureExtractor",
    "LambdaSeqForAudioClassification",
    "LambdaSeqForCausalLM",
    "LambdaSeqForImageClassification",
    "LambdaSeqForSequenceClassification",
    "LambdaSeqForTokenClassification",
    "LambdaSeqImageProcessor",
    "LambdaSeqModel",
    "LambdaSeqWordTokenizer",
    "from_ours",
    "processor_of",
    "to_ours",
]

register()
