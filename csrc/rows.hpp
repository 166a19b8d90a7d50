// The points of one problem as float64 rows, centred and scaled so that squares neither overflow nor vanish.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "call.hpp"
#include "points.hpp"

namespace reprune {

struct Rows {
    std::int64_t n, d;
    double unit = 1;  // a power of two: distances among the rows times this are those among the points
    std::vector<double> values;  // [n, d]

    explicit Rows(const Points& points) : n(points.n), d(points.d), values(static_cast<std::size_t>(n * d)) {
        double largest = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            if (i % 1024 == 0) hear(2048 * d);
            for (std::int64_t k = 0; k < d; ++k) largest = std::max(largest, std::abs(row(i)[k] = points.at(i, k)));
        }
        scale(largest);
        largest = 0;
        for (std::int64_t k = 0; k < d; ++k) {
            hear(4 * n);
            largest = std::max(largest, centre(k));
        }
        scale(largest);
    }

    double* row(std::int64_t i) { return values.data() + i * d; }
    const double* row(std::int64_t i) const { return values.data() + i * d; }

    double squared(std::int64_t a, std::int64_t b) const {  // ||a - b||^2, the same to the last bit for (b, a)
        const double *x = row(a), *y = row(b);
        double sum = 0;
        for (std::int64_t k = 0; k < d; ++k) sum += (x[k] - y[k]) * (x[k] - y[k]);
        return sum;
    }

  private:
    // Takes a common offset of coordinate k away where that is exact (Sterbenz: all values within a factor of two); where
    // it is not, the spread is no smaller than half the offset. Returns the largest absolute value left.
    double centre(std::int64_t k) {
        double low = row(0)[k], high = low;
        for (std::int64_t i = 1; i < n; ++i) {
            low = std::min(low, row(i)[k]);
            high = std::max(high, row(i)[k]);
        }
        const bool offset = (low > 0 && high <= 2 * low) || (high < 0 && low >= 2 * high);
        if (!offset) return std::max(std::abs(low), std::abs(high));
        const double middle = low + (high - low) / 2;
        for (std::int64_t i = 0; i < n; ++i) row(i)[k] -= middle;
        return std::max(middle - low, high - middle);
    }

    void scale(double largest) {  // to about one, exactly
        if (largest <= 0) return;
        int exponent = 0;
        std::frexp(largest, &exponent);
        if (exponent > -2 && exponent < 4) return;  // about one already
        if (std::abs(exponent) < 1000) {
            const double factor = std::ldexp(1.0, -exponent);
            for (double& v : values) v *= factor;
        } else {
            for (double& v : values) v = std::ldexp(v, -exponent);
        }
        unit = std::ldexp(unit, exponent);
    }
};

}  // namespace reprune
