#include "linkage/scale.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/call.hpp"
#include "runtime/numbers.hpp"
#include "simd/prefetch.hpp"

namespace reprune {
namespace {

constexpr int moderate = 60;  // exponents up to this are left alone
constexpr int narrow = 300;   // and so are exponents that differ by as much: squares stay above 2^-1000
constexpr int top = 900;      // exponent of the largest of wide numbers: all others stay, and products with sizes are finite

Scale resize(double* rows, std::int64_t count) {
    double largest = 0, least = infinity;
    for (std::int64_t i = 0; i < count; ++i) {
        const double x = std::abs(rows[i]);
        largest = std::max(largest, x);
        least = x > 0 && x < least ? x : least;
    }
    if (largest == 0) return {};
    int high = 0, low = 0;
    std::frexp(largest, &high);
    std::frexp(least, &low);
    Scale scale;
    scale.wide = high - low > narrow;
    if (!scale.wide && std::abs(high) <= moderate) return scale;
    scale.exponent = scale.wide ? high - top : high;
    for (std::int64_t i = 0; i < count; ++i) rows[i] = std::ldexp(rows[i], -scale.exponent);
    return scale;
}

// Subtracts the offset of a coordinate where all values lie within a factor of two: then that is exact (Sterbenz). Otherwise
// values are no smaller than half their differences.
void centre(double* rows, std::int64_t n, std::int64_t d) {
    for (std::int64_t k = 0; k < d; ++k) {
        poll(n);
        double low = rows[k], high = low;
        for (std::int64_t i = 1; i < n; ++i) {
            const double x = rows[i * d + k];
            low = std::min(low, x);
            high = std::max(high, x);
            if (low <= 0 && high >= 0) break;  // the usual case, soon found
        }
        if (!((low > 0 && high <= 2 * low) || (high < 0 && low >= 2 * high))) continue;
        const double middle = low + (high - low) / 2;
        for (std::int64_t i = 0; i < n; ++i) rows[i * d + k] -= middle;
    }
}

// What stands behind a row is that of the next problem, where problems are channels of a weight, and each row is on a page of
// its own: it is fetched while this problem is clustered.
template <class Number>
void copy(const Points& points, const Number* data, double* rows) {
    std::int64_t i = 0;
    if (points.stride_d == 1 && points.stride_n > 3 && points.d > 1) {
        // four at a time: what is too much is of the next row, and written over; so not of the last one
        for (; i + 1 < points.n; ++i, rows += points.d) {
            if (i % 1024 == 0) poll(2048 * points.d);
            const Number* row = data + i * points.stride_n;
            REPRUNE_PREFETCH(row + 2 * points.d);
            for (std::int64_t k = 0; k < points.d; k += 4)
                for (int l = 0; l < 4; ++l) rows[k + l] = static_cast<double>(row[k + l]);
        }
    }
    for (; i < points.n; ++i) {
        if (i % 1024 == 0) poll(2048 * points.d);
        const Number* row = data + i * points.stride_n;
        REPRUNE_PREFETCH(row + 2 * points.d);
        for (std::int64_t k = 0; k < points.d; ++k) *rows++ = static_cast<double>(row[k * points.stride_d]);
    }
}

}  // namespace

Scale scale(double* rows, std::int64_t n, std::int64_t d, bool single) {
    const Scale result = single ? Scale{} : resize(rows, n * d);
    centre(rows, n, d);
    return result;
}

Scale load(const Points& points, double* rows) {
    if (points.is_double) {
        copy(points, static_cast<const double*>(points.data), rows);
    } else {
        copy(points, static_cast<const float*>(points.data), rows);
    }
    return scale(rows, points.n, points.d, !points.is_double);
}

}  // namespace reprune
