# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Find the cut height of each layer and label the clusters of each of its problems below it."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=range(3))  # type: ignore[untyped-decorator]
def height_kernel(problems, tops, cuts, N: tl.constexpr):
    """Raise the cut of a problem's layer to the height of its `merges`-th merge, if that is larger.

    `problems` int64 [problems, 5]: points, where results begin, layer, merges, number. `tops` float64, as
    kernels/ward.py leaves it; `cuts` int64 [layers]: the bits of float64, zero before. The bits of numbers
    >= 0 are ordered as the numbers are, so the merge is found bit by bit.
    """
    problem = problems + 5 * tl.program_id(0)
    n = tl.load(problem)
    k = tl.load(problem + 3)
    i = tl.arange(0, N)
    height = tl.load(tops + tl.load(problem + 1) + i, mask=i < n, other=float("inf"))
    bits = height.to(tl.int64, bitcast=True)
    found = tl.zeros((), tl.int64)
    bit = tl.full((), 1 << 62, tl.int64)
    while bit > 0:  # the largest number with fewer than k heights below it is the k-th height
        trial = found | bit
        if tl.sum((bits < trial).to(tl.int32), 0) < k:
            found = trial
        bit = bit >> 1
    tl.atomic_max(cuts + tl.load(problem + 2), found, mask=k > 0, sem="relaxed")


@triton.jit(do_not_specialize_on_alignment=range(6))  # type: ignore[untyped-decorator]
def label_kernel(problems, up, tops, cuts, labels, clusters, N: tl.constexpr):
    """Write the labels [n] of a problem's points below its layer's cut, and the number of clusters.

    A point's cluster is known by its lowest point, which the links `up` lead to: a point that is not joined
    to a lower one below the cut. The number of such points before it is the cluster's label.
    """
    problem = problems + 5 * tl.program_id(0)
    n = tl.load(problem)
    place = tl.load(problem + 1)
    up += place
    tops += place
    labels += place
    cut = tl.load(cuts + tl.load(problem + 2)).to(tl.float64, bitcast=True)
    i = tl.arange(0, N)
    inside = i < n
    root = i
    climbs = tl.load(tops + i, mask=inside, other=float("inf")) <= cut
    first = inside & (climbs == 0)
    while tl.max(climbs.to(tl.int32), 0) > 0:
        root = tl.where(climbs, tl.load(up + root, mask=climbs, other=0), root)
        climbs = climbs & (tl.load(tops + root, mask=climbs, other=float("inf")) <= cut)
    tl.store(clusters + tl.load(problem + 4), tl.sum(first.to(tl.int32), 0))
    label = tl.cumsum(first.to(tl.int32), 0) - 1
    tl.store(labels + i, label, mask=first)
    tl.debug_barrier()
    label = tl.load(labels + root, mask=inside, other=0)
    tl.store(labels + i, label, mask=inside & (first == 0))  # those of first points are read by others
