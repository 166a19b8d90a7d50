"""Kernels compiled without a GPU: registers, spills, instructions per distance; other chips' compilers."""

import json

import pytest
import torch

from tests.helpers.processes import run_module
from tests.helpers.ptx import benchmarks, needs_nvcc, needs_triton

pytestmark = needs_triton


def report(variant, target):
    _, binaries, _ = benchmarks()
    return binaries.report_of(variant, target, variant.compile(target))


@pytest.mark.parametrize(
    "d, target",
    [(1, "sm_90"), (4, "sm_90"), (9, "sm_80"), (9, "sm_90"), (9, "sm_100"), (25, "sm_90"), (49, "sm_90")],
)
def test_ward_in_float32_spills_nothing(d, target):  # for any number of points: it is no constant
    own = report(benchmarks()[0].ward_variant(d, torch.float32, target), target)
    assert own.stack == 0
    if d == 9:
        assert own.per_pair <= 34
        # else the count missed a part of the loop; Blackwell adds and multiplies two float32 at once
        assert own.per_pair >= (d if target == "sm_100" else 2 * d) + 8
    assert own.warps >= 12


@pytest.mark.parametrize("double", [False, True])
def test_eight_rows_of_float64_just_fit_on_hopper(double):
    own = report(benchmarks()[0].ward_variant(9, torch.float64, "sm_90", DOUBLE=double), "sm_90")
    assert own.stack == 0
    assert own.warps == 8


@pytest.mark.parametrize("n", [64, 2048])
@pytest.mark.parametrize("name", ["height_kernel", "label_kernel"])
def test_the_cut_spills_nothing(name, n):
    from reprune.kernels import cut

    assert report(benchmarks()[0].cut_variant(getattr(cut, name), n), "sm_90").stack == 0


def test_amd_compiles():
    own = report(benchmarks()[0].ward_variant(9, torch.float32, "gfx942"), "gfx942")
    assert own.stack == 0
    assert own.per_pair <= 34


@needs_nvcc
def test_the_script_writes_its_table(tmp_path):
    out = tmp_path / "rows.json"
    words = ["--target", "sm_90", "--only", "cover random", "height n=64"]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- aot.py -->\nold\n<!-- end of aot.py -->\nafter\n")
    words += ["--json", str(out), "--emit", str(tmp_path), "--write", str(page)]
    run = run_module("benchmarks.gpu.aot", *words)
    assert run.returncode == 0, run.stderr
    rows = json.loads(out.read_text())
    assert [row["variant"] for row in rows] == ["height n=64", "cover random"]
    for row, threads in zip(rows, (32, 512), strict=True):
        assert f"| {row['variant']} | sm_90 | {row['registers']} | 0 |" in run.stdout
        stem = f"{row['variant']}-sm_90".replace(" ", "-")
        launch = json.loads((tmp_path / f"{stem}.json").read_text())
        assert f".entry {launch['kernel']}(" in (tmp_path / f"{stem}.ptx").read_text()
        assert launch["threads"] == threads
        assert all(launch["arguments"].values())
    before, _, *table, _, after = page.read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert table[0] == "| variant | sm_90 |"
    assert [line.split(" |")[0] for line in table[2:]] == ["| height n=64", "| cover random"]
    assert f"| {rows[1]['registers']} · 0 · " in table[3]
