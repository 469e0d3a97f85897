"""What the Auto classes of transformers know of lambda_seq."""

from __future__ import annotations

import transformers
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from lambda_seq.interop.huggingface.classification import (
    LambdaSeqForAudioClassification,
    LambdaSeqForImageClassification,
    LambdaSeqForSequenceClassification,
    LambdaSeqForTokenClassification,
)
from lambda_seq.interop.huggingface.configuration import LambdaSeqConfig
from lambda_seq.interop.huggingface.generation import LambdaSeqForCausalLM
from lambda_seq.interop.huggingface.modelling import PREFIX, LambdaSeqModel
from lambda_seq.interop.huggingface.processing import LambdaSeqFeatureExtractor, LambdaSeqImageProcessor
from lambda_seq.interop.huggingface.tokenizing import LambdaSeqWordTokenizer

MODELS = {
    "AutoModel": LambdaSeqModel,
    "AutoModelForSequenceClassification": LambdaSeqForSequenceClassification,
    "AutoModelForTokenClassification": LambdaSeqForTokenClassification,
    "AutoModelForCausalLM": LambdaSeqForCausalLM,
    "AutoModelForAudioClassification": LambdaSeqForAudioClassification,
    "AutoModelForImageClassification": LambdaSeqForImageClassification,
}


def register() -> None:
    """Make all classes known, once or again."""
    transformers.AutoConfig.register(LambdaSeqConfig.model_type, LambdaSeqConfig, exist_ok=True)
    for name, model in MODELS.items():
        getattr(transformers, name).register(LambdaSeqConfig, model, exist_ok=True)
    # Each is found by the name in its file, and the last where there is none
    for tokenizer in (LambdaSeqWordTokenizer, transformers.PreTrainedTokenizerFast):
        transformers.AutoTokenizer.register(LambdaSeqConfig, tokenizer_class=tokenizer, exist_ok=True)
    transformers.AutoFeatureExtractor.register(LambdaSeqConfig, LambdaSeqFeatureExtractor, exist_ok=True)
    # It brings pictures to size itself, by the library that its data module does it with: the same for both backends
    both = {"pil": LambdaSeqImageProcessor, "torchvision": LambdaSeqImageProcessor}
    transformers.AutoImageProcessor.register(LambdaSeqConfig, image_processor_classes=both, exist_ok=True)
    # Files have the names of our own: without the attribute that holds the network. `PrefixChange` does so for those
    # models only that were loaded
    renaming = WeightRenaming(source_patterns=rf"^(?:(?!{PREFIX}\.))(.+)", target_patterns=rf"{PREFIX}\.\1")
    register_checkpoint_conversion_mapping(LambdaSeqConfig.model_type, [renaming], overwrite=True)
