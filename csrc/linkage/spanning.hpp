// Single linkage in memory O(n d): the edges of a minimum spanning tree, in the order and with the ties of the rule.
#pragma once

#include <cstdint>
#include <vector>

#include "linkage/dendrogram.hpp"
#include "linkage/scale.hpp"

namespace reprune {

// rows [n, d], scaled -> n-1 merges in the order they are made in
std::vector<Merge> single_linkage(const std::vector<double>& rows, std::int64_t n, std::int64_t d, bool wide);

}  // namespace reprune
