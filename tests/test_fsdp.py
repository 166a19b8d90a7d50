"""A model that fully_shard has put in parts on several processes is planned and pruned as a plain one."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.forked import one_process
from tests.helpers.versions import SHARDED_ON_CPU

pytestmark = [
    one_process,
    pytest.mark.skipif(not SHARDED_ON_CPU, reason="this torch does not run sharded models on the CPU"),
]


def worlds(run_forked, which):
    """What each process of worlds of two and of four found, in one program that is stopped after minutes."""
    variables = (
        {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    )  # no look-up of names
    run = run_forked("tests.programs.sharded", which, variables=variables)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def found(run_forked):
    return worlds(run_forked, "usual")


def everyone(found, size, case):
    """What each process of a world of `size` found in `case`; all have ended well."""
    said = [one[case] for one in found[str(size)]]
    assert len(said) == int(size)
    assert not any(isinstance(one, str) for one in said), "\n".join(map(str, said))
    return said


def test_the_plan_is_that_of_the_plain_model(found):
    assert everyone(found, 2, "plans") == [[], []]


def test_what_apply_makes_is_what_it_makes_of_the_plain_model(found):
    """Weights, states and gradients, twice and when it is trained on: to the bit."""
    assert everyone(found, 2, "tokens") == [[], []]


@pytest.mark.parametrize("layout", ["rows", "replicated", "columns"])
def test_parts_may_be_few_rows_or_lie_otherwise(found, layout):
    """One process has none of five rows; two groups hold the same (HSDP); or along the second dimension.

    So it is also if one process has failed at the last tensor before.
    """
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
    "save_training": "ValueError: model: expected a model that fully_shard has not sharded; each process",
    "no shard": "ValueError: shard: expected the function that shards the model, .* got None; or use mode",
    "shard of a plain model": "ValueError: shard: expected None for a model that fully_shard has not",
    "copies": "ValueError: copies: expected none",
    "parallel in training": "TypeError: model: 0.weight is a DTensor that no fully_shard inside it made",
    "prune": "ValueError: model: expected a model that fully_shard has not sharded; make_plan takes it",
    "compensate": "ValueError: dense: expected a model that fully_shard has not sharded; each process alone",
    "in place": "ValueError: model: expected a model that fully_shard has not sharded; .*reprune.fsdp.apply",
    "plain": "TypeError: model: expected one whose parameters fully_shard has sharded; .*reprune.apply",
    "no function": "TypeError: shard: expected a function that shards a model; got None",
    "changes": "ValueError: shard: expected a function that calls fully_shard and .* nothing else; expand",
    "not sharded": "ValueError: shard: expected a function that calls fully_shard; nothing",
    "another optimizer": "ValueError: optimizer: expected one that holds parameters of the model",
    "gradients": "ValueError: model: it holds gradients that were not reduced over the processes",
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
    for one in everyone(found, 2, "files"):
        assert one["wrong"] == []
        assert re.match("ValueError: model: expected a model that fully_shard has not sharded", one["into"])


def test_all_hear_that_a_file_cannot_be_written(found):
    first, second = (one["nowhere"] for one in everyone(found, 2, "files"))
    assert first.startswith("FileNotFoundError")
    assert second.startswith("RuntimeError: save: process 0 failed")


@pytest.mark.parametrize("mode", ["mask", "shrink"])
def test_a_training_is_that_of_the_plain_model(found, mode):
    """Weights, statistics, gradients, states and plans, after events and at the end: to the bit."""
    assert everyone(found, 2, mode) == [[], []]


@pytest.mark.slow
def test_other_networks_and_optimizers_and_resumed_trainings(run_forked):
    for size, processes in worlds(run_forked, "more").items():
        for case in processes[0]:
            said = everyone({size: processes}, size, case)
            assert [one["wrong"] if case == "files" else one for one in said] == [[]] * int(size), case


INTERRUPTED = {  # (on process 0, on process 1)
    "nan": ("RuntimeError: step: process 1 failed", "ValueError: model: the bias of expand has NaN"),
    "shard": ("RuntimeError: step: process 1 failed", "MemoryError: of process 1"),
}


@pytest.mark.parametrize("case", ["mask nan", "shrink nan", "shrink shard"])
def test_if_one_process_fails_at_an_event_the_training_can_go_on(found, case):
    mode, _, what = case.partition(" ")
    for one, expected in zip(everyone(found, 2, "interrupted"), INTERRUPTED[what], strict=True):
        assert one[case].startswith(expected), one[case]
        assert one[case].endswith("| as before")
        assert one[f"{mode} then"] == "no error"


@pytest.mark.parametrize("work", ["apply", "event"])
def test_if_one_process_fails_at_any_tensor_all_go_back(found, work):
    """Of the first, one in the middle and the last: then all is as before, to the bit, and learns on."""
    assert everyone(found, 2, f"{work} fails") == [[], []]


def test_a_model_that_was_pruned_is_used_up(found):
    """Who still uses it hears of the new one; others who refer to its memory have their values."""
    for one in everyone(found, 2, "used up"):
        assert one["kept"]
        assert one["old model"] == 3 * one["old model"][:1]
        assert one["old model"][0].startswith("RuntimeError: model: expected the one that reprune made of")


def test_all_hear_that_there_is_no_way_back(found):
    for one in everyone(found, 2, "used up"):
        assert re.match("RuntimeError: apply: .* could not go back .* continue from a", one["no way back"])


@pytest.mark.parametrize("work", ["apply", "an event"])
def test_no_process_holds_a_second_model(found, work):
    """At most 1.3 times its share of weights, momentum and what is stored, and the largest layer."""
    for one in everyone(found, 2, "shares"):
        if one is None:
            pytest.skip("the C library does not tell how much memory it has given")
        _, peak, limit = one[work]
        assert peak <= limit
