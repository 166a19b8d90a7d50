"""The zoo benchmark on a small sample: rows that are right, a run that goes on where it stopped."""

import json

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")


@pytest.fixture
def zoo(tmp_path, monkeypatch, capsys):
    """A function of the words of the command: what it prints, the rows, the table."""
    from benchmarks.zoo.__main__ import main

    paths = ["--rows", str(tmp_path / "zoo.jsonl"), "--markdown", str(tmp_path / "zoo.md")]

    def run(*words):
        monkeypatch.setattr("sys.argv", ["zoo", "--suite", "torchvision", *paths, *words])  # the last counts
        main()
        lines = (tmp_path / "zoo.jsonl").read_text().splitlines()
        return (
            capsys.readouterr().out,
            [json.loads(line) for line in lines],
            (tmp_path / "zoo.md").read_text(),
        )

    return run


@pytest.mark.slow
def test_a_classifier_and_a_detector(zoo):
    sample = ["--only", "squeezenet1_1", "ssdlite320_mobilenet_v3_large", "--columns", "exact"]
    _, rows, table = zoo(*sample)
    assert [row["kind"] for row in rows] == ["classifier", "detector"]
    for row in rows:
        assert row["problems"] == {}
        assert max(row["error"], row["error_training"]) < 1e-9
        assert 0.49 <= row["reached"] <= 0.5
        assert row["channels_internal"] > 0.6
    assert "| squeezenet1_1 | 1,235,496 |" in table
    assert "1 networks, 0 with a failure.  1 of 1 equal their masked form" in table
    said, again, _ = zoo(*sample)
    assert said == ""
    assert again == rows


def test_a_network_that_takes_too_long_gets_a_row(zoo):
    _, (row,), table = zoo("--only", "resnet18", "--columns", "exact", "--timeout", "0.5")
    assert row["problems"] == {"process": "not done after 0.5 s"}
    assert "- resnet18, process: not done after 0.5 s" in table
    assert "1 networks, 1 with a failure.  0 of 0 equal" in table


@pytest.mark.slow
def test_a_detector_beside_torch_pruning(zoo):
    pytest.importorskip("torch_pruning")
    _, (ours, theirs), table = zoo("--suite", "yolo", "--only", "csp", "--columns", "exact", "peer")
    assert ours["problems"] == theirs["problems"] == {}
    assert max(ours["error"], ours["error_training"], theirs["peer_error"]) < 1e-9
    assert ours["reached"] <= 0.5
    assert theirs["peer_reached"] < 0.3
    assert "1 pruned, of which 1 equal their masked form" in table
    assert "Torch-Pruning: 1 of 1 ran, of which 1 equal the dense network" in table


def test_what_left_is_found_by_its_values():
    from benchmarks.zoo.peer import distinct, left_out, zeroed

    torch.manual_seed(0)
    dense = distinct(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double())
    small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    small[0].weight.data, small[0].bias.data = dense[0].weight.data[[0, 3]], dense[0].bias.data[[0, 3]]
    small[2].weight.data, small[2].bias.data = dense[2].weight.data[:, [0, 3]], dense[2].bias.data
    gone = left_out(dense, small)
    assert {name: {d: list(p) for d, p in dims.items()} for name, dims in gone.items()} == {
        "0.weight": {0: [1, 2]},
        "0.bias": {0: [1, 2]},
        "2.weight": {1: [1, 2]},
    }
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(zeroed(dense, gone)(x), small(x))
    small[0].weight.data[0, 0] += 1
    with pytest.raises(ValueError, match=r"0\.weight: has values"):
        left_out(distinct(dense), small)


def test_the_newest_plan_counts_and_messages_are_plain(zoo, tmp_path):
    row = {"name": "a", "kind": "video", "columns": ["exact"], "problems": {}, "reached": 0.8}
    row["problems"] = {"onnx": "Error: \x1b[96mred\x1b[0m <b>"}
    lines = [{**row, "out_of_reach": "at least 0.77"}, {**row, "reached": 0.5}]
    (tmp_path / "zoo.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, _, table = zoo("--table")
    assert "out of reach" not in table
    assert "0.77" not in table
    assert "| 0.5000 |" in table
    assert "- a, onnx: Error: red &lt;b>" in table
