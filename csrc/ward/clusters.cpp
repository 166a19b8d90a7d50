#include "ward/clusters.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ward/cost.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

constexpr double largest_fixed = 16000;  // norms in fixed point: squared distances stay below 2^30

}  // namespace

void Clusters::start(const double* points, std::int32_t count, std::int32_t coordinates) {
    n = count;
    d = coordinates;
    pairs = (d + 1) / 2;
    stride = (pairs + 7) / 8 * 8;
    totals.assign(points, points + static_cast<std::int64_t>(n) * d);
    size.assign(at(n), 1.0);
    joins.clear();
    live.clear();
    tied = false;
    collapse();
}

double Clusters::cost(std::int32_t a, std::int32_t b) const {
    const double *x = total(a), *y = total(b);
    const double na = size[at(a)], nb = size[at(b)];
    double squares = 0;
    for (std::int32_t k = 0; k < d; ++k) {
        const double step = ward_step(x[k], na, y[k], nb);
        squares += step * step;
    }
    return ward_cost(squares, na, nb);
}

// The root of a cost is off by at most n 2^-51 (root + ||mean|| sqrt(size)) for either cluster, n being the depth of a total: the
// other's mean is no further from the origin than this one's and the distance.
bool Clusters::blurred(std::int32_t id, double lower, double higher) const {
    const double* x = total(id);
    double squares = 0;
    for (std::int32_t k = 0; k < d; ++k) squares += x[k] * x[k];
    const double root = std::sqrt(lower), off = (n + d) * 0x1p-48 * (root + std::sqrt(squares / size[at(id)]));
    return std::sqrt(higher) <= root + off;
}

bool Clusters::blurred(double limit) const {
    return n * 0x1p-48 * std::sqrt(n * furthest) > 0x1p-12 * std::sqrt(limit);
}

void Clusters::join(std::int32_t a, std::int32_t b, double cost) {
    const std::int32_t kept = std::max(a, b), gone = std::min(a, b);
    joins.push_back({gone, kept, ward_height(cost)});
    double* sum = totals.data() + static_cast<std::int64_t>(kept) * d;
    const double* x = total(gone);
    for (std::int32_t k = 0; k < d; ++k) sum[k] += x[k];
    size[at(kept)] += size[at(gone)];
    measure(kept);
}

// Equal points are one cluster at height 0 from the start, each joined to the next: scans would find every one of them as near
// as the others.
void Clusters::collapse() {
    std::size_t count = 4;
    while (count < 2 * at(n)) count *= 2;
    buckets_.assign(count, -1);
    for (std::int32_t i = n - 1; i >= 0; --i) {
        double* x = totals.data() + static_cast<std::int64_t>(i) * d;
        std::uint64_t hash = 0, odd = 0x9e3779b97f4a7c15ULL;
        for (std::int32_t k = 0; k < d; ++k, odd += 0xbf58476d1ce4e5baULL) {
            x[k] += 0.0;  // no negative zero
            std::uint64_t word;
            std::memcpy(&word, x + k, 8);
            hash += (word ^ word >> 32) * odd;
        }
        std::size_t bucket = (hash ^ hash >> 32) & (count - 1);
        while (buckets_[bucket] >= 0 && std::memcmp(x, total(buckets_[bucket]), 8 * at(d)) != 0)
            bucket = (bucket + 1) & (count - 1);
        if (buckets_[bucket] >= 0) joins.push_back({i, buckets_[bucket], 0.0});
        buckets_[bucket] = i;
    }
    std::reverse(joins.begin(), joins.end());
    for (const Join& x : joins) size[at(x.kept)] += size[at(x.gone)];
    for (const Join& x : joins) size[at(x.gone)] = 0;
    for (std::int32_t i = 0; i < n; ++i) {
        if (size[at(i)] == 0) continue;
        live.push_back(i);
        for (std::int32_t k = 0; k < d; ++k) totals[at(static_cast<std::int64_t>(i) * d + k)] *= size[at(i)];
    }
}

void Clusters::begin() {
    words.assign(at(static_cast<std::int64_t>(n) * stride), 0);
    norm.resize(at(n));
    inverse_size.resize(at(n));
    slack.resize(at(n));
    mean_.assign(at(d), 0.0);
    double* mean = mean_.data();
    for (const std::int32_t id : live) {
        const double part = 1 / size[at(id)];
        for (std::int32_t k = 0; k < d; ++k) mean[k] += total(id)[k] * part;
    }
    for (std::int32_t k = 0; k < d; ++k) mean[k] /= static_cast<double>(live.size());
    spread = furthest = 0;
    double radius = 0;  // square of the largest distance to the mean
    for (const std::int32_t id : live) {
        const double part = 1 / size[at(id)];
        double squared = 0, from_origin = 0;
        for (std::int32_t k = 0; k < d; ++k) {
            const double x = total(id)[k] * part;
            squared += (x - mean[k]) * (x - mean[k]);
            from_origin += x * x;
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
    fixed_point_fails = !std::isfinite(scale) || d > 4096;
    if (fixed_point_fails) scale = 1;
    for (const std::int32_t id : live) measure(id);
}

void Clusters::measure(std::int32_t id) {
    const double *sum = total(id), *mean = mean_.data();
    const double part = 1 / size[at(id)];
    char* out = reinterpret_cast<char*>(words.data() + static_cast<std::int64_t>(id) * stride);
    std::int32_t squared = 0;
    for (std::int32_t k = 0; k < d; ++k) {
        const double y = (sum[k] * part - mean[k]) * scale + 0x1.8p52;  // rounds: the last bits are the integer
        std::uint64_t bits;
        std::memcpy(&bits, &y, 8);
        const auto q = static_cast<std::int16_t>(bits);
        squared += q * q;
        std::memcpy(out + 2 * k, &q, 2);
    }
    norm[at(id)] = squared;
    const auto points = static_cast<float>(size[at(id)]);
    inverse_size[at(id)] = 1 / points;
    // each coordinate of a difference is off by at most one, so is the distance by at most sqrt(d)
    slack[at(id)] = 1.01F * std::sqrt(static_cast<float>(d) * points);
}

float key_root(double cost, double scale) {
    const double root = std::sqrt(cost) * scale * (1 + 1e-6);
    return root < 1e18 ? static_cast<float>(root) : 1e18F;
}

}  // namespace reprune
