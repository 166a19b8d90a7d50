// The core without Python, for machines that are only emulated: problems come in on standard input, answers go out on standard
// output, both as the numbers lie in memory.  tests/tools/cross.py compiles it, asks and compares.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/call.hpp"
#include "selection/coverage.hpp"
#include "selection/cut.hpp"
#include "linkage/linkage.hpp"
#include "runtime/pool.hpp"
#include "selection/select.hpp"
#include "selection/ties.hpp"

using namespace reprune;

namespace {

template <class T>
std::vector<T> numbers(std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    if (std::fread(values.data(), sizeof(T), values.size(), stdin) != values.size()) std::abort();
    return values;
}

template <class T>
T number() {
    return numbers<T>(1).front();
}

template <class T>
void answer(const std::vector<T>& values) {
    if (std::fwrite(values.data(), sizeof(T), values.size(), stdout) != values.size()) std::abort();
}

Batch batch(const void* data, bool is_double, std::int64_t b, std::int64_t n, std::int64_t d) {
    return {{data, is_double, n, d, static_cast<std::ptrdiff_t>(d), 1}, b, static_cast<std::ptrdiff_t>(n * d)};
}

// method, threads, b, n, d, heights [b], points [b, n, d] -> z [b, n-1, 4], labels [b, n]
void dendrograms() {
    const auto head = numbers<std::int64_t>(5);
    const std::int64_t b = head[2], n = head[3], d = head[4];
    const auto heights = numbers<double>(b);
    const auto points = numbers<double>(b * n * d);
    const Batch problems = batch(points.data(), true, b, n, d);
    std::vector<double> z(static_cast<std::size_t>(b * (n - 1) * 4));
    std::vector<std::int32_t> labels(static_cast<std::size_t>(b * n));
    Call call;
    call.run([&] {
        parallel_for(b, static_cast<int>(head[1]), [&](std::int64_t i) {
            double* const tree = z.data() + i * (n - 1) * 4;
            linkage(problems[i], static_cast<Method>(head[0]), tree);
            cut(tree, n, heights[static_cast<std::size_t>(i)], labels.data() + i * n);
        });
    });
    answer(z);
    answer(labels);
}

// filters, channels, clusters, keep, seed, labels [filters, channels] -> order, gains [keep]
void coverage() {
    const auto head = numbers<std::int64_t>(5);
    const auto labels = numbers<std::int32_t>(head[0] * head[1]);
    const LabelTable<std::int32_t> table{labels.data(), static_cast<std::ptrdiff_t>(head[1]), 1, head[0], head[1],
                                         static_cast<std::int32_t>(head[2])};
    std::vector<std::int64_t> order(static_cast<std::size_t>(head[3])), gains(order);
    Call call;
    call.run([&] {
        max_coverage(table, head[3], tie_key(static_cast<std::uint64_t>(head[4]), "layer"), nullptr, order.data(), gains.data());
    });
    answer(order);
    answer(gains);
}

// filters, channels, d, keep, seed, by norm, threads, kernels [channels, filters, d] in float32 -> order, gains [keep]
void selection() {
    const auto head = numbers<std::int64_t>(7);
    const auto kernels = numbers<float>(head[0] * head[1] * head[2]);
    std::vector<std::int64_t> order(static_cast<std::size_t>(head[3])), gains(order);
    std::vector<std::int32_t> clusters(static_cast<std::size_t>(head[1]));
    LayerProblem problem;
    problem.name = "layer";
    problem.tables.push_back(batch(kernels.data(), false, head[1], head[0], head[2]));
    problem.filters = head[0];
    problem.keep = head[3];
    problem.clusters = clusters.data();
    problem.order = order.data();
    problem.gains = gains.data();
    std::vector<LayerProblem> problems{std::move(problem)};
    Call call;
    call.run([&] {
        select_layers(problems, static_cast<std::uint64_t>(head[4]), head[5] != 0, static_cast<int>(head[6]),
                      [](std::int64_t) {});
    });
    answer(order);
    answer(gains);
}

}  // namespace

int main() {
    for (;;) {
        switch (number<std::int64_t>()) {
            case 0: return 0;
            case 1: dendrograms(); break;
            case 2: coverage(); break;
            case 3: selection(); break;
            default: return 2;
        }
    }
}
