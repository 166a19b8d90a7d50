// Calls from Python into the core: they release the GIL, listen to signals in the main thread, and raise Python's errors.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>

#include "runtime/call.hpp"

namespace reprune {

// Signals run their handlers on Python's main thread only; in a forked child that is the thread that forked.
inline bool on_main_thread() {  // under the GIL
    static unsigned long main = 0;
    static unsigned known = 0;  // forks, plus one
    if (known != forks() + 1) {
        namespace py = pybind11;
        main = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
        known = forks() + 1;
    }
    return PyThread_get_thread_ident() == main;
}

inline void hear_signals() {
    const pybind11::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

// what: the work in words, "clustering 3 x 100 points of 9 coordinates"
template <class What, class Work>
void call_core(const What& what, const Work& work) {
    std::function<void()> ask;
    if (on_main_thread()) ask = hear_signals;
    try {
        Call call(ask);
        const pybind11::gil_scoped_release release;
        call.run(work);
    } catch (const std::bad_alloc&) {
        PyErr_SetString(PyExc_MemoryError, what().c_str());
        throw pybind11::error_already_set();
    }
}

}  // namespace reprune
