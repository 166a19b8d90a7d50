"""The command line takes networks of timm by name."""

import pytest
import torch

import reprune
from reprune.cli import calibration, from_timm, main, models

timm = pytest.importorskip("timm")
NAME = "timm/mobilenetv3_small_050"


def test_by_name(tmp_path, capsys):
    file = tmp_path / "small.safetensors"
    words = [
        "prune",
        NAME,
        "--params",
        "0.8",
        "--rule",
        "uniform",
        "--input-size",
        "3,32,32",
        "-o",
        str(file),
    ]
    assert main(words) == 0, capsys.readouterr().err
    small = reprune.load(file, timm.create_model("mobilenetv3_small_050")).eval()
    assert small(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    full = timm.create_model("mobilenetv3_small_050")
    assert sum(p.numel() for p in small.parameters()) <= 0.8 * sum(p.numel() for p in full.parameters())


def test_the_seed_draws_the_weights():
    one, same, other = (models.build(NAME, seed).conv_stem.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_inputs_are_those_of_the_network():
    assert models.example("timm/inception_v3", None, 2).shape == (2, 3, 299, 299)
    assert models.example("timm/inception_v3", (3, 75, 75)).shape == (1, 3, 75, 75)


@pytest.mark.parametrize("name,normal", [("timm/vit_tiny_patch16_224", 0.5), ("timm/resnet18", 0.485)])
def test_images_are_prepared_as_timm_does(name, normal):
    """A black image is -mean / std of the network's own training."""
    image = pytest.importorskip("PIL.Image").new("RGB", (300, 200))
    made = calibration._transform(name, (3, 96, 96))(image)
    assert made.shape == (3, 96, 96)
    std = timm.get_pretrained_cfg(name.removeprefix(from_timm.PREFIX)).std[0]
    assert torch.allclose(made[0], torch.tensor(-normal / std), atol=1e-3)


@pytest.mark.parametrize(
    "name,message",
    [
        ("timm/resnet1", "timm has no model 'resnet1'; did you mean timm/resnet"),
        ("timm/zzzzzzz", "timm has no model 'zzzzzzz'"),
        ("timm/resnet50.no_such_tag", "timm cannot build 'resnet50.no_such_tag'"),
    ],
)
def test_names_that_timm_does_not_know(name, message, tmp_path, capsys):
    assert main(["prune", name, "-o", str(tmp_path / "small")]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "small").exists()


def test_without_timm(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    assert main(["prune", NAME, "-o", str(tmp_path / "small")]) == 2
    assert "pip install timm" in capsys.readouterr().err
