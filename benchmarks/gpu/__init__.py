"""The GPU path: measured on a GPU, compiled and counted without one.

throughput      selection on the GPU beside the C++ core and scipy
chip            what the chip can do at most, and what clustering asks of it, for throughput
aot             every kernel compiled: registers, stack, instructions per distance
variants        the kernels and how each is launched
binaries        what a compiled kernel takes of a multiprocessor
simulated       the compiled kernels run in a PTX simulator; tests use it too
host            how long the host takes to start a selection, on a CUDA without a GPU (the folder no_gpu)
cycles          how long launches take on an H200, fitted to what was measured
picks           how long a pick of the coverage kernel takes there, fitted the same way
predict         how long whole networks would take there, from the simulator's counts
"""
