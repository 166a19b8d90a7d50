"""`reprune prune --calibrate`: images of a folder, or of a function."""

import copy
import json
import sys

import pytest
import torch

import reprune
from reprune.cli import calibration, main
from tests.test_cli import TOY, toy

IMAGES = """
import torch

def batches():
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        yield [torch.randn(8, 3, 16, 16, generator=generator), torch.zeros(8)]

def midway():
    yield torch.zeros(4, 3, 16, 16)
    raise ValueError("the disk is gone")

def few(): return torch.zeros(1, 3, 16, 16)
def broken(): raise RuntimeError("the disk is gone")
"""
PRUNE = ("prune", "toy:build", "-o", "small.safetensors", "--input-size", "3,16,16", "--flops", "0.5")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "photographs.py").write_text(IMAGES)
    monkeypatch.chdir(tmp_path)
    for name in ("toy", "photographs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def pictures(folder, count, mode="RGB"):
    image = pytest.importorskip("PIL.Image")
    noise = torch.randint(0, 256, (count, 24, 20, 3), dtype=torch.uint8).numpy()
    (folder / "pictures" / "inner").mkdir(parents=True)
    for k in range(count):
        image.fromarray(noise[k]).convert(mode).save(folder / "pictures" / "inner" / f"{k}.png")


def test_a_function_gives_the_images(folder, capsys):
    assert main([*PRUNE, "--calibrate", "photographs:batches", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["calibration"]["images"] == 32
    assert all(layer["after"] <= layer["before"] for layer in facts["calibration"]["layers"])
    torch.manual_seed(0)
    dense = toy()
    small = reprune.load("small.safetensors", toy())
    names: dict = {}
    exec(IMAGES, names)
    images = [*names["batches"]()]
    plan = reprune.make_plan(dense, torch.randn(1, 3, 16, 16), flops=0.5, rule="error", calibrate=images)
    plain = copy.deepcopy(dense)
    reprune.apply(plan, plain)
    report = reprune.compensate(dense, plain, plan, images)
    assert [layer["name"] for layer in facts["calibration"]["layers"]] == [
        layer.name for layer in report.layers
    ]
    assert facts["rule"] == "error"  # where there are images, that is the default
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in plain.state_dict().items())


def test_counts_and_channels_by_the_images(folder, capsys):
    words = (*PRUNE, "--calibrate", "photographs:batches", "--rule", "error", "--criterion", "covariance")
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rule"], facts["criterion"]) == ("error", "covariance")
    names: dict = {}
    exec(IMAGES, names)
    torch.manual_seed(0)
    how = {"rule": "error", "criterion": "covariance", "calibrate": names["batches"]()}
    small, plan = reprune.prune(toy(), torch.randn(1, 3, 16, 16), flops=0.5, **how)
    assert {name: layer["kept"] for name, layer in facts["layers"].items()} == {
        name: kept.tolist() for name, kept in plan.keep.items()
    }
    loaded = reprune.load("small.safetensors", toy()).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in small.state_dict().items())


def test_a_folder_gives_the_images(folder, capsys, monkeypatch):
    pictures(folder, 20)
    (folder / "pictures" / "notes.txt").write_text("no image")
    monkeypatch.setattr(calibration, "COUNT", 10)
    assert main([*PRUNE, "--calibrate", "pictures"]) == 0
    out = capsys.readouterr().out
    assert "compensated on 10 images" in out
    assert "conv2" in out


def test_pictures_are_prepared_as_torchvision_does(folder):
    torchvision = pytest.importorskip("torchvision")
    pictures(folder, 2)
    (batch,) = calibration.source("pictures", "resnet18", (3, 224, 224))
    usual = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    from PIL import Image

    with Image.open(folder / "pictures" / "inner" / "0.png") as image:
        torch.testing.assert_close(batch[0], usual(image))
    (gray,) = calibration.source("pictures", "toy:build", (1, 28, 30))
    assert gray.shape == (2, 1, 28, 30)
    assert gray.abs().max() <= 1


@pytest.mark.parametrize(
    "text,message",
    [
        ("nowhere", "there is no folder 'nowhere'"),
        ("photographs:none", "there is no photographs:none"),
        ("nothing:there", "there is no nothing:there"),
        ("photographs:broken", "calling photographs:broken failed: RuntimeError: the disk is gone"),
        ("photographs:midway", "--calibrate: reading the images failed: ValueError: the disk is gone"),
        ("photographs:few", "--calibrate: expected at least two images"),
        ("empty", "expected a folder with images; empty has 0"),
        ("damaged", "1.png is no image that can be read"),
    ],
)
def test_mistakes_are_said(folder, capsys, text, message):
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    for k in (1, 2):
        (folder / "damaged" / f"{k}.png").write_bytes(b"no")
    assert main([*PRUNE, "--calibrate", text]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (folder / "small.safetensors").exists()


def test_a_picture_that_is_too_large_is_named(folder, capsys, monkeypatch):
    pictures(folder, 2)
    monkeypatch.setattr(pytest.importorskip("PIL.Image"), "MAX_IMAGE_PIXELS", 100)
    assert main([*PRUNE, "--calibrate", "pictures"]) == 2
    assert "0.png is no image that can be read (Image size" in " ".join(capsys.readouterr().err.split())


def test_several_targets_are_not_compensated(folder, capsys):
    several = ("prune", "toy:build", "--input-size", "3,16,16", "--flops", "0.5,0.7")
    assert main([*several, "--calibrate", "photographs:batches"]) == 2
    assert "--calibrate: expected one target" in capsys.readouterr().err
