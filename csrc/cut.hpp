// A dendrogram cut at a height: who is in which cluster.
#pragma once

#include <cstdint>

namespace reprune {

// z [n-1, 4] in scipy's form -> labels [n], 0-based, numbered by first appearance; returns the number of clusters.
// A merge counts when its height and those of all merges below it are <= height.
std::int32_t cut(const double* z, std::int64_t n, double height, std::int32_t* labels);

// Renumbers labels [n] (any values in [0, n)) by first appearance; returns how many there are.
std::int32_t renumber(std::int32_t* labels, std::int64_t n);

}  // namespace reprune
