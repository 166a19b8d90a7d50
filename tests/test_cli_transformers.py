"""The command line takes networks of transformers by the folder that `save_pretrained` wrote."""

import json
import warnings

import pytest
import torch

import reprune
from reprune.cli import main
from tests.helpers.hugging_face import bert, library

transformers = library()
pytestmark = pytest.mark.filterwarnings("ignore")  # the package's own
HOW = ["--layers", "linear", "--rule", "uniform", "--flops", "0.6"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(7)  # the command draws from 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def fresh(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def test_a_folder_is_pruned_with_its_weights_and_loaded_into_what_its_configuration_builds(folder, capsys):
    file = folder.parent / "small.safetensors"
    assert main(["prune", str(folder), *HOW, "-o", str(file)]) == 0, capsys.readouterr().err
    assert "weights were random" not in capsys.readouterr().out
    dense = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    plan = reprune.make_plan(
        dense, {"input_ids": torch.ones(1, 16, dtype=torch.long)}, flops=0.6, layers="linear", rule="uniform"
    )
    reprune.apply(plan, dense)
    small = reprune.load(file, fresh(folder)).eval()
    ids = torch.arange(1, 11)[None]
    with torch.no_grad():
        torch.testing.assert_close(small(ids).logits, dense(ids).logits)
    assert small.num_parameters() < 0.9 * fresh(folder).num_parameters()
    assert {layer.attention.self.num_attention_heads for layer in small.bert.encoder.layer} < {1, 2, 3}


def test_without_weights_they_are_random_and_it_says_so(folder, capsys):
    (folder / "model.safetensors").unlink()
    assert main(["prune", str(folder), *HOW, "-o", str(folder.parent / "small")]) == 0
    assert "The weights were random" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["ViT", "T5", "GPT2"])
def test_inputs_are_made_from_the_configuration(family, tmp_path, capsys):
    config = getattr(transformers, f"{family}Config")()
    for name, size in {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": 32, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1,
        "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 60, "num_heads": 4,
    }.items():  # fmt: skip
        if hasattr(config, name):
            setattr(config, name, size)
    heads = {"ViT": "ForImageClassification", "T5": "ForConditionalGeneration", "GPT2": "LMHeadModel"}
    kind = getattr(transformers, family + heads[family])
    kind(config).save_pretrained(tmp_path / family)
    words = ["prune", str(tmp_path / family), *HOW[:4], "--sparsity", "0.5", "--json"]
    assert main([*words, "-o", str(tmp_path / "small.safetensors")]) == 0, capsys.readouterr().err
    before, after = json.loads(capsys.readouterr().out)["flops"].values()
    assert after < 0.9 * before


def test_a_configuration_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["prune", str(tmp_path), "-o", str(tmp_path / "small")]) == 2
    assert "transformers cannot build" in capsys.readouterr().err
