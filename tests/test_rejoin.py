"""The states of a training on several processes are made those of any other number."""

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from reprune.modules.sharded import Piece
from reprune.pruner.rejoin import places_of, rejoined


class Mesh:
    """Processes in a grid, of which this is the one at `at`."""

    def __init__(self, sizes, at):
        self.sizes, self.at = sizes, at

    def size(self, axis):
        return self.sizes[axis]

    def get_coordinate(self):
        return self.at


FULL = {
    "model/up.weight": torch.arange(35.0).reshape(5, 7),
    "state/exp_avg/up.weight": torch.arange(35.0).reshape(5, 7) + 100,
    "copy0/down.bias": torch.arange(5.0) + 200,
}
SHAPES = {"up.weight": (5, 7), "down.bias": (5,)}
WORLDS = {  # (processes in a grid, how the two dimensions of the grid lie in a tensor)
    "one": [()],
    "two": [(Mesh((2,), (k,)), (Shard(0),)) for k in range(2)],
    "four, of which one has nothing": [(Mesh((4,), (k,)), (Shard(0),)) for k in range(4)],
    "twice two": [(Mesh((2, 2), (a, b)), (Replicate(), Shard(0))) for a in range(2) for b in range(2)],
}


def pieces_of(own):
    return {name: Piece(shape, *own) for name, shape in SHAPES.items()}


def state(own, **more):
    """What a process saves that has these pieces."""
    pieces = pieces_of(own)
    places = places_of(list(FULL), pieces)
    store = {
        key: full[tuple(slice(*places.get(key, {}).get(d, (0, n))) for d, n in enumerate(full.shape))].clone()
        for key, full in FULL.items()
    }
    return {"epoch": 3, "alive": torch.ones(4, dtype=torch.bool), "store": store, "places": places, **more}


@pytest.mark.parametrize("now", WORLDS)
@pytest.mark.parametrize("before", WORLDS)
def test_any_number_of_processes_resumes(before, now):
    saved = [state(own) for own in WORLDS[before]]
    for own in WORLDS[now]:
        found, expected = rejoined(saved, pieces_of(own)), state(own)
        assert found["places"] == expected["places"]
        assert all(torch.equal(found["store"][key], values) for key, values in expected["store"].items())
        assert found["epoch"] == 3


def test_a_state_of_this_process_or_of_an_earlier_version_is_taken_as_it_is():
    own = WORLDS["two"][1]
    saved = state(own)
    earlier = {key: value for key, value in saved.items() if key != "places"}
    assert rejoined(saved, pieces_of(own)) is saved
    assert rejoined(earlier, pieces_of(own)) is earlier


def test_a_state_of_a_plain_model_fits_all_processes():
    for own in WORLDS["two"]:
        found = rejoined(state(()), pieces_of(own))
        assert torch.equal(found["store"]["copy0/down.bias"], state(own)["store"]["copy0/down.bias"])


TWO = WORLDS["two"]
WRONG = {
    "nothing": ([], TypeError, "a list of what state_dict returned on each process"),
    "a number": (3, TypeError, "expected what state_dict returned, or a list of such; got 3"),
    "text": ("state.pt", TypeError, "or a list of such"),
    "one of two": ([state(TWO[0])], ValueError, "parts of 'model/up.weight' are missing.*, not of 1"),
    "another's": (state(TWO[0]), ValueError, "parts of 'model/up.weight' are missing"),
    "one of them twice": ([state(TWO[0])] * 2, ValueError, "are missing"),
    "epochs": ([state(TWO[0]), state(TWO[1], epoch=4)], ValueError, "number 1 differs .* in 'epoch'"),
    "channels": (
        [state(TWO[0]), state(TWO[1], alive=torch.zeros(4, dtype=torch.bool))],
        ValueError,
        "number 1 differs from the first one in 'alive'",
    ),
    "tensors": ([state(TWO[0]), state(TWO[1], store={})], ValueError, "number 1 stores other tensors"),
    "shapes": (
        [{**state(TWO[0]), "store": state(WORLDS["one"][0])["store"]}, state(TWO[1])],
        ValueError,
        r"'model/up.weight' has shape \(5, 7\), which is not where it says",
    ),
}


UP = "model/up.weight"
DAMAGED = {
    "nothing is stored": lambda one: one["store"].update({UP: None}),
    "numbers are stored": lambda one: one["store"].update({UP: [1.0, 2.0]}),
    "no values are stored": lambda one: one["store"].update({UP: one["store"][UP].to("meta")}),
    "sparse ones are stored": lambda one: one["store"].update({UP: one["store"][UP].to_sparse()}),
    "no places": lambda one: one.update(places=None),
    "a list of places": lambda one: one.update(places=[1]),
    "no place": lambda one: one["places"].update({UP: None}),
    "a number as place": lambda one: one["places"].update({UP: {0: 3}}),
    "words as place": lambda one: one["places"].update({UP: {0: ("a", "b")}}),
    "fractions as place": lambda one: one["places"].update({UP: {0: (2.0, 4.0)}}),
    "arrays": lambda one: one.update(alive=one["alive"].numpy()),
}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_one_among_several_is_refused(case, which):
    states = [state(own) for own in TWO]
    DAMAGED[case](states[which])
    with pytest.raises(ValueError, match=r"number 1 differs|number \d is damaged.*nothing was loaded"):
        rejoined(states, pieces_of(WORLDS["four, of which one has nothing"][0]))


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_belong_together_is_refused(case):
    saved, kind, said = WRONG[case]
    with pytest.raises(kind, match=said):
        rejoined(saved, pieces_of(WORLDS["four, of which one has nothing"][2]))
