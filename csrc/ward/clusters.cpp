#include "ward/clusters.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/call.hpp"
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
    width = (d + 3) / 4 * 4;
    totals.resize(at(static_cast<std::int64_t>(n) * width));
    size.assign(at(n), 1.0);
    joins.clear();
    joins.reserve(at(n));
    tied = false;
    scan_ = &scanner();
    collapse(points);
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

// A power of two times a point is exact, and so are costs among such: points that differ have none of 0.
bool Clusters::inexact(std::int32_t id) const {
    const auto points = static_cast<std::uint32_t>(size[at(id)]);
    const double* x = total(id);
    return (points & (points - 1)) != 0 && std::any_of(x, x + d, [](double y) { return y != 0; });
}

bool Clusters::inexact() const {
    return std::any_of(live.begin(), live.end(), [&](std::int32_t id) { return inexact(id); });
}

bool Clusters::joined_by_rounding() const {
    for (const std::int32_t id : live) {
        if (!inexact(id)) continue;
        poll(static_cast<std::int64_t>(live.size()) * (d + 4));
        for (const std::int32_t other : live)
            if (other != id && cost(id, other) == 0) return true;
    }
    return false;
}

void Clusters::join(std::int32_t a, std::int32_t b, double cost) {
    const std::int32_t kept = std::max(a, b), gone = std::min(a, b);
    joins.push_back({gone, kept, ward_height(cost)});
    size[at(kept)] += size[at(gone)];
    measure(kept, total(gone));
}

// Equal points are one cluster at height 0 from the start, each joined to the next: scans would find every one of them as near
// as the others.
void Clusters::collapse(const double* points) {
    std::size_t count = 4;
    while (count < 8 * at(n)) count *= 2;  // so that few points meet in a bucket
    buckets_.assign(count, -1);
    mean_.resize(at(width));
    hashes_.resize(at(n));
    scan_->adopt(points, n, d, width, totals.data(), mean_.data(), hashes_.data());
    for (std::int32_t i = n - 1; i >= 0; --i) {
        const double* x = total(i);
        const std::uint64_t hash = hashes_[at(i)];
        std::size_t bucket = (hash ^ hash >> 32) & (count - 1);
        while (buckets_[bucket] >= 0 && std::memcmp(x, total(buckets_[bucket]), 8 * at(d)) != 0)
            bucket = (bucket + 1) & (count - 1);
        if (buckets_[bucket] >= 0) joins.push_back({i, buckets_[bucket], 0.0});
        buckets_[bucket] = i;
    }
    std::reverse(joins.begin(), joins.end());
    equal = joins.size();
    for (const Join& x : joins) size[at(x.kept)] += size[at(x.gone)];
    for (const Join& x : joins) size[at(x.gone)] = 0;
    live.resize(at(n));
    std::size_t left = 0;
    for (std::int32_t i = 0; i < n; ++i) {
        live[left] = i;
        left += size[at(i)] != 0;
        if (size[at(i)] <= 1) continue;
        for (std::int32_t k = 0; k < d; ++k) totals[at(static_cast<std::int64_t>(i) * width + k)] *= size[at(i)];
    }
    live.resize(left);
    for (double& x : mean_) x /= n;
}

void Clusters::begin() {
    words.assign(at(static_cast<std::int64_t>(n) * stride), 0);
    norm.resize(at(n));
    inverse_size.resize(at(n));
    slack.resize(at(n));
    const Extent own = scan_->extent(totals.data(), size.data(), mean_.data(), live.data(),
                                     static_cast<std::int32_t>(live.size()), width);
    const double radius = own.from_mean;  // square of the largest distance to the mean
    spread = own.sum_from_mean;
    furthest = own.from_origin;
    spread /= static_cast<double>(live.size());
    int exponent = 0;
    std::frexp(std::sqrt(furthest), &exponent);
    float_scale = std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
    scale = radius > 0 ? largest_fixed / std::sqrt(radius) : 1;
    fixed_point_fails = !std::isfinite(scale) || d > 4096;
    if (fixed_point_fails) scale = 1;
    for (const std::int32_t id : live) measure(id, nullptr);
}

void Clusters::measure(std::int32_t id, const double* more) {
    const auto row = static_cast<std::int64_t>(id);
    norm[at(id)] = scan_->quantise(totals.data() + row * width, more, mean_.data(), 1 / size[at(id)], scale, width,
                                   words.data() + row * stride);
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
