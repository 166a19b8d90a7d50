"""The zoo benchmark on a small sample: rows that are right, a run that goes on where it stopped."""

import json

import pytest

pytest.importorskip("torchvision")


@pytest.fixture
def zoo(tmp_path, monkeypatch, capsys):
    """A function of the words of the command: what it prints, the rows, the table."""
    from benchmarks.zoo.__main__ import main

    paths = ["--rows", str(tmp_path / "zoo.jsonl"), "--markdown", str(tmp_path / "zoo.md")]

    def run(*words):
        monkeypatch.setattr("sys.argv", ["zoo", "--suite", "torchvision", *paths, *words])
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
