"""Processes that train alike end with one network.

Those that come to an event in different states all raise with the reason, and nothing is changed.
"""

import json
import re
from pathlib import Path

import pytest

import reprune.distributed
from tests.helpers.forked import one_process

OUT_OF_STEP = "ValueError: step: the processes are out of step, .*{}.*nothing was changed"
FAILED = "RuntimeError: step: process 1 failed, so nothing was changed on this one; its error was {}"
EXPECTED = {  # (on process 0, on process 1)
    "settings": (OUT_OF_STEP.format("regrow is 0.5 on process 0 and 0.4 on process 1"),) * 2,
    "modes": (OUT_OF_STEP.format("mode is 'shrink' on process 0 and 'mask' on process 1"),) * 2,
    "weights": (OUT_OF_STEP.format("parameter 3.bias"),) * 2,
    "ahead": (OUT_OF_STEP.format("parameter 0.weight"),) * 2,
    "older": (OUT_OF_STEP.format("epoch is 3 on process 0 and 2 on process 1"),) * 2,
    "no_memory": (FAILED.format("MemoryError: of process 1"), "MemoryError: of process 1"),
    "no_memory_to_move": (FAILED.format("MemoryError: of process 1"), "MemoryError: of process 1"),
    "not_certified": (FAILED.format("ValueError: not certified"), "ValueError: not certified"),
}

pytestmark = one_process


@pytest.fixture(scope="module")
def met(run_forked):
    """What two processes met in each case; as one program, which is stopped after minutes."""
    variables = (
        {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    )  # no look-up of names
    run = run_forked("tests.programs.ranks", variables=variables)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", EXPECTED)
def test_all_raise_and_nothing_is_changed(met, case):
    for text, expected in zip(met[case], EXPECTED[case], strict=True):
        assert re.match(expected, text), text
        assert text.endswith("| as before")


def test_a_training_goes_on_after_the_error(met):
    for text in met["not_finite"]:
        assert "the weight of 0 has NaN" in text
        assert text.endswith("| as before; then no error")
    assert met["not_finite"][0].startswith("RuntimeError: step: process 1 failed")


def test_equal_processes_agree(met):
    assert met["alike"][0] == met["alike"][1]
    assert json.loads(met["alike"][0])


def test_trainings_agree(met):
    """DDP in both modes: after every event plans and weights are identical on every rank."""
    first, second = met["trained"]
    assert first == second
    assert [line.split()[0] for line in first.splitlines()] == ["shrink", "mask"]


def test_a_killed_process_is_an_error_for_the_other(met):
    first, second = met["killed"]
    assert first.startswith("RuntimeError: step: expected all processes at the event, but one has ended")
    assert first.endswith("| as before")
    assert second == ""


def test_one_process_runs_without_a_group():
    agreed, check_alike, shared = (
        getattr(reprune.distributed, n) for n in ("agreed", "check_alike", "shared")
    )
    assert shared(lambda: 3) == [3]
    assert agreed(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        agreed(lambda: 1 // 0)
    check_alike([{"epoch": "1"}])
    check_alike([{"epoch": "1"}, {"epoch": "1"}])
    with pytest.raises(ValueError, match="extra is None on process 0 and 2 on process 1"):
        check_alike([{"epoch": "1"}, {"epoch": "1", "extra": "2"}])
