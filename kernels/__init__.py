"""Provide Triton kernels and their host sides, installed as `reprune.kernels`.

linkage     Ward's linkage of many problems: the host side of ward
ward        one problem per program: rounds that merge all pairs of mutual nearest neighbours
scan        nearest neighbours by Ward's cost, the inner loop of ward
place       points about their mean, scaled, in the type of ward's state
cut         the height at which a layer is cut, and the clusters below it
coverage    maximum coverage of many layers: the host side of csrc/gpu/coverage.cu
select      clusters of every channel of many layers: linkage and cut, one after the other
launch      how kernels are launched: tiles, chunks, small tables on their way to the device
"""

if __name__ != "reprune.kernels":
    raise ImportError(
        f"this folder was imported as {__name__!r}: it is a part of the installed package; import "
        "reprune.kernels instead, and run tests with 'python -P -m pytest' so that the source folder does "
        "not hide it"
    )
