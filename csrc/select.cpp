#include "select.hpp"

#include <algorithm>

#include "coverage.hpp"
#include "cut.hpp"
#include "linkage.hpp"
#include "pool.hpp"
#include "ties.hpp"

namespace reprune {
namespace {

// Squared L2 norm of every filter, summed in float64 in the order (table, channel, coordinate): part of the tie rule.
std::vector<double> squared_norms(const LayerProblem& problem) {
    std::vector<double> norms(static_cast<std::size_t>(problem.filters), 0.0);
    for (const Batch& table : problem.tables)
        for (std::int64_t j = 0; j < table.b; ++j) {
            const Points points = table[j];
            for (std::int64_t k = 0; k < points.d; ++k)
                for (std::int64_t i = 0; i < points.n; ++i)
                    norms[static_cast<std::size_t>(i)] += points.at(i, k) * points.at(i, k);
        }
    return norms;
}

}  // namespace

double cut_table(const Batch& table, std::int64_t keep, int threads, std::int32_t* labels, std::int32_t* clusters) {
    const std::int64_t n = table.first.n, merges = n - keep;
    std::vector<double> z(static_cast<std::size_t>(table.b * (n - 1) * 4));
    const auto tree = [&](std::int64_t j) { return z.data() + j * (n - 1) * 4; };
    parallel_for(table.b, threads, [&](std::int64_t j) { linkage(table[j], Method::ward, tree(j)); });
    double height = 0;
    for (std::int64_t j = 0; j < table.b; ++j) height = std::max(height, tree(j)[4 * (merges - 1) + 2]);
    parallel_for(table.b, threads, [&](std::int64_t j) { clusters[j] = cut(tree(j), n, height, labels + j * n); });
    return height;
}

void select_layer(LayerProblem& problem, std::uint64_t seed, bool ties_by_norm, int threads) {
    std::vector<LabelColumn> columns;
    std::int64_t first = 0;  // channel of the table's first column
    for (const Batch& table : problem.tables) {
        std::int32_t *labels = problem.labels + first * problem.filters, *clusters = problem.clusters + first;
        problem.heights.push_back(cut_table(table, problem.keep, threads, labels, clusters));
        for (std::int64_t j = 0; j < table.b; ++j) columns.push_back({labels + j * problem.filters, clusters[j]});
        first += table.b;
    }
    std::vector<double> norms;
    if (ties_by_norm) norms = squared_norms(problem);
    max_coverage(columns, problem.filters, problem.keep, tie_key(seed, problem.name), ties_by_norm ? norms.data() : nullptr,
                 problem.order, problem.gains);
}

}  // namespace reprune
