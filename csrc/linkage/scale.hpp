// Copies points to float64 rows that are centred and scaled, as every clustering here needs them. Both changes are exact and
// only keep squares from overflowing or vanishing. reprune/clustering/reference/scale.py does the same.
#pragma once

#include <cstdint>

#include "linkage/points.hpp"

namespace reprune {

struct Scale {
    int exponent = 0;   // heights among the rows times 2^exponent are those among the points
    bool wide = false;  // numbers differ so much in size that squares of them do overflow or vanish: only wide_height is right
};

// Of rows [n, d] in place. single: they were float32, whose squares in float64 are harmless.
Scale scale(double* rows, std::int64_t n, std::int64_t d, bool single);

// Points into rows [n, d], scaled.
Scale load(const Points& points, double* rows);

}  // namespace reprune
