#include "loops.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "clones.hpp"
#include "cost.hpp"

namespace reprune {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

REPRUNE_CLONES double smallest(const double* x, std::size_t n) {
    double lane[16];
    std::fill_n(lane, 16, infinity);
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l) lane[l] = x[i + l] < lane[l] ? x[i + l] : lane[l];
    for (; i < n; ++i) lane[0] = x[i] < lane[0] ? x[i] : lane[0];
    return *std::min_element(lane, lane + 16);
}

REPRUNE_CLONES double smallest_sum(const double* x, const double* y, std::size_t n) {
    double lane[16];
    std::fill_n(lane, 16, infinity);
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l) lane[l] = x[i + l] + y[i + l] < lane[l] ? x[i + l] + y[i + l] : lane[l];
    for (; i < n; ++i) lane[0] = x[i] + y[i] < lane[0] ? x[i] + y[i] : lane[0];
    return *std::min_element(lane, lane + 16);
}

REPRUNE_CLONES void add_squares(double x, const double* __restrict y, std::size_t n, double* __restrict row) {
    for (std::size_t b = 0; b < n; ++b) row[b] += (x - y[b]) * (x - y[b]);
}

REPRUNE_CLONES void roots(double* row, std::size_t n) {
    for (std::size_t b = 0; b < n; ++b) row[b] = std::sqrt(row[b]);
}

REPRUNE_CLONES void take_nearer(const double* __restrict distance, std::size_t n, std::int32_t point,
                                double* __restrict nearest, std::int32_t* __restrict to) {
    for (std::size_t b = 0; b < n; ++b) {
        const bool nearer = distance[b] < nearest[b];
        nearest[b] = nearer ? distance[b] : nearest[b];
        to[b] = nearer ? point : to[b];
    }
}

REPRUNE_CLONES void take_lower(const double* __restrict height, const double* __restrict gone, std::size_t n,
                               std::int32_t place, double* __restrict least, std::int32_t* __restrict nearest) {
    for (std::size_t i = 0; i < n; ++i) {
        const double x = height[i] + gone[i];
        const bool lower = (x < least[i]) | ((x == least[i]) & (place < nearest[i]));
        least[i] = lower ? x : least[i];
        nearest[i] = lower ? place : nearest[i];
    }
}

REPRUNE_CLONES std::size_t find_either(const std::int32_t* x, std::size_t n, std::int32_t a, std::int32_t b,
                                       std::int32_t* found) {
    std::size_t count = 0;
    for (std::size_t begin = 0; begin < n; begin += 64) {  // hits are rare
        const std::size_t end = begin + 64 < n ? begin + 64 : n;
        std::int32_t any = 0;
        for (std::size_t i = begin; i < end; ++i) any |= (x[i] == a) | (x[i] == b);
        for (std::size_t i = begin; any != 0 && i < end; ++i)
            if (x[i] == a || x[i] == b) found[count++] = static_cast<std::int32_t>(i);
    }
    return count;
}

REPRUNE_CLONES void add_steps(double x, double nx, const double* __restrict y, const double* __restrict size, std::size_t n,
                              double* __restrict squares) {
    for (std::size_t b = 0; b < n; ++b) {
        const double step = ward_step(x, nx, y[b], size[b]);
        squares[b] += step * step;
    }
}

REPRUNE_CLONES void ward_heights(double nx, const double* __restrict size, std::size_t n, double* __restrict squares) {
    for (std::size_t b = 0; b < n; ++b) squares[b] = ward_height(ward_cost(squares[b], nx, size[b]));
}

}  // namespace reprune
