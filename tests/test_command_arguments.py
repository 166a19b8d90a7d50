"""The command line refuses what is wrong before a network is built, in one line, with exit status 2."""

import pickle

import pytest
import torch

import reprune.cli
from reprune.cli import models
from tests.helpers.networks import small_resnet

WRONG = [
    (
        ["--flops", "50%"],
        "--flops: expected a number between 0 and 1; got '50%'; 50 % is written 0.5",
    ),
    (["--flops", "50"], "got '50'; 50 % is written 0.5"),
    (["--params", "1.5"], "--params: expected a number between 0 and 1; got '1.5'; 1.5 % is written 0.015"),
    (["--sparsity", "nan"], "--sparsity: expected a number between 0 and 1; got 'nan'"),
    (["--latency", "half"], "--latency: expected a number between 0 and 1; got 'half'"),
    (["--sparsity", "0"], "--sparsity: expected a number between 0 and 1; got '0'"),
    (["--size-mb", "inf"], "--size-mb: expected a number of megabytes above 0; got 'inf'"),
    (["--size-mb", "-3"], "--size-mb: expected a number of megabytes above 0; got '-3'"),
    (["--round-to", "0"], "argument --round-to: '0' is not a number of at least 1"),
    (["--seed", "1.5"], "argument --seed: expected an integer"),
    (["--seed", str(2**70)], "argument --seed: expected an integer"),
    (["--flops", "0.5", "--sparsity", "0.5"], "not allowed with argument"),
    (["--flops", "0.5,0.7"], "--output: expected none with several values of --flops, which are compared"),
    (["--size-mb", "3,2"], "--output: expected none with several values of --size-mb, which are compared"),
    (["--flops", "0.5,50"], "--flops: expected a number between 0 and 1; got '50'; 50 % is written 0.5"),
    (["--rule", "error"], "--rule error: expected images, --calibrate DIR or FUNCTION"),
    (["--criterion", "covariance"], "--criterion covariance: expected images, --calibrate DIR or FUNCTION"),
]


@pytest.mark.parametrize("options, message", WRONG)
def test_numbers(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "build", None)  # never called
    command = ["prune", "resnet18", "-o", str(tmp_path / "out"), *options]
    try:
        status = reprune.cli.main(command)
    except SystemExit as ended:  # of the parser
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--flops", "0.5"], "--output: expected a file for the small network"),
        (["--flops", "0.5,0.7", "--calibrate", "images"], "--calibrate: expected one target"),
    ],
)
def test_what_is_not_for_one_or_for_several_targets(options, message, capsys, monkeypatch):
    monkeypatch.setattr(models, "build", None)  # never called
    assert reprune.cli.main(["prune", "resnet18", *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_files_that_are_no_weights(tmp_path, capsys):
    files = {
        "text": b"just some words\n" * 3,
        "image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "zip": b"PK\x03\x04" + bytes(60),
        "code": pickle.dumps({"weight": Code()}),
        "half.safetensors": b"\x10\0\0\0\0\0\0\0{}",
        "number": pickle.dumps(3),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        refused(name, tmp_path, capsys)


def refused(name, folder, capsys, message=""):
    status = reprune.cli.main(
        ["prune", "squeezenet1_1", "--weights", str(folder / name), "-o", str(folder / "out")]
    )
    out, err = capsys.readouterr()
    assert status == 2
    lines = [line for line in err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("reprune: error: ")
    assert name in lines[0]
    assert message in lines[0]
    assert "run" not in out.split()
    assert not (folder / "out").exists()


def test_wrong_arguments_are_refused_before_a_network_is_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "build", None)  # never called
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    refused("empty", tmp_path, capsys, "got an empty file")
    refused("folder", tmp_path, capsys, "got a folder")
    refused("missing", tmp_path, capsys, "no such file")


@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "module._orig_mod.", "model.", "model.module."])
@pytest.mark.parametrize("inside", [(), ("state_dict",), ("model_state",), ("model_ema", "state_dict")])
def test_weights_as_training_scripts_leave_them(prefix, inside, tmp_path):
    from reprune.cli import weights

    model, other = (small_resnet(seed, blocks=1) for seed in range(2))
    content = {prefix + name: tensor for name, tensor in other.state_dict().items()}
    for key in reversed(inside):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pt")
    weights.load(model, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_names_that_begin_like_a_wrapper_prefix_are_kept(tmp_path):
    """Its own names are not shortened."""
    from reprune.cli import weights

    model = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    weights.load(model, tmp_path / "weights.pt")
