"""Kernels compiled without a GPU: registers, spills, instructions per distance; other chips' compilers."""

import json

import pytest

from tests.helpers.forked import one_process
from tests.helpers.ptx import benchmarks, needs_nvcc, needs_triton, older_triton

pytestmark = needs_triton


def report(variant, target):
    _, binaries, _ = benchmarks()
    return binaries.report_of(variant, target, variant.compile(target))


@pytest.mark.skipif(older_triton, reason="the bounds are for the assembler that Triton 3.8 brings")
@pytest.mark.parametrize(
    "d, n, target",
    [
        (9, 512, "sm_90"),
        (9, 64, "sm_80"),
        *(
            pytest.param(d, n, target, marks=pytest.mark.slow)
            for d, n, target in [
                *((9, n, "sm_90") for n in (64, 256, 2048)),
                *((9, n, "sm_80") for n in (256, 512, 2048)),
                *((9, n, "sm_100") for n in (64, 512)),
                *((d, 512, "sm_90") for d in (4, 16, 25, 49, 128)),
            ]
        ),
    ],
)
def test_ward_spills_little(d, n, target):  # for any number of points of a tile: it is no constant
    own = report(benchmarks()[0].ward_variant(d, n, target), target)
    assert own.stack <= (32 if d <= 16 else 2048)  # kernels of 5x5 and more do spill
    if d == 9:
        assert own.per_pair <= 24
        # else the count missed a part of the loop; Blackwell adds and multiplies two float32 at once
        assert own.per_pair >= (d / 2 if target == "sm_100" else d) + 6
    assert own.warps >= 12


@pytest.mark.parametrize("d", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_the_rule_spills_little(d):
    assert report(benchmarks()[0].rule_variant(d), "sm_90").stack <= 32


@pytest.mark.parametrize("n", [64, pytest.param(2048, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["label_variant", "line_variant"])
def test_the_others_spill_nothing(name, n):
    assert report(getattr(benchmarks()[0], name)(n), "sm_90").stack == 0


@pytest.mark.slow
def test_other_linkages_spill_nothing():
    assert [report(own, "sm_90").stack for own in benchmarks()[0].square_variants(512)] == [0] * 5


@pytest.mark.parametrize("d, n", [(1, 300), pytest.param(9, 512, marks=pytest.mark.slow)])
def test_amd_compiles(d, n):
    variants = benchmarks()[0]
    own = report(
        variants.line_variant(n, "gfx942") if d == 1 else variants.ward_variant(d, n, "gfx942"), "gfx942"
    )
    assert own.stack == 0


@needs_nvcc
@one_process
def test_the_script_writes_its_table(tmp_path, run_forked):
    out = tmp_path / "rows.json"
    words = ["--target", "sm_90", "--only", "cover random", "label n=64"]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- aot.py -->\nold\n<!-- end of aot.py -->\nafter\n")
    words += ["--json", str(out), "--emit", str(tmp_path), "--write", str(page)]
    run = run_forked("benchmarks.gpu.aot", *words)
    assert run.returncode == 0, run.stderr
    rows = json.loads(out.read_text())
    assert [row["variant"] for row in rows] == ["label n=64", "cover random"]
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
    assert [line.split(" |")[0] for line in table[2:]] == ["| label n=64", "| cover random"]
    assert f"| {rows[1]['registers']} · 0 · " in table[3]
