"""transformers, where it is installed, and a small network of it."""

import sys
import warnings

import pytest


def library():
    """transformers; the test is skipped where it is missing. The folder `kernels` here is not its package."""
    sys.modules.setdefault("kernels", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="needs pip install transformers")


def bert(labels=3):
    """A BERT of two layers, 32 numbers for each token and 4 heads."""
    transformers = library()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(
        vocab_size=50, max_position_embeddings=32, num_labels=labels, **sizes, use_cache=False
    )
    return transformers.BertForSequenceClassification(config)
