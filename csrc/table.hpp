// All channels of one table of kernels, cut at their common height.
#pragma once

#include <cstdint>

#include "points.hpp"

namespace reprune {

// h = max over the channels of the height of the (O - keep)-th merge; every channel makes its merges of height <= h.
// table [I, O, d], 1 <= keep < O -> labels [I, O], clusters [I]; returns h.
double cut_table(const Batch& table, std::int64_t keep, int threads, std::int32_t* labels, std::int32_t* clusters);

}  // namespace reprune
