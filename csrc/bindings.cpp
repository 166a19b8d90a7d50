// The Python bindings, the only file that knows Python. Arguments are checked in Python and trusted here.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "gpu/cover_layers.hpp"
#include "selection/coverage.hpp"
#include "selection/cut.hpp"
#include "linkage/distances.hpp"
#include "linkage/linkage.hpp"
#include "linkage/near_ties.hpp"
#include "runtime/pool.hpp"
#include "runtime/python_call.hpp"
#include "simd/scan.hpp"
#include "selection/select.hpp"
#include "selection/ties.hpp"

namespace py = pybind11;
using namespace reprune;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Labels = py::array_t<std::int32_t, py::array::c_style>;
using Counts = py::array_t<std::int64_t, py::array::c_style>;

Points view(const py::array& a, py::ssize_t axis) {  // axes (axis, axis + 1) of a are [n, d]
    const bool is_double = py::isinstance<py::array_t<double>>(a);
    const py::ssize_t item = is_double ? 8 : 4;
    return {a.data(), is_double, a.shape(axis), a.shape(axis + 1), a.strides(axis) / item, a.strides(axis + 1) / item};
}

Batch batch(const py::array& a) {  // [b, n, d]
    const Points first = view(a, 1);
    return {first, a.shape(0), a.strides(0) / (first.is_double ? 8 : 4)};
}

// What a MemoryError says, of problems of at most n points.
std::string no_memory(std::int64_t problems, std::int64_t n, int threads) {
    return "the C++ core ran out of memory on " + std::to_string(problems) + " problems of up to " + std::to_string(n) +
           " points each, on up to " + std::to_string(threads) + " threads; fewer threads (REPRUNE_NUM_THREADS), fewer problems"
           " in a call or fewer points need less";
}

Doubles bind_linkage(const py::array& points, int method, int threads) {  // [b, n, d] -> [b, n-1, 4]
    const Batch problems = batch(points);
    const std::int64_t n = problems.first.n;
    Doubles result({problems.b, n - 1, std::int64_t{4}});
    double* z = result.mutable_data();
    const auto link = [&](std::int64_t i) { linkage(problems[i], static_cast<Method>(method), z + i * (n - 1) * 4); };
    call_core([&] { return no_memory(problems.b, n, threads); }, [&] { parallel_for(problems.b, threads, link); });
    return result;
}

Doubles bind_pairwise(const py::array& points, int threads) {  // [b, n, d] -> [b, n, n]
    const Batch problems = batch(points);
    const std::int64_t b = problems.b, n = problems.first.n;
    Doubles result({b, n, n});
    double* out = result.mutable_data();
    const auto all = [&] {
        if (b < threads) {  // threads share the rows of a problem
            for (std::int64_t i = 0; i < b; ++i) pairwise(problems[i], threads, out + i * n * n);
        } else {
            parallel_for(b, threads, [&](std::int64_t i) { pairwise(problems[i], 1, out + i * n * n); });
        }
    };
    call_core([&] { return no_memory(b, n, threads); }, all);
    return result;
}

py::list bind_linkage_ragged(const std::vector<py::array>& points, int method, int threads) {  // [n_b, d] -> [n_b-1, 4]
    std::vector<Points> problems;
    std::vector<double*> z;
    py::list results;
    for (const py::array& p : points) {
        problems.push_back(view(p, 0));
        Doubles result({problems.back().n - 1, std::int64_t{4}});
        z.push_back(result.mutable_data());
        results.append(std::move(result));
    }
    const auto count = static_cast<std::int64_t>(problems.size());
    const auto link = [&](std::int64_t i) {
        const auto k = static_cast<std::size_t>(i);
        linkage(problems[k], static_cast<Method>(method), z[k]);
    };
    std::int64_t most = 0;
    for (const Points& p : problems) most = std::max(most, p.n);
    call_core([&] { return no_memory(count, most, threads); }, [&] { parallel_for(count, threads, link); });
    return results;
}

Doubles bind_linkage_condensed(const Doubles& distances, std::int64_t n, int method) {  // [n (n-1) / 2] -> [n-1, 4]
    Doubles result({n - 1, std::int64_t{4}});
    const double* d = distances.data();
    double* z = result.mutable_data();
    call_core([&] { return no_memory(1, n, 1); }, [&] { linkage_condensed(d, n, static_cast<Method>(method), z); });
    return result;
}

// z [n-1, 4] as `fill` writes it, None where that finds a near tie
template <class Fill>
std::optional<Doubles> if_unique(std::int64_t n, const Fill& fill) {
    Doubles result({n - 1, std::int64_t{4}});
    double* z = result.mutable_data();
    bool unique = true;
    const auto work = [&] {
        try {
            fill(z);
        } catch (const NearTie&) {
            unique = false;
        }
    };
    call_core([&] { return no_memory(1, n, 1); }, work);
    if (!unique) return std::nullopt;
    return result;
}

std::optional<Doubles> bind_linkage_if_unique(const py::array& points, int method) {  // [n, d] -> [n-1, 4]
    const Points problem = view(points, 0);
    return if_unique(problem.n, [&](double* z) { linkage(problem, static_cast<Method>(method), z, Ties::refuse); });
}

// [n (n-1) / 2] -> [n-1, 4]
std::optional<Doubles> bind_linkage_condensed_if_unique(const Doubles& distances, std::int64_t n, int method) {
    const double* d = distances.data();
    return if_unique(n, [&](double* z) { linkage_condensed(d, n, static_cast<Method>(method), z, Ties::refuse); });
}

Labels bind_cut(const Doubles& trees, const Doubles& heights, int threads) {  // [b, n-1, 4], [b] -> [b, n]
    const std::int64_t b = trees.shape(0), n = trees.shape(1) + 1;
    Labels labels({b, n});
    const double *z = trees.data(), *h = heights.data();
    std::int32_t* out = labels.mutable_data();
    const auto one = [&](std::int64_t i) { cut(z + i * (n - 1) * 4, n, h[i], out + i * n); };
    call_core([&] { return no_memory(b, n, threads); }, [&] { parallel_for(b, threads, one); });
    return labels;
}

// labels [O, I], all below `clusters` <= O
std::tuple<Counts, Counts> bind_max_coverage(const Labels& labels, std::int32_t clusters, std::int64_t keep,
                                             std::uint64_t seed, const std::string& name,
                                             const std::optional<Doubles>& norms) {
    const LabelTable<std::int32_t> table{labels.data(), labels.shape(1), 1, labels.shape(0), labels.shape(1), clusters};
    Counts order(keep), gains(keep);
    std::int64_t *picked = order.mutable_data(), *gained = gains.mutable_data();
    const double* norm = norms ? norms->data() : nullptr;
    call_core([&] { return no_memory(table.channels, table.filters, 1); },
              [&] { max_coverage(table, keep, tie_key(seed, name), norm, picked, gained); });
    return {order, gains};
}

using Chosen = std::tuple<Counts, Counts, std::vector<double>, Labels, Labels>;  // order, gains, heights, columns, clusters

std::vector<Chosen> bind_select_layers(const std::vector<std::tuple<std::string, std::vector<py::array>, std::int64_t>>& given,
                                       std::uint64_t seed, bool ties_by_norm, int threads, bool with_labels,
                                       const std::function<void(std::int64_t)>& progress) {
    std::vector<LayerProblem> problems;
    std::vector<Chosen> results;
    for (const auto& [name, tables, keep] : given) {
        LayerProblem problem;
        problem.name = name;
        problem.keep = keep;
        std::int64_t channels = 0;
        for (const py::array& table : tables) {
            problem.tables.push_back(batch(table));
            channels += problem.tables.back().b;
        }
        problem.filters = problem.tables.front().first.n;
        Chosen chosen{Counts(keep), Counts(keep), {}, Labels({with_labels ? channels : 0, problem.filters}),
                      Labels(channels)};
        problem.order = std::get<0>(chosen).mutable_data();
        problem.gains = std::get<1>(chosen).mutable_data();
        problem.labels = with_labels ? std::get<3>(chosen).mutable_data() : nullptr;
        problem.clusters = std::get<4>(chosen).mutable_data();
        problems.push_back(std::move(problem));
        results.push_back(std::move(chosen));
    }
    std::int64_t told = 0;
    const auto tell = [&](std::int64_t done) {
        if (!progress || done <= told) return;
        const py::gil_scoped_acquire acquire;
        progress(told = done);
    };
    std::int64_t channels = 0, most = 0;
    for (const LayerProblem& problem : problems) {
        for (const Batch& table : problem.tables) channels += table.b;
        most = std::max(most, problem.filters);
    }
    call_core([&] { return no_memory(channels, most, threads); },
              [&] { select_layers(problems, seed, ties_by_norm, threads, tell); });
    tell(static_cast<std::int64_t>(problems.size()));
    for (std::size_t k = 0; k < problems.size(); ++k) std::get<2>(results[k]) = problems[k].heights;
    return results;
}

// (labels, norms or 0, index, order, gains: addresses; filters, channels, clusters, keep, tie key)
using AddressedLayer = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::int32_t,
                                  std::int32_t, std::int32_t, std::int32_t, std::uint32_t>;

// The layers as cover_layers reads them, the most filters and the most clusters.
std::tuple<py::bytes, std::uint32_t, std::uint32_t> bind_pack_layers(const std::vector<AddressedLayer>& given) {
    std::vector<CoverLayer> layers;
    CoverShape shape;
    for (const auto& [labels, norms, index, order, gains, filters, channels, clusters, keep, key] : given) {
        layers.push_back({reinterpret_cast<const std::int32_t*>(labels), reinterpret_cast<const double*>(norms),
                          reinterpret_cast<std::uint16_t*>(index), reinterpret_cast<std::int64_t*>(order),
                          reinterpret_cast<std::int64_t*>(gains), filters, channels, clusters, keep, key});
        shape.most_filters = std::max(shape.most_filters, static_cast<std::uint32_t>(filters));
        shape.most_clusters = std::max(shape.most_clusters, static_cast<std::uint32_t>(clusters));
    }
    return {py::bytes(reinterpret_cast<const char*>(layers.data()), layers.size() * sizeof(CoverLayer)), shape.most_filters,
            shape.most_clusters};
}

using Shape = std::tuple<std::uint32_t, std::uint32_t>;  // as bind_pack_layers gives it

void bind_cover_on_host(std::uintptr_t layers, std::int64_t count, const Shape& shape, bool by_norm, std::uint32_t threads,
                        std::uint32_t seed) {
    const py::gil_scoped_release release;
    cover_layers_on_host(reinterpret_cast<const CoverLayer*>(layers), count, {std::get<0>(shape), std::get<1>(shape)}, by_norm,
                         threads, seed);
}

SquaresOf squares_of(std::uintptr_t points, bool is_double, const std::array<std::int64_t, 3>& shape,
                     const std::array<std::int64_t, 3>& strides) {  // [I, O, d]
    return {reinterpret_cast<const void*>(points), is_double, shape[0], shape[1], shape[2], strides[0], strides[1], strides[2]};
}

void bind_gpu(py::module_& m) {
    m.attr("most_filters_on_gpu") = most_filters;
    m.def("pack_layers", &bind_pack_layers, py::arg("layers"));
    m.def("shared_words_on_gpu",
          [](const Shape& shape) {
              const CoverShape own{std::get<0>(shape), std::get<1>(shape)};
              return std::pair(own.index_words(index_threads), own.cover_words());
          },
          py::arg("shape"));
    m.def("cover_layers_on_host", &bind_cover_on_host, py::arg("layers"), py::arg("count"), py::arg("shape"),
          py::arg("by_norm"), py::arg("threads"), py::arg("seed"));
    m.def("add_squares_on_host",
          [](std::uintptr_t points, bool is_double, const std::array<std::int64_t, 3>& shape,
             const std::array<std::int64_t, 3>& strides, std::uintptr_t norms) {
              add_squares_on_host(squares_of(points, is_double, shape, strides), reinterpret_cast<double*>(norms));
          },
          py::arg("points"), py::arg("is_double"), py::arg("shape"), py::arg("strides"), py::arg("norms"));
#ifdef REPRUNE_HAS_CUDA
    m.attr("has_cuda") = true;
    m.def("cuda_error", &cuda_error);
    m.def("cover_layers",
          [](std::uintptr_t layers, std::int64_t count, const Shape& shape, bool by_norm, int device, std::uintptr_t stream) {
              cover_layers(reinterpret_cast<const CoverLayer*>(layers), count, {std::get<0>(shape), std::get<1>(shape)}, by_norm,
                           device, stream);
          },
          py::arg("layers"), py::arg("count"), py::arg("shape"), py::arg("by_norm"), py::arg("device"), py::arg("stream"));
    m.def("add_squares",
          [](std::uintptr_t points, bool is_double, const std::array<std::int64_t, 3>& shape,
             const std::array<std::int64_t, 3>& strides, std::uintptr_t norms, int device, std::uintptr_t stream) {
              add_squares(squares_of(points, is_double, shape, strides), reinterpret_cast<double*>(norms), device, stream);
          },
          py::arg("points"), py::arg("is_double"), py::arg("shape"), py::arg("strides"), py::arg("norms"), py::arg("device"),
          py::arg("stream"));
#else
    m.attr("has_cuda") = false;
#endif
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "C++ core of reprune. Its functions trust their arguments; call them through reprune.";
    m.attr("__version__") = REPRUNE_VERSION;  // of the package it was built with
    bind_gpu(m);
    m.def("linkage", &bind_linkage, py::arg("points"), py::arg("method"), py::arg("threads"));
    m.def("pairwise", &bind_pairwise, py::arg("points"), py::arg("threads"));
    m.def("linkage_ragged", &bind_linkage_ragged, py::arg("points"), py::arg("method"), py::arg("threads"));
    m.def("linkage_condensed", &bind_linkage_condensed, py::arg("distances"), py::arg("n"), py::arg("method"));
    m.def("linkage_if_unique", &bind_linkage_if_unique, py::arg("points"), py::arg("method"));
    m.def("linkage_condensed_if_unique", &bind_linkage_condensed_if_unique, py::arg("distances"), py::arg("n"),
          py::arg("method"));
    m.def("cut", &bind_cut, py::arg("trees"), py::arg("heights"), py::arg("threads"));
    m.def("max_coverage", &bind_max_coverage, py::arg("labels"), py::arg("clusters"), py::arg("keep"), py::arg("seed"),
          py::arg("name"), py::arg("norms"));
    m.def("select_layers", &bind_select_layers, py::arg("problems"), py::arg("seed"), py::arg("ties_by_norm"),
          py::arg("threads"), py::arg("with_labels"), py::arg("progress"));
    m.def("isa", [] { return std::string(scanner().name); });
    m.def("set_isa", [](const std::string& name) { return set_isa(name.c_str()); }, py::arg("name"));
}
