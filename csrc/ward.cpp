#include "ward.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace reprune {
namespace {

constexpr double largest_fixed = 16000;        // norms in fixed point: squared distances stay below 2^30
constexpr std::int32_t nowhere = 1 << 30;      // squared distance of an empty lane, and of a cluster to itself
constexpr float rounding = 6.0e-8F;            // of float32, 2^-24

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

double* Ward::start(std::int32_t n, std::int32_t d) {
    n_ = n;
    d_ = d;
    pairs_ = (d + 1) / 2;
    rows_.resize(at(static_cast<std::int64_t>(n) * d));
    size_.assign(at(n), 1.0);
    mean_.resize(at(d));
    for (auto* ids : {&id_, &slot_, &found_, &count_}) ids->resize(at(n + lanes));
    blocks_.resize(at(64LL * (n / lanes + 1) * (d + 2)));
    keys_.resize(at(n + lanes));
    query_.resize(at(d));
    words_.assign(at(static_cast<std::int64_t>(n) * pairs_), 0);
    norm_.resize(at(n));
    share_.resize(at(n));
    slack_.resize(at(n));
    joins.clear();
    return rows_.data();
}

double Ward::cost(std::int32_t a, std::int32_t b) const {
    const double *x = rows_.data() + static_cast<std::int64_t>(a) * d_, *y = rows_.data() + static_cast<std::int64_t>(b) * d_;
    double sum = 0;
    for (std::int32_t k = 0; k < d_; ++k) sum += (x[k] - y[k]) * (x[k] - y[k]);
    const double na = size_[at(a)], nb = size_[at(b)];
    return na * nb / (na + nb) * sum;
}

void Ward::begin(const std::int32_t* parent) {
    final_.clear();
    if (parent == nullptr) {
        // equal points are one cluster at cost 0 from the start: scans would find each of them as near as the others
        std::size_t buckets = 4;
        while (buckets < 2 * at(n_)) buckets *= 2;
        forest_.assign(buckets, -1);
        for (std::int32_t i = n_ - 1; i >= 0; --i) {
            double* row = rows_.data() + static_cast<std::int64_t>(i) * d_;
            std::uint64_t hash = 0, odd = 0x9e3779b97f4a7c15ULL;
            for (std::int32_t k = 0; k < d_; ++k, odd += 0xbf58476d1ce4e5baULL) {
                row[k] += 0.0;  // no negative zero
                std::uint64_t word;
                std::memcpy(&word, row + k, 8);
                hash += (word ^ word >> 32) * odd;
            }
            std::size_t bucket = (hash ^ hash >> 32) & (buckets - 1);
            while (forest_[bucket] >= 0 &&
                   std::memcmp(row, rows_.data() + static_cast<std::int64_t>(forest_[bucket]) * d_, 8 * at(d_)) != 0)
                bucket = (bucket + 1) & (buckets - 1);
            if (forest_[bucket] < 0) {
                forest_[bucket] = i;
                final_.push_back(i);
            } else {
                joins.push_back({i, forest_[bucket], 0.0});
                size_[at(forest_[bucket])] += 1;
            }
        }
    } else {
        // clusters found before: their means from their points
        for (std::int32_t i = n_ - 1; i >= 0; --i) count_[at(i)] = parent[i] == i ? i : count_[at(parent[i])];
        for (std::int32_t i = n_ - 1; i >= 0; --i) {
            const std::int32_t root = count_[at(i)];
            if (root == i) {
                final_.push_back(i);
                continue;
            }
            double *m = rows_.data() + static_cast<std::int64_t>(root) * d_, *x = rows_.data() + static_cast<std::int64_t>(i) * d_;
            for (std::int32_t k = 0; k < d_; ++k) m[k] += x[k];
            size_[at(root)] += 1;
        }
        for (const std::int32_t root : final_)
            for (std::int32_t k = 0; k < d_; ++k) rows_[at(static_cast<std::int64_t>(root) * d_ + k)] /= size_[at(root)];
    }
    std::fill(mean_.begin(), mean_.end(), 0.0);
    for (const std::int32_t id : final_)
        for (std::int32_t k = 0; k < d_; ++k) mean_[at(k)] += rows_[at(static_cast<std::int64_t>(id) * d_ + k)];
    for (double& m : mean_) m /= static_cast<double>(final_.size());
    double radius = 0;
    scatter = 0;
    for (const std::int32_t id : final_) {
        double squared = 0;
        for (std::int32_t k = 0; k < d_; ++k) {
            const double x = rows_[at(static_cast<std::int64_t>(id) * d_ + k)] - mean_[at(k)];
            squared += x * x;
        }
        radius = std::max(radius, squared);
        scatter += size_[at(id)] * squared;
    }
    scale_ = radius > 0 ? largest_fixed / std::sqrt(radius) : 1;
    fixed_ = std::isfinite(scale_) && d_ <= 4096;
    scans_ = candidates_ = 0;
}

void Ward::pack() {
    const std::int32_t words = fixed_ ? pairs_ + 2 : d_ + 1;
    const std::int32_t count = (live_ + lanes - 1) / lanes;
    std::memset(blocks_.data(), 0, 64 * at(count) * at(words));
    for (std::int32_t s = 0; s < count * lanes; ++s) {
        if (s < live_) {
            enter(s, id_[at(s)]);
        } else {
            leave(s);
        }
    }
}

void Ward::measure(std::int32_t id) {
    const double* row = rows_.data() + static_cast<std::int64_t>(id) * d_;
    std::int32_t* words = words_.data() + static_cast<std::int64_t>(id) * pairs_;
    std::int32_t norm = 0;
    for (std::int32_t k = 0; k < d_; ++k) {
        const double x = (row[k] - mean_[at(k)]) * scale_;
        const auto q = static_cast<std::int16_t>(static_cast<std::int32_t>(x + std::copysign(0.5, x)));
        norm += q * q;
        std::memcpy(reinterpret_cast<char*>(words) + 2 * k, &q, 2);
    }
    norm_[at(id)] = norm;
    const auto size = static_cast<float>(size_[at(id)]);
    share_[at(id)] = 1 / size;
    // each coordinate of a difference is off by at most one, so is the distance by at most sqrt(d)
    slack_[at(id)] = 1.01F * std::sqrt(static_cast<float>(d_) * size);
}

void Ward::enter(std::int32_t slot, std::int32_t id) {
    id_[at(slot)] = id;
    slot_[at(id)] = slot;
    if (fixed_) {
        char* block = blocks_.data() + 64LL * (slot / lanes) * (pairs_ + 2) + 4 * (slot % lanes);
        const std::int32_t* words = words_.data() + static_cast<std::int64_t>(id) * pairs_;
        for (std::int32_t p = 0; p < pairs_; ++p) std::memcpy(block + 64 * p, words + p, 4);
        std::memcpy(block + 64 * pairs_, &norm_[at(id)], 4);
        std::memcpy(block + 64 * (pairs_ + 1), &share_[at(id)], 4);
    } else {
        const double* row = rows_.data() + static_cast<std::int64_t>(id) * d_;
        char* block = blocks_.data() + 64LL * (slot / lanes) * (d_ + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < d_; ++k) {
            const auto x = static_cast<float>(row[k]);
            std::memcpy(block + 64 * k, &x, 4);
        }
        std::memcpy(block + 64 * d_, &share_[at(id)], 4);
    }
}

// An empty lane: as far away as a lane can be.
void Ward::leave(std::int32_t slot) {
    const float none = 0;
    if (fixed_) {
        char* block = blocks_.data() + 64LL * (slot / lanes) * (pairs_ + 2) + 4 * (slot % lanes);
        for (std::int32_t p = 0; p < pairs_; ++p) std::memset(block + 64 * p, 0, 4);
        std::memcpy(block + 64 * pairs_, &nowhere, 4);
        std::memcpy(block + 64 * (pairs_ + 1), &none, 4);
    } else {
        const float far = 1e15F;
        char* block = blocks_.data() + 64LL * (slot / lanes) * (d_ + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < d_; ++k) std::memcpy(block + 64 * k, &far, 4);
        std::memcpy(block + 64 * d_, &none, 4);
    }
}

// The cluster nearest to `tip`, of equally near ones `before`, then the one with the smallest id; -1 if it is certain
// that none is within `limit`. *reached: the cost, NaN where the neighbour was plain without it.
std::int32_t Ward::nearest(std::int32_t tip, std::int32_t before, double limit, double* reached) {
    const Scanner& scan = *scan_;
    const std::int32_t slot = slot_[at(tip)], count = (live_ + lanes - 1) / lanes;
    const float share = share_[at(tip)];
    float least, slack;
    if (fixed_) {
        char* block = blocks_.data() + 64LL * (slot / lanes) * (pairs_ + 2) + 4 * (slot % lanes) + 64 * pairs_;
        const std::int32_t norm = norm_[at(tip)], away = nowhere + 2 * norm;
        const float none = 0;
        std::memcpy(block, &away, 4);  // the query's own lane is no neighbour
        std::memcpy(block + 64, &none, 4);
        const std::int32_t* words = words_.data() + static_cast<std::int64_t>(tip) * pairs_;
        least = scan.fixed(blocks_.data(), count, pairs_, {words, norm, share}, keys_.data());
        std::memcpy(block, &norm, 4);
        std::memcpy(block + 64, &share, 4);
        slack = slack_[at(tip)];
    } else {
        const double* row = rows_.data() + static_cast<std::int64_t>(tip) * d_;
        float norm = 0;
        for (std::int32_t k = 0; k < d_; ++k) {
            query_[at(k)] = static_cast<float>(row[k]);
            norm += query_[at(k)] * query_[at(k)];
        }
        scan.floating(blocks_.data(), count, d_, {query_.data(), share}, keys_.data());
        keys_[at(slot)] = 3e38F;
        least = *std::min_element(keys_.begin(), keys_.begin() + count * lanes);
        // coordinates are rounded relative to the larger cluster's norm, at most ||a|| plus the distance
        slack = 2.2F * rounding * std::sqrt(norm / share) + 1e-18F;
    }
    const float root = std::sqrt(std::max(least, 0.0F));
    if (root * (1 - error_) - slack > limit_root_) return -1;
    const float ceiling = (root + 2 * slack) * (1 + error_);
    const std::int32_t found = scan.gather(keys_.data(), count, ceiling * ceiling * (1 + error_), found_.data());
    ++scans_;
    candidates_ += found;
    if (found == 1 && before >= 0) {  // certain, and within the limit, as the way here was
        *reached = std::nan("");
        return id_[at(found_[0])];
    }
    std::int32_t best = -1;
    double lowest = 0;
    for (std::int32_t f = 0; f < found; ++f) {
        if (found_[at(f)] >= live_ || found_[at(f)] == slot) continue;
        const std::int32_t other = id_[at(found_[at(f)])];
        const double c = cost(tip, other);
        if (best < 0 || c < lowest || (c == lowest && best != before && (other == before || other < best))) {
            best = other;
            lowest = c;
        }
    }
    *reached = lowest;
    return lowest <= limit ? best : -1;
}

void Ward::run(double limit) {
    live_ = static_cast<std::int32_t>(final_.size());
    scan_ = &scanner();
    const auto units = [&] {  // of the keys' roots
        error_ = scan_->error + (fixed_ ? 3 : static_cast<float>(d_) + 8) * rounding;
        const double root = std::sqrt(limit) * (fixed_ ? scale_ : 1.0) * (1 + 1e-6);
        limit_root_ = root < 3e38 ? static_cast<float>(root) : 3e38F;
    };
    units();
    if (fixed_)
        for (const std::int32_t id : final_) measure(id);
    else
        for (const std::int32_t id : final_) share_[at(id)] = static_cast<float>(1 / size_[at(id)]);
    std::sort(final_.begin(), final_.end());
    std::copy(final_.begin(), final_.end(), id_.begin());
    final_.clear();
    path_.clear();
    pack();
    const auto remove = [&](std::int32_t id) {  // the last cluster fills the hole
        const std::int32_t slot = slot_[at(id)], last = --live_;
        if (slot != last) enter(slot, id_[at(last)]);
        leave(last);
    };
    while (live_ > 1) {
        if (fixed_ && scans_ >= 64 && candidates_ > 4 * scans_) {  // fixed point is too coarse for these points
            fixed_ = false;
            units();
            pack();
        }
        if (path_.empty()) path_.push_back(id_[at(live_ - 1)]);
        const std::int32_t tip = path_.back(), before = path_.size() > 1 ? path_[path_.size() - 2] : -1;
        double reached = 0;
        const std::int32_t next = nearest(tip, before, limit, &reached);
        if (next < 0) {  // by reducibility no later join comes nearer to it
            final_.push_back(tip);
            path_.pop_back();
            remove(tip);
            continue;
        }
        if (next != before) {
            path_.push_back(next);
            continue;
        }
        path_.resize(path_.size() - 2);
        const std::int32_t kept = std::max(tip, before), gone = std::min(tip, before);
        joins.push_back({gone, kept, std::isnan(reached) ? cost(tip, before) : reached});
        double *m = rows_.data() + static_cast<std::int64_t>(kept) * d_, *x = rows_.data() + static_cast<std::int64_t>(gone) * d_;
        const double share = size_[at(gone)] / (size_[at(kept)] + size_[at(gone)]);
        for (std::int32_t k = 0; k < d_; ++k) m[k] += share * (x[k] - m[k]);
        size_[at(kept)] += size_[at(gone)];
        remove(gone);
        measure(kept);
        enter(slot_[at(kept)], kept);
    }
    if (live_ == 1) final_.push_back(id_[0]);
}

}  // namespace reprune
