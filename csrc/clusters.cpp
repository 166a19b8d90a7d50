#include "clusters.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace reprune {
namespace {

constexpr double largest_fixed = 16000;  // norms in fixed point: squared distances stay below 2^30

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

double* Clusters::start(std::int32_t points, std::int32_t coordinates) {
    n = points;
    d = coordinates;
    pairs = (d + 1) / 2;
    stride = (pairs + 7) / 8 * 8;
    rows.resize(at(static_cast<std::int64_t>(n) * d));
    size.assign(at(n), 1.0);
    words.assign(at(static_cast<std::int64_t>(n) * stride), 0);
    norm.resize(at(n));
    share.resize(at(n));
    slack.resize(at(n));
    mean_.resize(at(d));
    joins.clear();
    live.clear();
    return rows.data();
}

double Clusters::cost(std::int32_t a, std::int32_t b) const {
    const double *x = row(a), *y = row(b);
    double sum = 0;
    for (std::int32_t k = 0; k < d; ++k) sum += (x[k] - y[k]) * (x[k] - y[k]);
    const double na = size[at(a)], nb = size[at(b)];
    return na * nb / (na + nb) * sum;
}

void Clusters::join(std::int32_t a, std::int32_t b, double cost) {
    const std::int32_t kept = std::max(a, b), gone = std::min(a, b);
    joins.push_back({gone, kept, cost});
    double* m = rows.data() + static_cast<std::int64_t>(kept) * d;
    const double* x = row(gone);
    const double part = size[at(gone)] / (size[at(kept)] + size[at(gone)]);
    for (std::int32_t k = 0; k < d; ++k) m[k] += part * (x[k] - m[k]);
    size[at(kept)] += size[at(gone)];
    measure(kept);
}

// Equal points are one cluster at cost 0 from the start: scans would find each of them as near as the others.
void Clusters::collapse() {
    std::size_t count = 4;
    while (count < 2 * at(n)) count *= 2;
    buckets_.assign(count, -1);
    for (std::int32_t i = n - 1; i >= 0; --i) {
        double* x = rows.data() + static_cast<std::int64_t>(i) * d;
        std::uint64_t hash = 0, odd = 0x9e3779b97f4a7c15ULL;
        for (std::int32_t k = 0; k < d; ++k, odd += 0xbf58476d1ce4e5baULL) {
            x[k] += 0.0;  // no negative zero
            std::uint64_t word;
            std::memcpy(&word, x + k, 8);
            hash += (word ^ word >> 32) * odd;
        }
        std::size_t bucket = (hash ^ hash >> 32) & (count - 1);
        while (buckets_[bucket] >= 0 && std::memcmp(x, row(buckets_[bucket]), 8 * at(d)) != 0)
            bucket = (bucket + 1) & (count - 1);
        if (buckets_[bucket] < 0) {
            buckets_[bucket] = i;
            live.push_back(i);
        } else {
            joins.push_back({i, buckets_[bucket], 0.0});
            size[at(buckets_[bucket])] += 1;
        }
    }
    std::reverse(live.begin(), live.end());
}

void Clusters::begin() {
    collapse();
    double* mean = mean_.data();
    std::fill_n(mean, d, 0.0);
    for (const std::int32_t id : live)
        for (std::int32_t k = 0; k < d; ++k) mean[k] += row(id)[k];
    for (std::int32_t k = 0; k < d; ++k) mean[k] /= static_cast<double>(live.size());
    spread = 0;
    double radius = 0, furthest = 0;  // squares of the largest distance to the mean and to the origin
    for (const std::int32_t id : live) {
        const double* x = row(id);
        double squared = 0, from_origin = 0;
        for (std::int32_t k = 0; k < d; ++k) {
            squared += (x[k] - mean[k]) * (x[k] - mean[k]);
            from_origin += x[k] * x[k];
        }
        spread += squared;
        radius = std::max(radius, squared);
        furthest = std::max(furthest, from_origin);
    }
    spread /= static_cast<double>(live.size());
    int exponent = 0;
    std::frexp(std::sqrt(furthest), &exponent);
    float_scale = std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
    scale = radius > 0 ? largest_fixed / std::sqrt(radius) : 1;
    coarse = !std::isfinite(scale) || d > 4096;
    if (coarse) scale = 1;
    for (const std::int32_t id : live) measure(id);
}

void Clusters::measure(std::int32_t id) {
    const double *x = row(id), *mean = mean_.data();
    char* out = reinterpret_cast<char*>(words.data() + static_cast<std::int64_t>(id) * stride);
    std::int32_t squared = 0;
    for (std::int32_t k = 0; k < d; ++k) {
        const double y = (x[k] - mean[k]) * scale + 0x1.8p52;  // rounds: the last bits are the integer
        std::uint64_t bits;
        std::memcpy(&bits, &y, 8);
        const auto q = static_cast<std::int16_t>(bits);
        squared += q * q;
        std::memcpy(out + 2 * k, &q, 2);
    }
    norm[at(id)] = squared;
    const auto points = static_cast<float>(size[at(id)]);
    share[at(id)] = 1 / points;
    // each coordinate of a difference is off by at most one, so is the distance by at most sqrt(d)
    slack[at(id)] = 1.01F * std::sqrt(static_cast<float>(d) * points);
}

float key_root(double cost, double scale) {
    const double root = std::sqrt(cost) * scale * (1 + 1e-6);
    return root < 1e18 ? static_cast<float>(root) : 1e18F;
}

}  // namespace reprune
