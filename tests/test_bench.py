"""The benchmark of the command line: what it says, and that no figure outlives a wrong answer."""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reprune
from reprune import bench
from reprune.bench import WrongAnswer, checking, peers, shapes, timing
from reprune.cli import main
from reprune.clustering import backends as backend
from reprune.clustering import reference

QUICK = ("bench", "--quick", "--seconds", "0.5")


@pytest.fixture(autouse=True)
def scipy_is_there() -> None:
    pytest.importorskip("scipy")


def points(n: int = 30, d: int = 9, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, d))


# what it prints and writes


def test_json_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page, plot = tmp_path / "page.md", tmp_path / "plot.png"
    assert main([*QUICK, "--json", "--markdown", str(page), "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    by_group = {row["group"] for row in report["rows"]}
    assert by_group == set(bench.GROUPS)
    for row in report["rows"]:
        assert row["seconds"] > 0
        assert row["problems_per_s"] > 0
        assert row["kernels_per_s"] > row["problems_per_s"]
        assert row["runs"] >= timing.LEAST_ROUNDS
        assert (row["clock"] == "wall") == row["who"].endswith("threads")
        assert bool(row["checked"]) == row["who"].startswith("cpp")
    who = {row["who"] for row in report["rows"]}
    assert {"cpp, 1 thread", "reference", "scipy", "numpy greedy"} <= who
    assert all(row["times"] == 1 for row in report["rows"] if row["who"] == "cpp, 1 thread")
    assert report["facts"]["backend cpp"].startswith("available: instruction set ")
    assert report["facts"]["numpy"] == np.__version__

    text = page.read_text()
    assert "reprune bench --seconds 0.5 --quick\n" in text
    assert str(tmp_path) not in text
    for row in report["rows"]:
        assert f"| {row['case']} | " in text
        assert row["who"] in text
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "coverage", "dendrograms", "--method", "all"]) == 0
    said = capsys.readouterr().out
    for words in (
        "instruction set",
        "Full dendrograms",
        "Maximum coverage",
        "6 of 24x9, average",
        "numpy greedy",
    ):
        assert words in said
    assert "Selection of filters" not in said


@pytest.mark.skipif(backend.unavailable("triton") is None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*QUICK, "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"backend 'triton': {backend.unavailable('triton')}" in said.err
    monkeypatch.setattr(sys, "argv", ["throughput.py"])
    with pytest.raises(SystemExit) as ended:  # a text is printed and the status is 1
        runpy.run_module("benchmarks.gpu.throughput", run_name="__main__")
    assert ended.value.code == f"benchmarks.gpu.throughput: backend 'triton': {backend.unavailable('triton')}"


@pytest.mark.parametrize(
    "words,message",
    [
        (("coverages",), "groups: expected some of dendrograms, single, selection, coverage; got coverages"),
        (("--seconds", "0"), "seconds: expected a positive number"),
        (("--plot", "nowhere/plot.png"), "--plot nowhere/plot.png"),
        (("--plot", "plot.xls"), "expected a name that ends in .png, .svg or .pdf"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("measured"))
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_the_peers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda library: False)
    assert main([*QUICK, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["who"].split(",")[0] for row in report["rows"]} == {"cpp", "reference", "numpy greedy"}
    assert "Not installed, so not compared: scipy, fastcluster, scikit-learn" in report["notes"][-1]
    assert all("by reference" in row["checked"] for row in report["rows"] if "by" in row["checked"])


# a wrong answer


def height_off(Z: Any) -> Any:
    Z = Z.copy()
    Z[..., 5, 2] *= 1 + 1e-11
    return Z


def two_rows_swapped(Z: Any) -> Any:
    """Other points are merged, at the same heights."""
    Z = Z.copy()
    Z[0, [0, 3], :2] = Z[0, [3, 0], :2]
    return Z


def worse_pick(answer: Any) -> Any:
    order, gains = answer
    return order[::-1].copy(), gains


def higher(selections: list[Any]) -> list[Any]:
    return [
        reprune.Selection(s.keep, s.order, s.gains, (s.height * (1 + 1e-11),), s.labels, s.clusters)
        for s in selections
    ]


def one_kernel_moved(selections: list[Any]) -> list[Any]:
    (s,) = selections
    labels = s.labels.copy()
    labels[0, 0] = labels[1, 0] if labels[0, 0] != labels[1, 0] else labels[2, 0]
    return [reprune.Selection(s.keep, s.order, s.gains, s.heights, labels, s.clusters)]


@pytest.mark.parametrize(
    "group,module,name,spoil",
    [
        ("dendrograms", reprune, "linkage", height_off),
        ("dendrograms", reprune, "linkage", two_rows_swapped),
        ("coverage", reprune, "max_coverage", worse_pick),
        ("selection", bench.selection, "select_layers", higher),
        ("selection", bench.selection, "select_layers", one_kernel_moved),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_answer_gets_no_figure(
    group: str,
    module: Any,
    name: str,
    spoil: Callable[[Any], Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **options: spoil(right(*args, **options)))
    page = tmp_path / "page.md"
    assert main([*QUICK, group, "--markdown", str(page)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "wrong answer, so no figures" in said.err
    assert not page.exists()


def test_threads_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reprune.linkage
    calls: list[int] = []

    def second_differs(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return right(*args, **options) + (len(calls) == 2) * 1e-15

    monkeypatch.setattr(reprune, "linkage", second_differs)
    with pytest.raises(WrongAnswer, match="2 threads give another answer"):
        bench.dendrograms.measure((3, 12, 2), "ward", 0.1, cores=2)


def test_a_peer_that_does_other_work_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    known = peers.linkages
    monkeypatch.setattr(peers, "linkages", lambda method: known(method) | {"liar": known("single")["scipy"]})
    with pytest.raises(WrongAnswer, match="liar"):
        bench.dendrograms.measure((3, 12, 2), "ward", 0.1, cores=1)


# the checks themselves


def is_greedy(labels: Any, order: Any, gains: Any) -> bool:
    """By the definition, step by step."""
    open_clusters = np.ones(labels.shape, dtype=bool)
    for pick, gain in zip(order, gains, strict=True):
        if not open_clusters[pick].sum() == gain == open_clusters.sum(axis=1).max():
            return False
        open_clusters &= labels != labels[pick]
    return True


def test_picks_are_judged_by_the_definition() -> None:
    rng = np.random.default_rng(0)
    judged = set()
    for O, I, clusters in ((12, 5, 4), (20, 1, 3), (6, 8, 6), (5, 3, 1)):
        labels = rng.integers(0, clusters, (O, I))
        order, gains = reference.max_coverage(labels.astype(np.int32), O, 0, "", None)
        checking.picks(labels, order, gains, "reference")
        for _ in range(30):
            other, a, b = order.copy(), *rng.integers(0, O, 2)
            other[[a, b]] = other[[b, a]]
            good = is_greedy(labels, other, gains)
            judged.add(good)
            if good:
                checking.picks(labels, other, gains, "swapped")
            else:
                with pytest.raises(WrongAnswer):
                    checking.picks(labels, other, gains, "swapped")
    assert judged == {True, False}
    with pytest.raises(WrongAnswer, match="different ones"):
        checking.picks(labels, np.zeros(2, np.int64), gains[:2], "twice")


def test_a_pick_with_its_true_gain_can_still_be_too_small() -> None:
    labels = np.array([[0, 0], [0, 0], [1, 1]])
    with pytest.raises(WrongAnswer, match="another filter covers more"):
        checking.picks(labels, np.array([0, 1]), np.array([2, 0]), "lazy")


def test_partition_is_that_of_fcluster() -> None:
    from scipy.cluster import hierarchy

    Z = hierarchy.linkage(points(), "ward")
    for merges in (0, 1, 17, 29):  # "maxclust" of scipy 1.10 makes 28 clusters when asked for all 30
        expected = hierarchy.fcluster(Z, [-1, *Z[:, 2]][merges], "distance")
        assert np.array_equal(checking.partition(Z, merges), checking.first_appearance(expected))


def test_equal_heights_may_come_in_any_order() -> None:
    square = np.array([[0.0, 0], [0, 1], [5, 0], [5, 1]])
    Z = reprune.linkage(square, "single")
    other = Z.copy()
    other[[0, 1], :2] = other[[1, 0], :2]
    checking.same_tree(other, Z, "swapped")


def test_nearly_equal_points_may_round() -> None:
    Z = reprune.linkage(points())
    Z[0, 2], Z[1, 2] = 1e-9, 1e-8
    other = Z.copy()
    other[0, 2] += 1e-16  # 1e-7 relative, but less than rounding of the points can do
    checking.same_tree(other, Z, "rounded")
    other[0, 2] += 1e-13
    with pytest.raises(WrongAnswer, match="off by"):
        checking.same_tree(other, Z, "wrong")


def test_heights_that_are_nan_are_wrong() -> None:
    Z = reprune.linkage(points())
    with pytest.raises(WrongAnswer, match="expected a dendrogram"):
        checking.same_tree(np.full_like(Z, np.nan), Z, "broken")


# time and shapes


def test_turns_and_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def turn(who: str, seconds: list[float]) -> timing.Turn:
        def run() -> dict[str, timing.Seconds]:
            order.append(who)
            took = seconds[order.count(who) - 1]
            return {who: timing.Seconds(took, 2 * took)}

        return run

    found = timing.in_turns([turn("a", [3, 1, 2]), turn("b", [7, 9, 8])], seconds=0)
    assert order == ["a", "b"] * 3
    assert found == {"a": timing.Timing(2, 4, 3), "b": timing.Timing(8, 16, 3)}


def test_cpu_time_leaves_sleep_out() -> None:
    took = timing.clocked(lambda: time.sleep(0.05))
    assert took.wall >= 0.05
    assert took.cpu < 0.04


@pytest.mark.parametrize("before", [None, "5"])
def test_number_of_threads_is_put_back(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("REPRUNE_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("REPRUNE_NUM_THREADS", before)
    with timing.threads(3):
        assert os.environ["REPRUNE_NUM_THREADS"] == "3"
    assert os.environ.get("REPRUNE_NUM_THREADS") == before


def test_scale_counts_the_rows_that_are_left() -> None:
    assert peers.coverage_scale(10, 5, 5) == 1
    assert peers.coverage_scale(10, 2, 1) == pytest.approx(19 / 10)


def test_shapes_of_a_network() -> None:
    pytest.importorskip("torchvision")
    layers = shapes.network("resnet50")
    assert len(layers) == 53
    assert (
        sum(layer.I for layer in layers if layer.d == 1) + sum(layer.I for layer in layers if layer.d > 1)
        == 22531
    )
    assert str(layers[0]) == "64x3x7x7"
    assert layers[0].keep == 32
