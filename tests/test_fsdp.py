"""A model that fully_shard has put in parts on several processes is planned and pruned as a plain one."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.processes import run_module

pytestmark = pytest.mark.xdist_group("fsdp")


@pytest.fixture(scope="module")
def found():
    """What worlds of two and of four processes found, in one program that is stopped after minutes."""
    variables = {"OMP_NUM_THREADS": "1", "REPRUNE_NUM_THREADS": "1"}
    if Path("/sys/class/net/lo").exists():
        variables["GLOO_SOCKET_IFNAME"] = "lo"  # no look-up of names
    run = run_module("tests.programs.sharded", variables=variables, timeout=240)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def everyone(found, size, case):
    """What each process of a world of `size` found in `case`; all have ended well."""
    said = found[str(size)][case]
    assert sorted(said) == [str(rank) for rank in range(size)]
    assert not any(isinstance(one, str) for one in said.values()), "\n".join(map(str, said.values()))
    return [said[rank] for rank in sorted(said)]


@pytest.mark.parametrize("size", [2, 4])
def test_the_plan_is_that_of_the_plain_model(found, size):
    assert everyone(found, size, "plans") == [[]] * size


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", ["convolutions SGD", "tokens AdamW"])
def test_weights_states_and_gradients_are_those_of_the_plain_model(found, size, kind):
    """Before and after it is pruned twice, and trained on: to the bit."""
    assert [one[kind] for one in everyone(found, size, "applied")] == [[]] * size


@pytest.mark.parametrize("layout", ["replicated", "columns"])
def test_parts_may_lie_otherwise(found, layout):
    """In two groups that hold the same (HSDP), or along the second dimension."""
    assert [one[layout] for one in everyone(found, 4, "layouts")] == [[]] * 4


def test_one_layer_is_whole_at_a_time(found):
    """In a plan, that of a process and the one that is under way to another."""
    for one in everyone(found, 2, "memory"):
        (plan, largest), (apply, _) = one["plan"], one["apply"]
        assert largest < one["all"] / 4
        assert 0 < plan <= 2 * largest
        assert 0 < apply <= largest


def test_the_twin_is_the_model_before_it_was_sharded(found):
    assert everyone(found, 2, "twins") == [[], []]


REFUSED = {
    "tensor parallel": "TypeError: model: 0.weight is a DTensor that no fully_shard inside it made: tensor",
    "a part": "TypeError: model: 0.weight is a DTensor that no fully_shard inside it made.*or a part",
    "computed": "ValueError: model: it can be followed with its values alone .the weight of 0.* is computed",
    "latency": "ValueError: latency: the parameters of the model are sharded over processes",
    "error": "ValueError: model: expected a model that fully_shard has not sharded; each process alone",
    "nan": "ValueError: model: the weight of expand has NaN or infinite values",
    "prune": "ValueError: model: expected a model that fully_shard has not sharded; make_plan takes it",
    "compensate": "ValueError: dense: expected a model that fully_shard has not sharded; each process alone",
    "in place": "ValueError: model: expected a model that fully_shard has not sharded; .*reprune.fsdp.apply",
    "plain": "TypeError: model: expected one whose parameters fully_shard has sharded; .*reprune.apply",
    "no function": "TypeError: shard: expected a function that shards a model; got None",
    "changes": "ValueError: shard: expected a function that calls fully_shard and .* nothing else; expand",
    "not sharded": "ValueError: shard: expected a function that calls fully_shard; nothing",
    "another optimizer": "ValueError: optimizer: expected one that holds parameters of the model",
    "another model": "ValueError: plan: made for a model whose",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_on_all_processes(found, case):
    for one in everyone(found, 2, "refusals"):
        assert re.match(REFUSED[case], one[case]), one[case]


ALONE = {  # (on process 0, on process 1)
    "plan": ("RuntimeError: make_plan: process 1 failed", "MemoryError: of process 1"),
    "select": ("RuntimeError: make_plan: process 1 failed", "MemoryError: of process 1"),
    "apply": ("RuntimeError: apply: process 1 failed", "MemoryError: of process 1"),
    "plans": ("ValueError: apply: the processes are out of step, .* the plan is",) * 2,
    "states": ("ValueError: apply: the processes are out of step, .* list of the optimizer's states",) * 2,
}


@pytest.mark.parametrize("case", ALONE)
def test_if_one_process_fails_all_hear_of_it_and_nothing_is_changed(found, case):
    for one, expected in zip(everyone(found, 2, "alone"), ALONE[case], strict=True):
        assert re.match(expected, one[case]), one[case]
        assert one[case].endswith("| as before")


def test_files_are_those_of_the_plain_model(found):
    """Also by a plan; and a PyTorch checkpoint of the pruned model fills one that was built of the plan."""
    for one in everyone(found, 2, "saved"):
        assert one["wrong"] == []
        assert re.match("ValueError: model: expected a model that fully_shard has not sharded", one["into"])


def test_all_hear_that_a_file_cannot_be_written(found):
    first, second = (one["nowhere"] for one in everyone(found, 2, "saved"))
    assert first.startswith("FileNotFoundError")
    assert second.startswith("RuntimeError: save: process 0 failed")
