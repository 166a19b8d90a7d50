"""The command line as a user meets it: what it prints, what it writes, what it says of mistakes."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reprune
from reprune.cli import main, models, prune

TOY = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self, batchnorm=True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(24) if batchnorm else nn.Identity()
        self.conv2 = nn.Conv2d(24, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32) if batchnorm else nn.Identity()
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))

def build(): return Toy()
def plain(): return Toy(batchnorm=False)
def number(): return 3
def broken(): raise RuntimeError("no licence on this machine")
"""
SIZE = ("--input-size", "3,16,16")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the module `toy`."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return tmp_path


def toy(**settings: bool) -> nn.Module:
    names: dict[str, type[nn.Module]] = {}
    exec(TOY, names)
    return names["Toy"](**settings)


def trained_toy() -> nn.Module:
    """Untrained, but with gammas that differ."""
    torch.manual_seed(1)
    model = toy()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
    return model


def output(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    status = main(command)
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def error(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    status = main(command)
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    message = said.err[said.err.index("reprune: error: ") :]
    assert message.count("\n") == 1
    return message


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 16, 16))
    return counter.get_total_flops()


def test_prune_writes_a_network_that_loads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = trained_toy()
    torch.save(full.state_dict(), "trained.pth")
    said = output(
        capsys,
        "prune",
        "toy:build",
        "--weights",
        "trained.pth",
        "--flops",
        "0.5",
        *SIZE,
        "-o",
        "small.safetensors",
    )
    small = reprune.load("small.safetensors", toy())
    assert 0.4 < flops(small) / flops(full) <= 0.5
    expected, _ = reprune.prune(full, torch.zeros(1, 3, 16, 16), flops=0.5)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(small.eval()(images), expected.eval()(images))
    for word in ("conv1", "FLOPs", "parameters", "file size", "rule bn", "small.safetensors"):
        assert word in said


def test_json_is_one_object_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(output(capsys, "prune", "toy:build", *SIZE, "-o", "small.safetensors", "--json"))
    full, small = toy(), reprune.load("small.safetensors", toy())
    assert facts["flops"] == {"before": flops(full), "after": flops(small)}
    assert facts["parameters"]["after"] == sum(p.numel() for p in small.parameters())
    assert facts["bytes"]["after"] == Path("small.safetensors").stat().st_size
    assert facts["layers"]["conv1"]["channels"] == 24
    assert len(facts["layers"]["conv1"]["kept"]) == small.conv1.out_channels
    assert facts["rule"] == "uniform"


def test_several_targets_are_compared_on_one_trace(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[nn.Module] = []
    trace = reprune.trace
    monkeypatch.setattr(
        reprune, "trace", lambda model, *a, **k: traces.append(model) or trace(model, *a, **k)
    )
    words = ("prune", "toy:build", *SIZE, "--flops", "0.8,0.6", "--measure")
    found = json.loads(output(capsys, *words, "--json"))["targets"]
    assert len(traces) == 1
    assert list(folder.glob("*.safetensors")) == []
    for row, share in zip(found, (0.8, 0.6), strict=True):
        expected, plan = reprune.prune(traces[0], torch.zeros(1, 3, 16, 16), flops=share, rule="uniform")
        assert row["flops"]["after"] == plan.flops[1]
        assert row["latency"] > 0
        assert row["target"] == share
        assert row["bytes"] == sum(t.nbytes for t in expected.state_dict().values())
    said = output(capsys, "prune", "toy:build", *SIZE, "--size-mb", "0.03,0.02")
    assert "size-mb" in said
    assert "0.03" in said
    assert "0.02" in said


def test_show_tells_what_the_file_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(output(capsys, "prune", "toy:build", *SIZE, "-o", "small.safetensors", "--json"))
    shown = json.loads(output(capsys, "show", "small.safetensors", "--json"))
    assert {key: shown[key] for key in ("flops", "parameters", "layers", "skipped")} == {
        key: made[key] for key in ("flops", "parameters", "layers", "skipped")
    }
    said = output(capsys, "show", "small.safetensors")
    assert f"{len(made['layers']['conv2']['kept'])} of 32" in said


def test_same_seed_same_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = {}
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        output(capsys, "prune", "toy:build", *SIZE, "--seed", seed, "-o", name)
        networks[name] = (reprune.read_plan(name).to_json(), load_file(name)["conv2.weight"])
    assert networks["a"][0] == networks["b"][0]
    assert torch.equal(networks["a"][1], networks["b"][1])
    assert networks["a"][0] != networks["c"][0]


@pytest.mark.parametrize(
    "model,target,rule,words",
    [
        ("toy:build", ("--params", "0.4"), "uniform", "gammas are equal"),
        ("toy:plain", ("--sparsity", "0.5"), "uniform", "no BatchNorm"),
    ],
)
def test_auto_rule_says_why(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    target: tuple[str, str],
    rule: str,
    words: str,
) -> None:
    said = output(capsys, "prune", model, *target, *SIZE, "-o", "small.safetensors")
    assert f"rule {rule}" in said
    assert words in " ".join(said.split())


@pytest.mark.parametrize("form", ["pth", "safetensors", "checkpoint", "parallel", "numbered"])
def test_weights_in_all_usual_forms(folder: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    full = trained_toy()
    state = full.state_dict()
    if form == "safetensors":
        save_file(state, "weights.bin")  # told by its content, not by its name
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": state}, "weights.bin")
    elif form == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, "weights.bin")
    elif form == "numbered":
        torch.save({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, "weights.bin")
    else:
        torch.save(state, "weights.bin")
    facts = json.loads(
        output(capsys, "prune", "toy:build", "--weights", "weights.bin", *SIZE, "-o", "small", "--json")
    )
    assert facts["rule"] == "bn"
    kept = facts["layers"]["conv1"]["kept"]
    assert torch.equal(reprune.load("small", toy()).conv1.weight, full.conv1.weight[kept])


def test_bounds_on_single_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = ("--min-keep", "2", "--min-keep", "conv2=9")
    kept = {}
    for name, more in (("all", bounds), ("some", (*bounds, "--ignore", "conv1"))):
        target = ("--sparsity", "0.99") if name == "all" else ("--sparsity", "0.9")
        facts = json.loads(output(capsys, "prune", "toy:build", *SIZE, *target, *more, "-o", name, "--json"))
        kept[name] = {layer: len(what["kept"]) for layer, what in facts["layers"].items()}
    assert kept == {"all": {"conv1": 2, "conv2": 9}, "some": {"conv2": 9}}


def test_linear_layers_may_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.py").write_text(
        TOY + "def mlp():\n return nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 5))"
    )
    command = (
        "prune",
        "toy:mlp",
        "--input-size",
        "9",
        "--sparsity",
        "0.5",
        "--layers",
        "linear",
        "-o",
        "small",
    )
    facts = json.loads(output(capsys, *command, "--json"))
    assert len(facts["layers"]["0"]["kept"]) == 16
    assert facts["notes"] == []


def test_a_size_in_megabytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = sum(t.nbytes for t in toy().state_dict().values())
    output(capsys, "prune", "toy:build", *SIZE, "--size-mb", str(full / 2e6), "-o", "small.safetensors")
    assert 0.9 * full / 2 < sum(t.nbytes for t in load_file("small.safetensors").values()) <= full / 2


def test_a_latency_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latency = ("--latency", "0.7", "--batch", "4", "--channels-last", "--input-size", "3,32,32")
    said = output(capsys, "prune", "toy:build", *latency, "-o", "small.safetensors")
    assert "of the full network's time on the example input" in " ".join(said.split())
    assert "of the full network's time" in output(capsys, "show", "small.safetensors")
    assert reprune.load("small.safetensors", toy())(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_torchvision_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchvision.models import resnet18

    output(
        capsys, "prune", "resnet18", "--sparsity", "0.5", "--input-size", "3,32,32", "-o", "small.safetensors"
    )
    small = reprune.load("small.safetensors", resnet18())
    assert small.layer1[0].conv1.out_channels == 32


@pytest.mark.parametrize(
    "name,size",
    [
        ("inception_v3", (3, 299, 299)),
        ("r3d_18", (3, 16, 112, 112)),
        ("mvit_v2_s", (3, 16, 224, 224)),
        ("resnet50", (3, 224, 224)),
    ],
)
def test_input_size_follows_the_family(name: str, size: tuple[int, ...]) -> None:
    assert models.example(name, None).shape == (1, *size)


PRUNE = ("prune", "toy:build", *SIZE, "-o", "small.safetensors")


@pytest.mark.parametrize(
    "command,words",
    [
        (("prune", "resnet500", "-o", "x"), "did you mean resnet50"),
        (("prune", "nowhere.at_all:build", "-o", "x"), "cannot import 'nowhere'"),
        (("prune", "toy:build"), "--output: expected a file"),
        (("prune", "toy:build", "--flops", "0.5,0.7", "-o", "x"), "--output: expected none"),
        (("prune", "toy:build", "--flops", "0.5,"), "--flops: expected a number between 0 and 1"),
        (("prune", "toy:make", "-o", "x"), "'toy' has no function 'make'"),
        (("prune", "toy:number", "-o", "x"), "must return a torch.nn.Module, it returned a int"),
        (("prune", "toy:broken", "-o", "x"), "no licence on this machine"),
        (("prune", "toy:build", "--input-size", "1,16,16", "-o", "x"), "--input-size"),
        (("prune", "toy:build", "-o", "missing/x"), "the folder of missing/x does not exist"),
        (("prune", "toy:build", "-o", "."), "is a folder"),
        ((*PRUNE, "--flops", "1.5"), "flops"),
        ((*PRUNE, "--sparsity", "0"), "sparsity"),
        ((*PRUNE, "--size-mb", "9"), "size_mb: expected less than the"),
        ((*PRUNE, "--ignore", "conv3"), "did you mean one of conv"),
        ((*PRUNE, "--min-keep", "conv3=4"), "did you mean one of conv"),
        ((*PRUNE, "--rule", "bn"), "uniform"),
        ((*PRUNE, "--weights", "missing.pth"), "no such file: missing.pth"),
        ((*PRUNE, "--weights", "toy.py"), "toy.py"),
        ((*PRUNE, "--weights", "objects.pth"), "save model.state_dict() instead"),
        ((*PRUNE, "--weights", "list.pth"), "holds no state_dict"),
        ((*PRUNE, "--weights", "cut.safetensors"), "cannot read cut.safetensors"),
        (
            (*PRUNE, "--weights", "other.pth"),
            "1 missing (head.bias); 1 not in the network (tail.bias); 1 of another shape",
        ),
        (("show", "missing.safetensors"), "missing.safetensors"),
        (("show", "full.safetensors"), "full.safetensors"),
        (("show", "toy.py"), "toy.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_say_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], words: str
) -> None:
    state = toy().state_dict()
    save_file(state, "full.safetensors")
    Path("cut.safetensors").write_bytes(Path("full.safetensors").read_bytes()[:500])
    torch.save([state], "list.pth")
    torch.save(prune.Result, "objects.pth")
    state["tail.bias"] = state.pop("head.bias")
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    torch.save(state, "other.pth")
    before = set(folder.iterdir())
    assert words in error(capsys, *command)
    assert {path for path in folder.iterdir() if path.name != "__pycache__"} == before


def test_a_pruned_file_as_weights_is_recognised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, *PRUNE)
    assert "reprune.load" in error(capsys, *PRUNE[:-1], "again.safetensors", "--weights", "small.safetensors")


def test_interruption_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reprune, "make_plan", interrupted)
    assert main(PRUNE) == 130
    assert capsys.readouterr().err.endswith("reprune: interrupted\n")
    assert not Path("small.safetensors").exists()


def test_traceback_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "toy:broken", "-o", "x", "--traceback"]) == 2
    assert "in broken" in capsys.readouterr().err


def test_script_and_module_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(Path(sys.executable).with_name("reprune"))
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    for run in (
        lambda: runpy.run_path(script, run_name="__main__"),
        lambda: runpy.run_module("reprune", run_name="__main__"),
    ):
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code in (0, None)
        assert capsys.readouterr().out == f"reprune {reprune.__version__}\n"
