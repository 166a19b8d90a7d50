#include "linkage/square.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/call.hpp"
#include "simd/clones.hpp"
#include "linkage/greedy.hpp"
#include "simd/loops.hpp"

namespace reprune {
namespace {

// Updates the heights a [n] of a cluster of na points after it merged with one of nb points and heights b.
REPRUNE_CLONES void combine(Method method, std::size_t n, double na, double nb, double between, const double* size,
                            double* __restrict a, const double* __restrict b) {
    if (method == Method::single) {
        for (std::size_t k = 0; k < n; ++k) a[k] = b[k] < a[k] ? b[k] : a[k];
    } else if (method == Method::complete) {
        for (std::size_t k = 0; k < n; ++k) a[k] = b[k] > a[k] ? b[k] : a[k];
    } else if (method == Method::average) {
        for (std::size_t k = 0; k < n; ++k) a[k] = (na * a[k] + nb * b[k]) / (na + nb);
    } else {
        for (std::size_t k = 0; k < n; ++k) {
            const double sum = (na + size[k]) * a[k] * a[k] + (nb + size[k]) * b[k] * b[k] - size[k] * between * between;
            a[k] = std::sqrt(sum > 0 ? sum / (na + nb + size[k]) : 0.0);
        }
    }
}

}  // namespace

Square::Square(std::size_t n, Method method)
    : places_(n), stride_(8 * ((n + 7) / 8 | 1)), method_(method), values_(n * stride_), size_(n, 1.0) {}

void Square::mirror() {  // in tiles
    for (std::size_t i = 0; i < places_; ++i) row(i)[i] = 0;
    for (std::size_t a = 0; a < places_; a += 16) {
        poll(static_cast<std::int64_t>(32 * (places_ - a)));
        for (std::size_t b = a; b < places_; b += 16)
            for (std::size_t j = b; j < std::min(b + 16, places_); ++j) {
                double* to = row(j);
                for (std::size_t i = a; i < std::min(a + 16, j); ++i) to[i] = row(i)[j];
            }
    }
}

void Square::update_nearest(std::size_t i, const double* gone, double* least, std::int32_t* nearest) {
    const double* above = row(i) + i + 1;
    const std::size_t count = places_ - i - 1;
    least[i] = smallest_sum(above, gone + i + 1, count);
    const bool none = std::isinf(least[i]);
    nearest[i] = none ? no_neighbour : static_cast<std::int32_t>(i + 1 + first_sum(above, gone + i + 1, count, least[i]));
}

void Square::offer(std::size_t b, const double* gone, double* least, std::int32_t* nearest) {
    take_lower(row(b), gone, b, static_cast<std::int32_t>(b), least, nearest);
}

void Square::join(std::size_t a, std::size_t b, double height) {
    poll(static_cast<std::int64_t>(4 * places_));
    combine(method_, places_, size_[b], size_[a], height, size_.data(), row(b), row(a));
    size_[b] += size_[a];
    size_[a] = 0;
    const double* now = row(b);
    for (std::size_t k = 0; k < places_; ++k)
        if (size_[k] > 0) row(k)[b] = now[k];
}

void Square::keep(const std::vector<std::size_t>& left) {
    places_ = left.size();
    for (std::size_t i = 0; i < places_; ++i) {
        const double* from = row(left[i]);
        poll(static_cast<std::int64_t>(places_));
        for (std::size_t j = 0; j < places_; ++j) row(i)[j] = from[left[j]];
        size_[i] = size_[left[i]];
    }
}

}  // namespace reprune
