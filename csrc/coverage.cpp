#include "coverage.hpp"

#include "ties.hpp"

namespace reprune {
namespace {

// The members of every cluster of one channel, cluster by cluster.
struct Members {
    std::vector<std::int32_t> start;   // [clusters + 1]
    std::vector<std::int32_t> filter;  // [O]

    Members(const LabelColumn& column, std::int64_t filters)
        : start(static_cast<std::size_t>(column.clusters) + 1, 0), filter(static_cast<std::size_t>(filters)) {
        for (std::int64_t i = 0; i < filters; ++i) ++start[static_cast<std::size_t>(column.labels[i])];
        std::int32_t sum = 0;
        for (std::int32_t& s : start) s = sum += s;  // ends of the clusters; filling backwards turns them into starts
        for (std::int64_t i = filters - 1; i >= 0; --i)
            filter[static_cast<std::size_t>(--start[static_cast<std::size_t>(column.labels[i])])] =
                static_cast<std::int32_t>(i);
    }
};

}  // namespace

void max_coverage(const std::vector<LabelColumn>& columns, std::int64_t filters, std::int64_t keep, std::uint32_t tie_key,
                  const double* norms, std::int64_t* order, std::int64_t* gains) {
    std::vector<Members> members;
    members.reserve(columns.size());
    for (const LabelColumn& column : columns) members.emplace_back(column, filters);
    // gain[i]: clusters that filter i would newly cover; -1 once picked
    std::vector<std::int32_t> gain(static_cast<std::size_t>(filters), static_cast<std::int32_t>(columns.size()));

    for (std::int64_t step = 0; step < keep; ++step) {
        const std::uint32_t step_key = tie_step(tie_key, static_cast<std::uint32_t>(step));
        std::int64_t best = -1;
        std::uint32_t best_value = 0;
        for (std::int64_t i = 0; i < filters; ++i) {
            const std::int32_t g = gain[static_cast<std::size_t>(i)];
            if (g < 0) continue;
            const std::int32_t most = best < 0 ? -1 : gain[static_cast<std::size_t>(best)];
            if (g < most || (g == most && norms && norms[i] < norms[best])) continue;
            const std::uint32_t value = tie_value(step_key, static_cast<std::uint32_t>(i));
            if (g == most && !(norms && norms[i] > norms[best]) && value > best_value) continue;
            best = i;
            best_value = value;
        }
        order[step] = best;
        gains[step] = gain[static_cast<std::size_t>(best)];
        if (gains[step] > 0) {
            for (std::size_t j = 0; j < columns.size(); ++j) {
                std::int32_t* list = members[j].filter.data();
                const auto label = static_cast<std::size_t>(columns[j].labels[best]);
                const std::int32_t begin = members[j].start[label], end = members[j].start[label + 1];
                if (list[begin] < 0) continue;  // covered before
                for (std::int32_t m = begin; m < end; ++m) --gain[static_cast<std::size_t>(list[m])];
                list[begin] = -1;
            }
        }
        gain[static_cast<std::size_t>(best)] = -1;
    }
}

}  // namespace reprune
