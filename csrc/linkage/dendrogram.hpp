// Merges in the order an algorithm finds them, and their form as scipy's Z.
#pragma once

#include <cstdint>
#include <vector>

#include "linkage/near_ties.hpp"

namespace reprune {

struct Merge {
    std::int32_t a, b;  // any member point of either cluster
    double height;
};
constexpr double of_equals = -1;  // in the place of the height of equal points, which merge before others at height 0

// n-1 merges of a clustering in which rounding decided nothing, into the order in which the rule makes them: by height, of
// equally high ones by the number of the first cluster, which is the largest of its points, then of the second. Merges `of_equals`
// come first, and get their height.
void by_height(std::vector<Merge>& merges, std::int64_t n);

// n-1 merges that join n points, in order -> z [n-1, 4]: rows (smaller id, larger id, height times 2^exponent, size).
void to_scipy(const std::vector<Merge>& merges, std::int64_t n, int exponent, double* z);

// Throws NearTie if rounding decides the order of the rows of z [n-1, 4]; exponent: as above.
void refuse_near_heights(const double* z, std::int64_t n, int exponent, const Tolerance& tolerance);

}  // namespace reprune
