"""Networks of transformers: files of pruned ones, and the Trainer's callback, with the real package."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import reprune
from tests.helpers.hugging_face import bert, library

transformers = library()
pytestmark = pytest.mark.filterwarnings("ignore")  # the package's own
UNIFORM = {"layers": "linear", "rule": "uniform"}


def example():
    return {"input_ids": torch.arange(1, 11)[None]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return bert()


def test_a_pruned_network_is_saved_by_reprune_and_loaded_into_what_the_configuration_builds(model, tmp_path):
    """Its widths differ from layer to layer, which a configuration cannot say."""
    keep = {"bert.encoder.layer.0.intermediate.dense": 20, "bert.encoder.layer.1.attention.self.query": 16}
    small, _ = reprune.prune(model.eval(), example(), keep=keep, layers="linear")
    reprune.save(small, tmp_path / "small.safetensors")
    model.config.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    full = transformers.AutoModelForSequenceClassification.from_config(config)
    loaded = reprune.load(tmp_path / "small.safetensors", full).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**example()).logits, small(**example()).logits)
    assert loaded.bert.encoder.layer[0].intermediate.dense.out_features == 20
    assert loaded.bert.encoder.layer[1].attention.self.num_attention_heads == 2


def test_the_code_on_the_page_runs(model, tmp_path, monkeypatch):
    """What it loads computes what it pruned, with fewer heads and hidden numbers."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "prune.md").read_text()
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {"torch": torch, "reprune": reprune, "model": model.eval()}
    names |= {name: getattr(transformers, name) for name in set(re.findall(r"Auto\w+", code))}
    exec(compile(code.replace("small = reprune.load", "loaded = reprune.load"), "prune.md", "exec"), names)
    with torch.no_grad():
        said, wanted = (names[name].eval()(**example()).logits for name in ("loaded", "small"))
    torch.testing.assert_close(said, wanted)
    assert names["plan"].flops[1] <= 0.5 * names["plan"].flops[0]


def test_heads_stay_where_keys_and_values_are_outputs_and_a_small_network_generates():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=50, num_key_value_heads=2, max_position_embeddings=64, **sizes
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    cached = reprune.make_plan(model, {**example(), "use_cache": True}, sparsity=0.5, **UNIFORM)
    assert "model.layers.0.self_attn.v_proj" in cached.skipped
    small, _ = reprune.prune(model, {**example(), "use_cache": False}, sparsity=0.5, **UNIFORM)
    assert small.model.layers[0].self_attn.k_proj.out_features == 8
    said = [
        small.generate(**example(), max_new_tokens=5, do_sample=False, use_cache=use) for use in (True, False)
    ]
    assert torch.equal(*said)


@pytest.fixture
def train(tmp_path):
    """Train for some epochs of two steps each; a function of the model, the callback and the epochs."""
    pytest.importorskip("accelerate")

    def run(model, callback, epochs, resume=None, **how):
        ids = torch.randint(1, 50, (16, 10), generator=torch.Generator().manual_seed(1))
        rows = [{"input_ids": row, "labels": k % 3} for k, row in enumerate(ids)]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **{"save_strategy": "no", **how},
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback])
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def callback(**how):
    from reprune.transformers import REPrune

    return REPrune(example(), **{"sparsity": 0.5, "interval": 1, "until": 3, **UNIFORM, **how})


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_the_trainer_prunes(mode, model, train):
    mine = callback(mode=mode)
    before = model.num_parameters()
    train(model, mine, 4)
    assert mine.pruner.finished
    assert len(mine.pruner.history) == 3
    assert [layer.intermediate.dense.out_features for layer in model.bert.encoder.layer] == [32, 32]
    assert [layer.attention.self.num_attention_heads for layer in model.bert.encoder.layer] == [2, 2]
    assert model.num_parameters() < before
    assert torch.isfinite(model.eval()(**example()).logits).all()


def test_masked_training_goes_on_from_a_checkpoint(model, train, tmp_path):
    whole = callback(mode="mask")
    train(model, whole, 4, save_strategy="epoch")
    torch.manual_seed(5)
    fresh, again = bert(), callback(mode="mask")
    train(fresh, again, 4, resume=str(tmp_path / "out" / "checkpoint-4"))
    assert again.pruner.finished
    assert again.pruner.plan.keep.keys() == whole.pruner.plan.keep.keys()
    for name, kept in whole.pruner.plan.keep.items():
        assert kept.tolist() == again.pruner.plan.keep[name].tolist()
    for mine, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "settings,how,message",
    [
        ({}, {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}, "best"),
        ({"until": 9}, {}, "until: the last event comes after epoch 9"),
    ],
)
def test_what_cannot_be_is_said_when_training_starts(settings, how, message, model, train, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "get_eval_dataloader", lambda self, *_: [])
    if how:
        monkeypatch.setattr(transformers.Trainer, "__init__", _with_evaluation(transformers.Trainer.__init__))
    with pytest.raises(ValueError, match=message):
        train(model, callback(**settings), 4, **how)


def _with_evaluation(original):
    def init(self, *args, **kwargs):
        original(self, *args, eval_dataset=kwargs["train_dataset"], **kwargs)

    return init


def test_the_arguments_are_those_of_the_pruner():
    from reprune.transformers import REPrune

    mine = dict(inspect.signature(REPrune).parameters)
    theirs = dict(inspect.signature(reprune.Pruner).parameters)
    del mine["example_inputs"]
    assert mine.keys() <= theirs.keys()
    assert all(mine[name].default == theirs[name].default for name in mine)
