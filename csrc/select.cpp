#include "select.hpp"

#include "coverage.hpp"
#include "table.hpp"
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
