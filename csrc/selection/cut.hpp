// Cuts a dendrogram at a height: the cluster of each point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace reprune {

// z [n-1, 4] in scipy's form -> labels [n], 0-based, numbered by first appearance; returns the number of clusters.
// A merge counts when its height and those of all merges below it are <= height.
std::int32_t cut(const double* z, std::int64_t n, double height, std::int32_t* labels);

// Renumbers labels [n] (any values in [0, n)) by first appearance; returns how many there are.
template <class Label>
std::int32_t renumber(Label* labels, std::int64_t n) {
    std::vector<std::int32_t> seen(static_cast<std::size_t>(n), -1);
    std::int32_t next = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        std::int32_t& seen_as = seen[static_cast<std::size_t>(labels[i])];
        const std::int32_t before = seen_as, fresh = before < 0, name = before + ((next - before) & -fresh);  // no branch to guess
        seen_as = name;
        next += fresh;
        labels[i] = static_cast<Label>(name);
    }
    return next;
}

}  // namespace reprune
