"""The benchmark of training compares what it says: the criteria's choices, and runs that go on."""

import argparse
import sys

import numpy as np
import pytest
import torch

import reprune

pytest.importorskip("torch_pruning", reason='needs pip install "reprune[bench]"')
from benchmarks.training import accuracy, compensation, criteria, fashion, last_event

OPTIONS = {
    "images": 64,
    "width": 8,
    "epochs": 2,
    "until": 1,
    "side": 14,
    "stride": 1,
    "batch": 16,
    "smoke": True,
}


def network():
    model = fashion.Fashion(argparse.Namespace(**OPTIONS)).network(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, -1, 1)
    return model


def expected(criterion, block):
    """[O] scores, written again."""
    filters = block.conv1.weight.detach().flatten(1).double().numpy()
    gamma = block.bn1.weight.detach().abs().numpy()
    inputs = block.conv2.weight.detach().double().abs().sum((0, 2, 3)).numpy()
    return {
        "L1 (Torch-Pruning)": np.abs(filters).sum(1),
        "group L1 (Torch-Pruning)": np.abs(filters).sum(1) + gamma + inputs,
        "BN gamma": gamma,
        "FPGM": [sum(np.linalg.norm(a - b) for b in filters) for a in filters],
    }[criterion]


@pytest.mark.parametrize("criterion", [name for name in criteria.OTHERS if name != "random"])
def test_the_largest_scores_stay(criterion):
    model, x = network(), torch.randn(1, 1, 14, 14)
    blocks = {f"{n}.conv1": m for n, m in model.named_children() if hasattr(m, "conv1")}
    best = {
        name: sorted(np.argsort(expected(criterion, b))[-b.conv1.out_channels // 2 :])
        for name, b in blocks.items()
    }
    how = criteria.choice(criterion, model, 0)
    plan = reprune.make_plan(model, x, keep={name: len(kept) for name, kept in best.items()}, **how)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = reprune.Pruner(model, optimizer, x, sparsity=0.5, rule="uniform", interval=1, until=1, **how)
    pruner.step()
    for found in (plan, pruner.plan):
        assert {name: list(found.keep[name]) for name in best} == best


def test_runs_go_on_and_the_page_says_what_came_out(tmp_path, monkeypatch):
    """A second start repeats no run; the table has the runs' means."""
    records, markdown = tmp_path / "runs.jsonl", tmp_path / "page.md"
    files = ["--records", str(records), "--markdown", str(markdown)]
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--smoke", *files])
    made = []

    def result(self, run):
        made.append(run)
        if len(made) == 20:
            raise KeyboardInterrupt
        lost = 1 if run.part == "train" else 0
        return {"accuracy": 90.0 - lost, "seconds": 1.0, "flops": run.left, "events": 0.25}

    monkeypatch.setattr(accuracy.Bench, "result", result)
    with pytest.raises(KeyboardInterrupt):
        accuracy.main()
    accuracy.main()
    assert len(set(made)) == len(made) - 1
    lines = markdown.read_text().splitlines()
    assert "| BN gamma, 75 % pruned | 1 | 89.00 | 1.00 | 25.0 % | 1 s | 25.00 % |" in lines
    assert "| FPGM | 1 | 90.00 | 90.00 |" in lines
    monkeypatch.setattr(fashion.Fashion, "__str__", lambda self: "another budget")
    with pytest.raises(SystemExit):
        accuracy.main()


def test_compensation_goes_on_behind_the_last_run(tmp_path, monkeypatch):
    """A second start repeats no run; the tables have the runs' means."""
    records, markdown = tmp_path / "runs.jsonl", tmp_path / "page.md"
    files = ["--records", str(records), "--markdown", str(markdown), "--dense", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compensation.py", "--smoke", *files])
    made = []

    def result(run, data, dense, accuracy):
        made.append(run)
        if len(made) == 5:
            raise KeyboardInterrupt
        found = {"dense": 90.0, "nothing": 20.0, "BatchNorm": 80.0, "compensated": 89.0}
        return {**found, "seconds": 2.0, "flops": 0.5, "left": 0}

    monkeypatch.setattr(compensation, "dense_network", lambda data, folder, seed: data.network(seed))
    monkeypatch.setattr(compensation, "CUTS", ("inner 0.5", "inner 0.25"))
    monkeypatch.setattr(compensation, "result", result)
    monkeypatch.setattr(compensation, "COUNTS", (32,))
    monkeypatch.setattr(compensation, "CRITERIA", compensation.CRITERIA[:3])
    for run in compensation.all_runs(1):
        assert run.images in (32, 256)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [*sys.argv, "--images", "300"])
        patch.setattr(fashion, "parsed", lambda parser: more_images(parser.parse_args()))
        with pytest.raises(KeyboardInterrupt):
            compensation.main()
        compensation.main()
    assert len(set(made)) == len(made) - 1 == 2 * (3 + 5 + 1)
    row = "| 50 % of the inner channels | 50.0 % | random | 1 | 20.00 | 80.00 | 89.00 | 1.00 | 2.0 s |"
    assert row in markdown.read_text().splitlines()


def more_images(options):
    options.images, options.width, options.epochs, options.until = 300, 8, 2, 1
    return options


@pytest.mark.parametrize("cut", compensation.CUTS)
@pytest.mark.parametrize("criterion", compensation.BY_RULE)
def test_counts_by_a_rule_leave_as_many_flops(cut, criterion):
    data = fashion.Fashion(argparse.Namespace(**OPTIONS))
    dense, images = network().eval(), data.sized(data.train[0][:32])
    runs = [compensation.Run(cut, name, 32, 0) for name in (criterion, "covariance")]
    plan, equal = (compensation.plan_of(run, dense, data.example, images) for run in runs)
    before, most = equal.flops
    assert 0.85 * most < plan.flops[1] <= (most if cut.startswith("inner") else 0.25 * before)
    assert plan.settings["rule"] == compensation.RULES[criterion.partition(", ")[2]]
    assert plan.settings.get("criterion") == ("covariance" if criterion[0] == "c" else None)
    assert equal.settings["criterion"] == "covariance"


def test_both_sides_of_a_pair_are_one_training_up_to_the_last_event():
    data = fashion.Fashion(argparse.Namespace(**OPTIONS))
    images = data.sized(data.train[0][:32])
    found = [last_event.Training(data, last_event.Run(1, rest, 0)).result(images) for rest in (0, 1)]
    assert found[0]["plain end"] == found[0]["pruned"]
    assert found[0]["compensated end"] == found[0]["compensated"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reprune, "compensate", lambda *networks: None)
        plain = last_event.Training(data, last_event.Run(1, 1, 0)).result(images)
    assert plain["plain end"] == plain["compensated end"] == found[1]["plain end"]


@pytest.mark.parametrize("cut", compensation.CUTS)
def test_the_figures_of_compensation_are_those_of_the_networks(cut):
    data = fashion.Fashion(argparse.Namespace(**OPTIONS))
    dense = network().eval()
    found = compensation.result(compensation.Run(cut, "random", 32, 0), data, dense, 50.0)
    assert found["dense"] == 50.0
    share = compensation.target(cut, dense)
    small, plan = reprune.prune(dense, data.example, **share, **criteria.choice("random", dense, 0))
    assert found["flops"] == plan.flops[1] / plan.flops[0]
    assert found["nothing"] == data.accuracy(small)
    reprune.compensate(dense, small, plan, data.sized(data.train[0][:32]))
    assert found["compensated"] == data.accuracy(small)
