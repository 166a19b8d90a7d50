"""The examples run and do what they say."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import reprune
from tests.helpers.forked import one_process
from tests.helpers.versions import SHARDED_ON_CPU

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = {  # smoke -> the file it leaves, the network that fits it
    "fashion_mnist": None,
    "cifar10_resnet56": ("resnet56-small", lambda module: module.resnet(blocks=1, width=8)),
    "imagenet_resnet": ("resnet18-small", lambda module: module.models.resnet18(num_classes=10)),
    "fsdp_vit": ("vit-small", lambda module: module.network(smoke=True)),
    "ssd300_coco": ("ssd300-small", lambda module: module.network("resnet18", None, classes=3)),
}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as for a script, which finds common.py in its own folder
        spec.loader.exec_module(module)
    return module


token_pooling = load("token_pooling")


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "token_pooling",
        "common",
        "int8_resnet50",
        *RECIPES,
    }


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # of torch 2.6's own schedulers
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run_on_generated_images(name, tmp_path, monkeypatch, capsys):
    """Training, events, file; the file fits a fresh network and has as many FLOPs less as was said."""
    if name == "fsdp_vit" and not SHARDED_ON_CPU:
        pytest.skip("this torch does not run sharded models on the CPU")
    monkeypatch.chdir(tmp_path)
    module = load(name)
    module.main(["--smoke"] if RECIPES[name] is None else ["--smoke", "--out", "a/new folder"])
    said = capsys.readouterr().out
    before, after = (int(n.replace(",", "")) for n in re.search(r"FLOPs ([\d,]+) -> ([\d,]+)", said).groups())
    assert 0.2 * before < after < 0.85 * before
    if RECIPES[name] is not None:
        stem, build = RECIPES[name]
        file = f"a/new folder/{stem}.safetensors"
        model = reprune.load(file, build(module))
        assert reprune.read_plan(file).flops == (before, after)
        assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in build(module).parameters())
    else:
        assert float(re.search(r"test accuracy ([\d.]+)\n$", said)[1]) > 0.5


def test_fashion_mnist_goes_on_and_trains_dense(tmp_path, capsys, monkeypatch):
    module = load("fashion_mnist")
    monkeypatch.setattr(module, "generated", lambda count, make=module.generated: make(count // 4))
    file = str(tmp_path / "state.safetensors")
    module.main(["--smoke", "--save", file])
    first = capsys.readouterr().out.splitlines()
    module.main(["--smoke", "--save", file, "--mode", "shrink"])  # nothing is left to do but to say it
    again = capsys.readouterr().out.splitlines()
    assert again[:-1] == first[3:-1]
    assert again[-1].split("accuracy")[1] == first[-1].split("accuracy")[1]
    module.main(["--smoke", "--dense"])
    assert "FLOPs" not in capsys.readouterr().out


@pytest.mark.slow  # its steps are those of test_deployment.py
@one_process  # the packages that it needs are imported there
def test_int8_keeps_the_classes(tmp_path, capsys):
    for package in ("torchao", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason='needs pip install "reprune[deploy]"')
    folder = tmp_path / "new"
    load("int8_resnet50").main(["--smoke", "--epochs", "1", "--tune", "1", "--out", str(folder)])
    said = capsys.readouterr().out
    agreement = {form: float(x) for form, x in re.findall(r"^(int8[\w ]*?) +([\d.]+)%", said, re.MULTILINE)}
    assert set(agreement) == {"int8", "int8 in onnxruntime"}
    assert min(agreement.values()) >= 95
    assert (folder / "int8.onnx").stat().st_size < 0.35 * (folder / "small.safetensors").stat().st_size


def test_token_pooling_runs(monkeypatch, capsys):
    words = ["token_pooling.py", "--documents", "3", "--compare", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", words)
    token_pooling.main()
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["documents"] == "3"
    assert "33." in rows["vectors"]
    assert rows["checked"].startswith("same clusters")
    assert float(rows["ratio"].split()[0]) > 0


@pytest.mark.parametrize("arguments", [("--documents", "0"), ("--part", "1.5"), ("--threads", "-1")])
def test_token_pooling_refuses(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["token_pooling.py", *arguments])
    with pytest.raises(SystemExit):
        token_pooling.main()
    assert "must be positive" in capsys.readouterr().err


def test_token_pooling_documents_are_as_described():
    documents = token_pooling.make_documents(20)
    assert {d.shape[1] for d in documents} == {128}
    assert all(200 <= len(d) <= 1000 and d.dtype == np.float32 for d in documents)
    for d, again in zip(documents, token_pooling.make_documents(20), strict=True):
        np.testing.assert_array_equal(d, again)
        np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("part", [1 / 3, 0.5, 1.0, 1e-9])
def test_token_pooling_keeps_that_part(part):
    documents = [d[:n] for d, n in zip(token_pooling.make_documents(4), (1, 2, 30, 200), strict=True)]
    pooled = token_pooling.pool(documents, part)
    assert [len(p) for p in pooled] == [max(1, round(part * len(d))) for d in documents]
    for p in pooled:
        assert p.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(p, axis=1), 1, rtol=1e-5)


def test_token_pooling_takes_means():
    vectors = token_pooling.make_documents(1)[0][:6]
    labels = np.array([0, 1, 0, 2, 1, 0], dtype=np.int32)
    means = np.stack([vectors[labels == k].mean(axis=0) for k in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(token_pooling.pooled(vectors, labels), means, rtol=1e-5, atol=1e-6)


def test_token_pooling_check_can_fail():
    documents = token_pooling.make_documents(2)
    trees = token_pooling.ours(documents)
    token_pooling.check_equal(trees, trees, 1 / 3)
    with pytest.raises(AssertionError):
        token_pooling.check_equal(trees, [tree * [1, 1, 1.01, 1] for tree in trees], 1 / 3)
    other = token_pooling.ours([d[::-1] for d in documents])  # the same heights, other tokens
    with pytest.raises(AssertionError):
        token_pooling.check_equal(trees, other, 1 / 3)
