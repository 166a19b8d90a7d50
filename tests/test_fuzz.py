"""A small part of what fuzz.py does, and that it notices what is wrong."""

import os
import signal

import numpy as np
import pytest

import reprune
from tests.tools import fuzz, fuzz_draw, fuzz_judges

LARGEST = 120


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """Rounds set the number of threads."""
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")


def rounds(stage, count):
    drawn = (fuzz.Round(3, number, LARGEST) for number in range(1000))
    return [r for r in drawn if r.stage == stage and r.n > 3][:count]


def test_thousands_of_random_problems_agree_with_the_oracles(capfd):
    code = fuzz.main(["--problems", "2000", "--seed", "2", "--largest", str(LARGEST)])
    printed = capfd.readouterr().out
    assert code == 0, printed
    assert " 0 failed" in printed


def test_every_kind_layout_and_method_is_drawn():
    drawn = [fuzz.Round(0, number, 1400) for number in range(4000)]
    for what, names in (("kind", fuzz_draw.KINDS), ("layout", fuzz_draw.LAYOUTS), ("method", fuzz.METHODS)):
        assert {getattr(r, what) for r in drawn} == set(names)
    assert {r.threads for r in drawn} == {1, 2, 3, 7}
    assert min(r.n for r in drawn) == 2
    assert max(r.n for r in drawn) > 700


@pytest.mark.parametrize("layout", fuzz_draw.LAYOUTS)
def test_layouts_keep_the_values(layout):
    batch = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_array_equal(np.stack(list(fuzz_draw.laid_out(batch, layout))), batch)


def off(column, change):
    def broken(points, method="ward", right=reprune.linkage):
        trees = [Z.copy() for Z in right(points, method)]
        for Z in trees:
            Z[..., column] = change(Z[..., column])
        return trees

    return broken


def by_threads(points, method="ward", right=reprune.linkage):
    return right(points, method if os.environ["REPRUNE_NUM_THREADS"] == "1" else "single")


LINKAGE = {
    "heights off in the last bit": off(2, lambda h: h * (1 + 2.0**-52)),
    "heights that fall": off(2, lambda h: h[::-1]),
    "other sizes": off(3, lambda s: s + 1),
    "other merges": off(slice(0, 2), lambda ids: ids[..., ::-1]),
    "another method": lambda points, method="ward", right=reprune.linkage: right(points, "complete"),
    "another answer on threads": by_threads,
}


@pytest.mark.parametrize("fault", LINKAGE)
def test_a_wrong_linkage_is_noticed(fault, monkeypatch):
    monkeypatch.setattr(reprune, "linkage", LINKAGE[fault])
    assert any(r.run() for r in rounds("linkage", 12))


@pytest.mark.parametrize("name, stage", [("select_filters", "select"), ("max_coverage", "cover")])
def test_other_picks_are_noticed(name, stage, monkeypatch):
    right = getattr(reprune, name)

    def broken(*args, seed=0, backend, **how):
        return right(*args, seed=seed + (backend == "cpp"), backend=backend, **how)

    monkeypatch.setattr(reprune, name, broken)
    assert any(r.run() for r in rounds(stage, 6))


def test_a_wrong_cut_is_noticed(monkeypatch):
    right = reprune.cut
    monkeypatch.setattr(reprune, "cut", lambda Z, height, backend: right(Z, height * (1 - 1e-9)))
    assert any(r.run() for r in rounds("cut", 6))


@pytest.mark.parametrize("method", fuzz.METHODS)
def test_the_replay_tells_greedy_runs_from_others(method):
    batch = np.random.default_rng(0).integers(4, size=(20, 12, 2)).astype(float)  # many ties
    trees = list(reprune.linkage(batch, method))
    assert len(fuzz_judges.unlike_greedy(batch, trees, method)) == 0
    trees[7] = reprune.linkage(batch[7], "average" if method != "average" else "ward")
    assert fuzz_judges.unlike_greedy(batch, trees, method).tolist() == [7]


@pytest.mark.parametrize("end", ["crash", "hang"])
def test_a_round_that_ends_the_process_is_one_failure(end, monkeypatch, capfd):
    run = fuzz.Round.run

    def ends(r):
        if r.number == 1:
            while end == "hang":
                pass
            os.kill(os.getpid(), signal.SIGKILL)  # SIGSEGV would print a page
        return run(r)

    monkeypatch.setattr(fuzz.Round, "run", ends)
    arguments = ["--problems", "300", "--seed", "4", "--largest", "20", "--patience", "1"]
    assert fuzz.main(arguments) == 1
    printed = capfd.readouterr().out
    assert " 1 failed" in printed
    assert "--round 1" in printed
