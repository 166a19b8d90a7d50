#include "selection/select.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "runtime/call.hpp"
#include "runtime/pages.hpp"
#include "selection/coverage.hpp"
#include "runtime/pool.hpp"
#include "selection/table.hpp"
#include "selection/ties.hpp"

namespace reprune {
namespace {

template <class F>
void each_number(const LayerProblem& problem, F f) {  // (filter, number) in the order (table, channel, coordinate)
    for (const Batch& table : problem.tables)
        for (std::int64_t j = 0; j < table.b; ++j) {
            const Points points = table[j];
            poll(2 * points.n * points.d);
            for (std::int64_t k = 0; k < points.d; ++k)
                for (std::int64_t i = 0; i < points.n; ++i) f(static_cast<std::size_t>(i), points.at(i, k));
        }
}

// Squared L2 norm of every filter, summed in float64 in this order: part of the tie rule. Where a square would overflow or vanish,
// all numbers are scaled first, the largest to 2^480.
std::vector<double> squared_norms(const LayerProblem& problem) {
    double largest = 0, least = 1;
    each_number(problem, [&](std::size_t, double x) {
        largest = std::max(largest, std::abs(x));
        least = x != 0 ? std::min(least, std::abs(x)) : least;
    });
    int exponent = 480;
    if (largest >= 0x1p480 || least < 0x1p-500) std::frexp(largest, &exponent);
    std::vector<double> norms(static_cast<std::size_t>(problem.filters), 0.0);
    each_number(problem, [&](std::size_t i, double x) {
        if (exponent != 480) x = std::ldexp(x, 480 - exponent);
        norms[i] += x * x;
    });
    return norms;
}

template <class Label>
void select_layer(LayerProblem& problem, Label* labels, std::int64_t channels, std::uint64_t seed, bool ties_by_norm,
                  int threads) {
    const bool own = problem.labels == nullptr;  // then there is room for coverage, too
    std::int64_t first = 0;  // channel of the table's first column
    for (const Batch& table : problem.tables) {
        problem.heights.push_back(
            cut_table(table, problem.keep, threads, labels + first * problem.filters, problem.clusters + first, !own));
        first += table.b;
    }
    std::vector<double> norms;
    if (ties_by_norm) norms = squared_norms(problem);
    const LabelTable<Label> table{labels, 1, problem.filters, problem.filters, channels,
                                  *std::max_element(problem.clusters, problem.clusters + channels)};
    max_coverage(table, problem.keep, tie_key(seed, problem.name), ties_by_norm ? norms.data() : nullptr, problem.order,
                 problem.gains, own ? labels : nullptr);
}

void select_layer(LayerProblem& problem, std::uint64_t seed, bool ties_by_norm, int threads) {
    std::int64_t channels = 0;
    for (const Batch& table : problem.tables) channels += table.b;
    const auto with_own = [&](auto zero) {
        HugePageBuffer<decltype(zero)> labels(room_for_coverage<decltype(zero)>(problem.filters, channels));
        select_layer(problem, labels.data(), channels, seed, ties_by_norm, threads);
    };
    if (problem.labels != nullptr) {
        select_layer(problem, problem.labels, channels, seed, ties_by_norm, threads);
    } else if (problem.filters <= 65536) {
        with_own(std::uint16_t{});
    } else {
        with_own(std::int32_t{});
    }
}

// Roughly what a layer costs: pairs of points that a scan looks at, or points to sort.  It only decides which layer
// begins first; reprune/pruner/decide.py shares layers between processes by seconds, and has a model fitted to them.
double work(const LayerProblem& problem) {
    double sum = 0;
    for (const Batch& table : problem.tables) {
        const auto n = static_cast<double>(table.first.n), d = static_cast<double>(table.first.d);
        sum += static_cast<double>(table.b) * n * (table.first.d == 1 ? 100 : 20 + n * d / 9);
    }
    return sum;
}

}  // namespace

void select_layers(std::vector<LayerProblem>& problems, std::uint64_t seed, bool ties_by_norm, int threads,
                   const std::function<void(std::int64_t)>& finished) {
    std::vector<std::size_t> turn(problems.size());
    std::iota(turn.begin(), turn.end(), std::size_t{0});
    std::stable_sort(turn.begin(), turn.end(), [&](auto a, auto b) { return work(problems[a]) > work(problems[b]); });
    std::atomic<std::int64_t> done{0};
    const std::thread::id caller = std::this_thread::get_id();
    // threads without a layer of their own help with the channels of another's
    parallel_for(static_cast<std::int64_t>(problems.size()), threads, [&](std::int64_t k) {
        select_layer(problems[turn[static_cast<std::size_t>(k)]], seed, ties_by_norm, threads);
        const std::int64_t count = ++done;
        if (std::this_thread::get_id() == caller) finished(count);
    });
}

}  // namespace reprune
