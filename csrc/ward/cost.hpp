// Ward's height of two clusters by their totals. The formula and the order of its operations are part of the rule, which
// reprune/clustering/reference/linkage.py states: with t = |B| total_A - |A| total_B of a coordinate,
//     cost = sum of t^2 / (|A||B| (|A| + |B|)),    height = sqrt(2 cost).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace reprune {

inline double ward_step(double total_a, double na, double total_b, double nb) { return total_a * nb - total_b * na; }
inline double ward_cost(double squares, double na, double nb) { return squares / (na * nb * (na + nb)); }
inline double ward_height(double cost) { return std::sqrt(2 * cost); }

// The same from steps [d] whose squares may overflow or vanish: a power of two is taken out of them first. The same bits where
// they do not. Overwrites the steps.
inline double wide_height(double* steps, std::int64_t d, double na, double nb) {
    double largest = 0, squares = 0;
    for (std::int64_t k = 0; k < d; ++k) largest = std::max(largest, std::abs(steps[k]));
    int exponent = 0;
    std::frexp(largest, &exponent);
    for (std::int64_t k = 0; k < d; ++k) {
        const double x = std::ldexp(steps[k], -exponent);
        squares += x * x;
    }
    return std::ldexp(ward_height(ward_cost(squares, na, nb)), exponent);
}

}  // namespace reprune
