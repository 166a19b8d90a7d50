#include "selection/cut.hpp"

#include <vector>

#include "runtime/call.hpp"

namespace reprune {

std::int32_t cut(const double* z, std::int64_t n, double height, std::int32_t* labels) {
    // group[c]: a leaf that stands for cluster c while all merges below it count, else -1
    std::vector<std::int32_t> group(static_cast<std::size_t>(2 * n - 1), -1);
    for (std::int64_t i = 0; i < n; ++i) group[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i);
    Ticks tick;
    for (std::int64_t k = 0; k < n - 1; ++k) {
        tick();
        const std::int32_t a = group[static_cast<std::size_t>(z[4 * k])];
        const std::int32_t b = group[static_cast<std::size_t>(z[4 * k + 1])];
        if (a >= 0 && b >= 0 && z[4 * k + 2] <= height) group[static_cast<std::size_t>(n + k)] = a;
    }
    // downwards: a child takes the group of its parent where that merge counts
    for (std::int64_t k = n - 2; k >= 0; --k) {
        tick();
        const std::int32_t g = group[static_cast<std::size_t>(n + k)];
        if (g < 0) continue;
        group[static_cast<std::size_t>(z[4 * k])] = g;
        group[static_cast<std::size_t>(z[4 * k + 1])] = g;
    }
    for (std::int64_t i = 0; i < n; ++i) labels[i] = group[static_cast<std::size_t>(i)];
    return renumber(labels, n);
}

}  // namespace reprune
