#include "linkage/distances.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "linkage/scale.hpp"
#include "runtime/call.hpp"
#include "runtime/numbers.hpp"
#include "runtime/pool.hpp"
#include "simd/loops.hpp"
#include "ward/cost.hpp"

namespace reprune {
namespace {

constexpr std::size_t tile = 16;    // columns that are mirrored together: two cache lines
constexpr std::size_t block = 64;  // rows of an item of work

void scale_back(double* row, std::size_t count, int exponent) {
    if (exponent == 0) return;
    if (exponent > -1000 && exponent < 1000) {  // a power of two that there is, so this rounds once, as ldexp does
        const double factor = std::ldexp(1.0, exponent);
        for (std::size_t k = 0; k < count; ++k) row[k] *= factor;
    } else {
        for (std::size_t k = 0; k < count; ++k) row[k] = std::ldexp(row[k], exponent);
    }
}

}  // namespace

Distances::Distances(const double* rows, std::size_t n, std::size_t d, bool wide)
    : rows_(rows), n_(n), d_(d), wide_(wide), turned_(wide ? 0 : n * d) {
    if (wide) return;
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < d; ++k) turned_[k * n + i] = rows[i * d + k];
}

void Distances::above(std::size_t a, double* row) const {
    const std::size_t count = n_ - a - 1;
    poll(static_cast<std::int64_t>(count * (d_ + 8) * (wide_ ? 16 : 1)));  // the first touch of a page is slow
    if (wide_) {
        std::vector<double> steps(d_);
        for (std::size_t b = a + 1; b < n_; ++b) {
            for (std::size_t k = 0; k < d_; ++k) steps[k] = rows_[a * d_ + k] - rows_[b * d_ + k];
            row[b - a - 1] = wide_height(steps.data(), static_cast<std::int64_t>(d_), 1, 1);
        }
        return;
    }
    std::fill_n(row, count, 0.0);
    for (std::size_t k = 0; k < d_; ++k) add_squares(turned_[k * n_ + a], turned_.data() + k * n_ + a + 1, count, row);
    roots(row, count);
}

void pairwise(const Points& points, int threads, double* out) {
    const std::size_t n = at(points.n), d = at(points.d);
    std::vector<double> rows(n * d);
    const Scale scale = load(points, rows.data());
    const Distances distances(rows.data(), n, d, scale.wide);
    const auto blocks = static_cast<std::int64_t>((n + block - 1) / block);
    parallel_for(blocks, threads, [&](std::int64_t item) {
        const std::size_t begin = at(item) * block;
        for (std::size_t a = begin; a < std::min(begin + block, n); ++a) {
            double* row = out + a * n;
            row[a] = 0;
            distances.above(a, row + a + 1);
            scale_back(row + a + 1, n - a - 1, scale.exponent);
        }
    });
    parallel_for(blocks, threads, [&](std::int64_t item) {  // the lower half, from the upper one
        const std::size_t begin = at(item) * block, end = std::min(begin + block, n);
        poll(static_cast<std::int64_t>(2 * end * block));
        for (std::size_t from = 0; from < end; from += tile)
            for (std::size_t i = begin; i < end; ++i)
                for (std::size_t j = from; j < std::min(from + tile, i); ++j) out[i * n + j] = out[j * n + i];
    });
}

}  // namespace reprune
