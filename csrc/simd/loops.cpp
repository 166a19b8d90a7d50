#include "simd/loops.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "simd/clones.hpp"
#include "ward/cost.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

constexpr double least_key = std::numeric_limits<double>::min();  // so that a height of 0 is as low as 0

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

REPRUNE_CLONES std::size_t first_sum(const double* __restrict x, const double* __restrict y, std::size_t n, double value) {
    std::size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        std::int64_t any = 0;
        for (std::size_t l = 0; l < 32; ++l) any |= x[i + l] + y[i + l] == value;
        if (any != 0) break;
    }
    while (i < n && x[i] + y[i] != value) ++i;
    return i;
}

REPRUNE_CLONES std::size_t find_either(const std::int32_t* x, std::size_t n, std::int32_t a, std::int32_t b,
                                       std::int32_t* found) {
    std::size_t count = 0, i = 0;
    for (; i < n; i += 32) {  // hits are rare
        std::int32_t any = 0;
        if (i + 32 <= n)
            for (std::size_t l = 0; l < 32; ++l) any |= (x[i + l] == a) | (x[i + l] == b);
        if (i + 32 <= n && any == 0) continue;
        for (std::size_t k = i; k < i + 32 && k < n; ++k)
            if (x[k] == a || x[k] == b) found[count++] = static_cast<std::int32_t>(k);
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

// Division in float32 is fast, and it shows which entries need a division in float64.
REPRUNE_CLONES void ward_keys(double nx, const double* __restrict size, const double* __restrict gone, std::size_t n,
                              double* __restrict squares) {
    for (std::size_t b = 0; b < n; ++b) {
        const float part = 1 / static_cast<float>(nx * size[b] * (nx + size[b]));
        squares[b] = 2 * (squares[b] * static_cast<double>(part)) + gone[b];
    }
}

REPRUNE_CLONES std::size_t find_within(const double* __restrict keys, std::size_t n, double most, std::int32_t* found) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 32) {
        std::int64_t any = 0;
        if (i + 32 <= n)
            for (std::size_t l = 0; l < 32; ++l) any |= keys[i + l] <= most;
        if (i + 32 <= n && any == 0) continue;
        for (std::size_t k = i; k < i + 32 && k < n; ++k)
            if (keys[k] <= most) found[count++] = static_cast<std::int32_t>(k);
    }
    return count;
}

REPRUNE_CLONES std::size_t find_below(const double* __restrict keys, const double* __restrict heights, std::size_t n,
                                      std::int32_t* found) {
    const auto low = [&](std::size_t i) { return keys[i] < heights[i] * heights[i] * key_error + least_key; };
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 32) {
        std::int64_t any = 0;
        if (i + 32 <= n)
            for (std::size_t l = 0; l < 32; ++l) any |= low(i + l);
        if (i + 32 <= n && any == 0) continue;
        for (std::size_t k = i; k < i + 32 && k < n; ++k)
            if (low(k)) found[count++] = static_cast<std::int32_t>(k);
    }
    return count;
}

}  // namespace reprune
