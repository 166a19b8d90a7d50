// The one file that knows Python: it binds, and nothing else.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
    m.doc() = "C++ core of reprune.";
    m.attr("has_cuda") = false;
}
