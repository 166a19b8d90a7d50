"""Networks of Hugging Face's transformers, built from configurations: real blocks, fewer and narrower."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

Given = dict[str, Any]
IMAGE, TOKENS, PAIRS, SOUND, BOTH = "image", "tokens", "pairs", "sound", "both"
"""What a network is run on: an image, a text, a text and the beginning of its translation, and so on."""

TEXT = {"vocab_size": 1000, "hidden_size": 192, "intermediate_size": 512, "max_position_embeddings": 64}
DEPTH = {"num_hidden_layers": 3, "num_attention_heads": 6}
VISION = {"image_size": 64, "patch_size": 16, "hidden_size": 192, "num_labels": 10, **DEPTH}
MLP = {"intermediate_size": 768}
TWO = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512}
TWO |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "d_model": 192, "vocab_size": 1000}
STAGES = {"hidden_sizes": [48, 96, 192, 384], "depths": [1, 1, 2, 1], "num_labels": 10}
LIKE_LLAMA = {**TEXT, **DEPTH, "num_key_value_heads": 2, "pad_token_id": 0}

CONFIGS: dict[str, tuple[str, str, str, Given]] = {
    "vit": ("ViTConfig", "ViTForImageClassification", IMAGE, {**VISION, **MLP}),
    "deit": ("DeiTConfig", "DeiTForImageClassification", IMAGE, {**VISION, **MLP}),
    "beit": ("BeitConfig", "BeitForImageClassification", IMAGE, {**VISION, **MLP}),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        IMAGE,
        {"image_size": 128, "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4},
    ),
    "swinv2": (
        "Swinv2Config",
        "Swinv2ForImageClassification",
        IMAGE,
        {"image_size": 128, "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4},
    ),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", IMAGE, STAGES),
    "convnextv2": ("ConvNextV2Config", "ConvNextV2ForImageClassification", IMAGE, STAGES),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", IMAGE, VISION),
    "segformer": (
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        IMAGE,
        {"hidden_sizes": [32, 64, 128, 192], "depths": [1, 1, 1, 1], "decoder_hidden_size": 128},
    ),
    "pvt": (
        "PvtConfig",
        "PvtForImageClassification",
        IMAGE,
        {"image_size": 64, "hidden_sizes": [32, 64, 160, 256], "depths": [1, 1, 1, 1]},
    ),
    "pvt_v2": (
        "PvtV2Config",
        "PvtV2ForImageClassification",
        IMAGE,
        {"image_size": 64, "hidden_sizes": [32, 64, 160, 256], "depths": [1, 1, 1, 1]},
    ),
    "levit": ("LevitConfig", "LevitForImageClassification", IMAGE, {"depths": [1, 1, 1], "image_size": 224}),
    "mobilevit": ("MobileViTConfig", "MobileViTForImageClassification", IMAGE, {"image_size": 64}),
    "bert": ("BertConfig", "BertForSequenceClassification", TOKENS, {**TEXT, **DEPTH}),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        TOKENS,
        {"vocab_size": 1000, "dim": 192, "hidden_dim": 512, "n_layers": 3, "n_heads": 6},
    ),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", TOKENS, {**TEXT, **DEPTH}),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        PAIRS,
        {"vocab_size": 1000, "d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 6},
    ),
    "bart": ("BartConfig", "BartForConditionalGeneration", PAIRS, {**TWO, "max_position_embeddings": 64}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", TOKENS, LIKE_LLAMA),
    "mistral": ("MistralConfig", "MistralForCausalLM", TOKENS, {**LIKE_LLAMA, "head_dim": 32}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", TOKENS, {**LIKE_LLAMA, "head_dim": 32}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        TOKENS,
        {"vocab_size": 1000, "n_embd": 192, "n_layer": 3, "n_head": 6, "n_positions": 64},
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", TOKENS, {**TEXT, **DEPTH}),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        SOUND,
        {**TWO, "max_source_positions": 64, "max_target_positions": 32, "pad_token_id": 0},
    ),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        BOTH,
        {
            "text_config": {**TEXT, **DEPTH, "eos_token_id": 999},
            "vision_config": {**VISION, **MLP},
            "projection_dim": 128,
        },
    ),
}
"""{name: (configuration, network, what it is run on, what differs from the configuration's own sizes)}."""

ABOUT = (
    "Each has the blocks of its family in fewer layers, most of them of 192 channels, as its configuration "
    "in `benchmarks/zoo/of_transformers.py` says; no weights were downloaded."
)


def build(name: str) -> nn.Module:
    """The network in float32, as transformers initialises it."""
    transformers = library()
    config, network, _, sizes = CONFIGS[name]
    model: nn.Module = getattr(transformers, network)(getattr(transformers, config)(**sizes))
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.use_cache = False  # of keys and values, which the next token would read
    return model


def library() -> Any:
    """transformers, which takes this repository's folder `kernels` for a package of that name."""
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    import transformers

    return transformers


def example(name: str, dtype: torch.dtype) -> Given:
    """The arguments of a forward pass, by name."""
    pick = torch.Generator().manual_seed(1)
    _, _, kind, sizes = CONFIGS[name]
    tokens = torch.randint(3, 999, (1, 16), generator=pick)
    image = torch.randn(1, 3, *2 * [sizes.get("image_size", 64)], generator=pick, dtype=torch.float64)
    sound = torch.randn(1, 80, 128, generator=pick, dtype=torch.float64)
    return {
        IMAGE: {"pixel_values": image.to(dtype)},
        TOKENS: {"input_ids": tokens},
        PAIRS: {"input_ids": tokens, "decoder_input_ids": tokens[:, :8]},
        SOUND: {"input_features": sound.to(dtype), "decoder_input_ids": tokens[:, :8]},
        BOTH: {"input_ids": tokens, "pixel_values": image.to(dtype)},
    }[kind]
