"""What people run, in the checkout: `python -m tests.tools.fuzz`. Tests run a small part of most.

fuzz                    drawn problems through the C++ core, against scipy, the reference and a replay
fuzz_draw               the problems of fuzz
fuzz_judges             what is right, for fuzz
damaged                 files damaged in many ways: refused or equal, and read with little memory
killed_saves            saves that are killed leave a whole file
interrupted             trainings that are killed go on and end with the same bits
sanitize                the core under the address, undefined-behaviour and thread sanitizers
cross                   the core compiled for another processor, asked without Python
core_without_python     its program, in C++
installed               whether an installed wheel is all there, run by cibuildwheel outside the checkout
simulated_kernels       drawn problems in the compiled kernels of the GPU, in the PTX simulator
simulated_plans         plans of torchvision's classifiers by these kernels, there
simulated_gpu           the tests for a GPU, there: a plugin of pytest
interpreted_kernels     Ward in Triton under its interpreter, a thousand cases; run by pytest
"""
