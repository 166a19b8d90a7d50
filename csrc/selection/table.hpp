// All channels of one table of kernels, cut at their common height.
#pragma once

#include <cstdint>

#include "linkage/points.hpp"

namespace reprune {

// h = max over the channels of the height of the (O - keep)-th merge; every channel makes its merges of height <= h.
// table [I, O, d], 1 <= keep < O -> labels [I, O], clusters [I]; returns h.
// by_appearance: clusters are numbered in the order of their first filters, else in any.
// Label: std::int32_t, or std::uint16_t for at most 65,536 filters.
template <class Label>
double cut_table(const Batch& table, std::int64_t keep, int threads, Label* labels, std::int32_t* clusters,
                 bool by_appearance);

}  // namespace reprune
