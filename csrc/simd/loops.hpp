// Vectorised loops over rows of float64: the same operations at any width, so the same results.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprune {

double smallest(const double* x, std::size_t n);
double smallest_sum(const double* x, const double* y, std::size_t n);  // of the sums x + y
void add_squares(double x, const double* y, std::size_t n, double* row);  // row[b] += (x - y[b])^2
void roots(double* row, std::size_t n);
// where distance[b] < nearest[b]: takes that, and `point` into to[b]
void take_nearer(const double* distance, std::size_t n, std::int32_t point, double* nearest, std::int32_t* to);
// where height[i] + gone[i] is below least[i], or as low and `place` below nearest[i]: takes that and `place`
void take_lower(const double* height, const double* gone, std::size_t n, std::int32_t place, double* least,
                std::int32_t* nearest);
std::size_t first_sum(const double* x, const double* y, std::size_t n, double value);  // where the sum is `value`, else n
std::size_t find_either(const std::int32_t* x, std::size_t n, std::int32_t a, std::int32_t b, std::int32_t* found);  // how many
// squares[b] += the square of the step between totals x of size nx and y[b] of size[b]
void add_steps(double x, double nx, const double* y, const double* size, std::size_t n, double* squares);
// From sums of squares to keys, squares of heights but for a factor of key_error at most, plus `gone`.
void ward_keys(double nx, const double* size, const double* gone, std::size_t n, double* squares);
constexpr double key_error = 1 + 0x1p-20;
// Places of keys that are <= most, or that may be the squares of as low heights or lower; ascending; returns how many.
std::size_t find_within(const double* keys, std::size_t n, double most, std::int32_t* found);
std::size_t find_below(const double* keys, const double* heights, std::size_t n, std::int32_t* found);

}  // namespace reprune
