"""Provide Triton kernels and their host sides, installed as `reprune.kernels`.

parts       which problems share a launch, and what kernels read about them
problem     how a kernel reads that
linkage     Ward's linkage of many problems: the host side of ward, line and rule
ward        one problem per program: rounds that merge all pairs of mutual nearest neighbours
state       the layout of ward's state, and how far its float32 costs can be off
place       points as float64 totals, and about their mean in float32
scan        nearest neighbours by Ward's cost in float32, the inner loop of ward
decide      what float32 cannot tell, in float64
merge       merges of a round of ward, and the gaps closed after it
line        Ward of points of one coordinate, where only neighbours merge
rule        Ward as the rule for ties reads, for problems in which rounding decides
pairwise    distances of all points, and each point's nearest
square      single, complete and average linkage on a matrix of distances
cut         the height of a problem's k-th merge, and the clusters below a cut
coverage    maximum coverage of many layers: the host side of csrc/gpu/coverage.cu
select      clusters of every channel of many layers and picks from them, one group of layers after the other
beside      a second stream, on which picks are made while the next layers are clustered
launch      how kernels are launched: tiles, chunks, small tables on their way to the device
"""

if __name__ != "reprune.kernels":
    raise ImportError(
        f"this folder was imported as {__name__!r}: it is a part of the installed package; import "
        "reprune.kernels instead, and run tests with 'python -P -m pytest' so that the source folder does "
        "not hide it"
    )
