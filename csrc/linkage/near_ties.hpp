// Detects merges that rounding decides: another valid way to compute the same heights, such as scipy's, may take another pair.
//
// Two clusters merge when each is the other's nearest. If that holds with a margin, no later merge brings anything as near to
// either (reducibility), so every computation of heights to within half the margin makes the same merge, in any order.
// The dendrogram is thus unique where every merge has the margin, and so are its rows where the heights have it too, once
// sorted: it suffices to look at what else is near where two clusters merge, and at the heights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace reprune {

struct NearTie {};  // thrown: more than one dendrogram is right to within rounding

// How far two ways to compute a height may lie apart, in the units of the rows or distances that are clustered. Heights by Lance
// and Williams lose relative accuracy in proportion to the number of points at most. Those by sums of points are off by a few
// units in the last place of the points, times sqrt(2 n) for clusters of at least n points. And where squares vanish, here or in
// the caller's units, all heights are one.
class Tolerance {
  public:
    // Of rows [n, d], or of distances (d = 0) of n points; 2^exponent makes them what the caller gave.
    Tolerance(std::int64_t n, std::int64_t d, int exponent, const double* rows)
        : relative_(few * static_cast<double>(16 + n + d)), absolute_(vanishes * std::max(1.0, std::ldexp(1.0, -exponent))) {
        double furthest = 0;  // from the origin
        for (std::int64_t i = 0; i < n; ++i) {
            double squared = 0;
            for (std::int64_t k = 0; k < d; ++k) squared += rows[i * d + k] * rows[i * d + k];
            furthest = std::max(furthest, squared);
        }
        absolute_ += few * std::sqrt(furthest);
    }

    // May rounding have turned round two heights, the lower one first? points: of the smaller cluster at either.
    bool covers(double least, double other, double points) const {
        return other - least <= relative_ * least + absolute_ * std::sqrt(2 * points);
    }

  private:
    static constexpr double few = 16 * 0x1p-52, vanishes = 1e-146;
    double relative_, absolute_;
};

}  // namespace reprune
