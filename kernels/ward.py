# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Link one problem per program by Ward, d > 1: rounds that merge all pairs of nearest neighbours at once.

Ward's cost is reducible, so merging every pair of clusters that are each other's nearest neighbour, in any
order, gives the dendrogram of the greedy algorithm (Bruynooghe 1977), as long as nothing else is as near. A
round

1. evaluates the neighbours of stale clusters: those just merged, and those whose neighbour was. First those
   that the cluster tracks (kernels/decide.py), then all, in float32 (kernels/scan.py), then, where float32
   cannot tell, in float64 by the formula of the C++ core;
2. merges the pairs: the cluster at the higher position becomes the union, in place (kernels/merge.py);
3. closes the gaps. The order of positions stays.

A stale cluster's last cost bounds the next one from below, for nothing comes nearer. While that bound is
above the geometric mean of all costs the cluster is not evaluated again: it would hardly be merged, and be
stale again. The cheapest pair of all is always evaluated, so every round merges.

Where two merges cost the same to within rounding the order matters, and heights would not be those of other
backends to the last bit: such a problem is given up (FLAG) and left to kernels/rule.py, which does what the
rule says, one merge after the other.

A selection needs only the merges up to the cut of its layer, and it takes two launches to know that. The
first goes on until the problem has made its own `merges`, and from then on only up to the height of the last
of them (the ceiling). The second goes on from there to the cut of the layer, if that is higher.

The state of a problem is described in kernels/state.py.
"""

import triton
import triton.language as tl

from .cut import kth
from .decide import decide, list_stale, resolve
from .merge import close_gaps, merge
from .place import measure, place
from .problem import MERGES, TABLE, part_of, places_of, source_of
from .scan import scan
from .state import REALS, WORDS

WHOLE = tl.constexpr(0)  # phases: the whole tree
OWN = tl.constexpr(1)  # up to the problem's own merges
ON = tl.constexpr(2)  # from there to the cut of its layer

LEFT = tl.constexpr(0)  # columns of `status`: clusters left
DONE = tl.constexpr(1)  # merges done
FLAG = tl.constexpr(2)  # 0, or the phase (counted from 1) in which rounding would have decided
STATUS = tl.constexpr(4)

DOWN = tl.constexpr(0)  # columns of `scales`: the factor of scans
REACHED = tl.constexpr(1)  # the height of the problem's own last merge
NOISE = tl.constexpr(2)
SCALES = tl.constexpr(4)


@triton.jit
def begin_tree(parents, heights, n, equal, B: tl.constexpr):
    """Begin with nothing merged; or, if all points are equal, with each merged into the next."""
    for p0 in range(0, n, B):
        p = p0 + tl.arange(0, B)
        last = (p == n - 1) | (equal == 0)
        tl.store(parents + p, tl.where(last, p, p + 1), mask=p < n)
        tl.store(parents + n + p, p + 2, mask=(p < n) & (last == 0))
        tl.store(parents + 2 * n + p, p, mask=p < n)
        tl.store(heights + p, tl.where(last, float("inf"), 0.0), mask=p < n)


@triton.jit
def ceiling_of(height, down):
    """Return a height as a cost of scans, rounded up."""
    x = height * down
    return (x * x * 0.500005).to(tl.float32) + 1e-30


# as without a device: nothing gains from aligned pointers, and slices of tensors would compile again
@triton.jit(do_not_specialize=["first", "phase"], do_not_specialize_on_alignment=range(10))
def ward_kernel(
    parts,  # int64 [parts, 13] and
    programs,  # int32 [programs, 2]: as kernels/parts.py writes them
    points,  # float32: `reals` of all problems, scratch; kept from one launch to the next, as are
    state,  # int32: `words` of all
    sums,  # float64: `totals` of all
    status,  # int32 [programs of the launch, 4]: what became of a problem
    scales,  # float64 [programs of the launch, 4]
    links,  # int32 [3, n] each: the id that a cluster is merged into; points of both; its merge's number
    heights,  # float64 [n] each: at this height; infinity for n - 1, and for what is not merged
    cuts,  # int64 [tables]: bits of the largest height of the problems' own last merges
    first,  # program of this launch
    phase,
    DOUBLE: tl.constexpr,  # float64 points
    D: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
    PTX: tl.constexpr,
):
    pid = tl.program_id(0)
    part, k, n = part_of(parts, programs, first + pid)
    begin, position, total = places_of(part, k, n)
    merges = tl.load(part + MERGES).to(tl.int32)
    reals = points + position * (D + REALS)
    words = state + position * WORDS
    totals = sums + total * D
    parents = links + 3 * begin
    heights += begin
    status += STATUS * pid
    scales += SCALES * pid
    cut = cuts + tl.load(part + TABLE)
    m = n
    done = 0
    listed = n
    new = 1
    flag = 0
    given = 0
    go = 1
    ceiling = tl.full((), float("inf"), tl.float32)
    down = tl.zeros((), tl.float64)
    noise = tl.zeros((), tl.float32)
    if phase == ON:
        m = tl.load(status + LEFT)
        done = tl.load(status + DONE)
        given = tl.load(status + FLAG)
        flag = given
        down = tl.load(scales + DOWN)
        noise = tl.load(scales + NOISE).to(tl.float32)
        layer = tl.load(cut).to(tl.float64, bitcast=True)
        ceiling = ceiling_of(layer, down)
        new = 0
        go = ((flag == 0) & (m > 1) & (layer > tl.load(scales + REACHED))).to(tl.int32)
        if go != 0:
            listed, _ = list_stale(reals, words, m, ceiling, D, B)
    else:
        source, next_point, next_coordinate = source_of(part, k, DOUBLE)
        largest, squared, flag = measure(source, totals, n, next_point, next_coordinate, DOUBLE, D, B)
        equal = (largest == 0).to(tl.int32)
        begin_tree(parents, heights, n, equal, B)
        go = ((flag == 0) & (equal == 0) & ((phase != OWN) | (merges > 0))).to(tl.int32)
        if equal != 0:
            m = 1
            done = n - 1
        tl.debug_barrier()
        if go != 0:
            down, noise = place(
                source, reals, words, totals, n, next_point, next_coordinate, largest, squared, D, B
            )
    tl.debug_barrier()
    while (m > 1) & (go != 0):
        if listed > 0:
            if new != 0:
                scan(reals, words, n, n, noise, D, R, B, True, PTX)
            else:
                listed = resolve(reals, words, listed, ceiling, noise, D, B, PTX)
                tl.debug_barrier()
                scan(reals, words, listed, m, noise, D, R, B, False, PTX)
            tl.debug_barrier()
            decide(reals, words, totals, parents, heights, parents + n, listed, m, n, new, D, B)
            tl.debug_barrier()
        new = 0
        left, done, levels, tied = merge(
            reals, words, totals, parents, heights, parents + n, down, n, m, done, D, B
        )
        tl.debug_barrier()
        if tied > 0:
            flag = 1
            go = 0
        elif left == m:  # because clusters wait, or all that is within the ceiling is done, or for ties
            listed, tied = list_stale(reals, words, m, ceiling, D, B)
            if listed == 0:
                go = 0
                if (tied > 0) | (ceiling == float("inf")):
                    flag = 1
        else:
            if phase == OWN:  # noqa: SIM102
                if (done >= merges) & (ceiling == float("inf")):
                    bits = kth(heights, n, merges, 26, B) | 0x1FFFFFFFFF
                    ceiling = ceiling_of(bits.to(tl.float64, bitcast=True), down)
                    tl.debug_barrier()  # functions that are called use the same shared memory
            most = levels // m
            if left <= B:
                most = 0x7FFFFFFF
            listed = close_gaps(reals, words, m, left, most, ceiling, D, B)
        tl.debug_barrier()
        m = left
    if phase != ON:
        reached = tl.zeros((), tl.int64)
        if (merges > 0) & (flag == 0):
            reached = kth(heights, n, merges, 63, B)
            tl.atomic_max(cut, reached, sem="relaxed")
        tl.store(scales + DOWN, down)
        tl.store(scales + REACHED, reached.to(tl.float64, bitcast=True))
        tl.store(scales + NOISE, noise.to(tl.float64))
        tl.store(status + FLAG, flag)
    elif flag != given:
        tl.store(status + FLAG, 2)
    tl.store(status + LEFT, m)
    tl.store(status + DONE, done)
