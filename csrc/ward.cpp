#include "ward.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace reprune {
namespace {

constexpr double largest_fixed = 16000;        // norms in fixed point: squared distances stay below 2^30
constexpr std::int32_t nowhere = 1 << 30;      // squared distance of an empty lane, and of a cluster to itself
constexpr float far = 1e15F;                   // coordinate of an empty lane; others are of order one
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
    memory_.resize(at(64LL * (n / lanes + 1) * (d + 2)) + 64);
    blocks_ = memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64;
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
    double* mean = mean_.data();
    std::fill_n(mean, d_, 0.0);
    for (const std::int32_t id : final_) {
        const double* row = rows_.data() + static_cast<std::int64_t>(id) * d_;
        for (std::int32_t k = 0; k < d_; ++k) mean[k] += row[k];
    }
    for (std::int32_t k = 0; k < d_; ++k) mean[k] /= static_cast<double>(final_.size());
    double radius = 0, norm = 0;  // squares of the largest distance to the mean and to the origin
    for (const std::int32_t id : final_) {
        const double* row = rows_.data() + static_cast<std::int64_t>(id) * d_;
        double squared = 0, from_origin = 0;
        for (std::int32_t k = 0; k < d_; ++k) {
            squared += (row[k] - mean[k]) * (row[k] - mean[k]);
            from_origin += row[k] * row[k];
        }
        radius = std::max(radius, squared);
        norm = std::max(norm, from_origin);
    }
    int exponent = 0;
    std::frexp(std::sqrt(norm), &exponent);
    float_scale_ = std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
    scale_ = radius > 0 ? largest_fixed / std::sqrt(radius) : 1;
    fixed_ = std::isfinite(scale_) && d_ <= 4096;
    scans_ = candidates_ = 0;
}

void Ward::pack() {
    const std::int32_t words = fixed_ ? pairs_ + 2 : d_ + 1;
    const std::int32_t count = (live_ + lanes - 1) / lanes;
    std::memset(blocks_, 0, 64 * at(count) * at(words));
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
        char* block = blocks_ + 64LL * (slot / lanes) * (pairs_ + 2) + 4 * (slot % lanes);
        const std::int32_t* words = words_.data() + static_cast<std::int64_t>(id) * pairs_;
        for (std::int32_t p = 0; p < pairs_; ++p) std::memcpy(block + 64 * p, words + p, 4);
        std::memcpy(block + 64 * pairs_, &norm_[at(id)], 4);
        std::memcpy(block + 64 * (pairs_ + 1), &share_[at(id)], 4);
    } else {
        const double* row = rows_.data() + static_cast<std::int64_t>(id) * d_;
        char* block = blocks_ + 64LL * (slot / lanes) * (d_ + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < d_; ++k) {
            const auto x = static_cast<float>(row[k] * float_scale_);
            std::memcpy(block + 64 * k, &x, 4);
        }
        std::memcpy(block + 64 * d_, &share_[at(id)], 4);
    }
}

// An empty lane: as far away as a lane can be.
void Ward::leave(std::int32_t slot) {
    const float none = 0;
    if (fixed_) {
        char* block = blocks_ + 64LL * (slot / lanes) * (pairs_ + 2) + 4 * (slot % lanes);
        for (std::int32_t p = 0; p < pairs_; ++p) std::memset(block + 64 * p, 0, 4);
        std::memcpy(block + 64 * pairs_, &nowhere, 4);
        std::memcpy(block + 64 * (pairs_ + 1), &none, 4);
    } else {
        char* block = blocks_ + 64LL * (slot / lanes) * (d_ + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < d_; ++k) std::memcpy(block + 64 * k, &far, 4);
        std::memcpy(block + 64 * d_, &none, 4);
    }
}

Least Ward::scan(float* keys) const {
    const std::int32_t count = (live_ + lanes - 1) / lanes;
    if (fixed_) {
        const FixedQuery query{words_.data() + static_cast<std::int64_t>(tip_) * pairs_, norm_[at(tip_)], share_[at(tip_)]};
        return scan_->fixed(blocks_, count, pairs_, query, keys);
    }
    return scan_->floating(blocks_, count, d_, {query_.data(), share_[at(tip_)]}, keys);
}

void Ward::hide() {
    if (fixed_) {
        const std::int32_t away = nowhere + 2 * norm_[at(tip_)];
        const float none = 0;
        std::memcpy(own_ + 64 * pairs_, &away, 4);
        std::memcpy(own_ + 64 * (pairs_ + 1), &none, 4);
    } else {
        std::memcpy(own_, &far, 4);
    }
}

void Ward::restore() {
    if (fixed_) {
        std::memcpy(own_ + 64 * pairs_, &norm_[at(tip_)], 4);
        std::memcpy(own_ + 64 * (pairs_ + 1), &share_[at(tip_)], 4);
    } else {
        std::memcpy(own_, &first_, 4);
    }
}

void Ward::look() {
    if (fixed_ && scans_ >= 64 && candidates_ > 4 * scans_) {  // fixed point is too coarse for these points
        fixed_ = false;
        units();
        pack();
    }
    if (path_.empty()) path_.push_back(id_[at(live_ - 1)]);
    tip_ = path_.back();
    const std::int32_t slot = slot_[at(tip_)];
    own_ = blocks_ + 64LL * (fixed_ ? pairs_ + 2 : d_ + 1) * (slot / lanes) + 4 * (slot % lanes);
    if (fixed_) {
        slack_now_ = slack_[at(tip_)];
    } else {
        const double* row = rows_.data() + static_cast<std::int64_t>(tip_) * d_;
        float norm = 0;
        for (std::int32_t k = 0; k < d_; ++k) {
            query_[at(k)] = static_cast<float>(row[k] * float_scale_);
            norm += query_[at(k)] * query_[at(k)];
        }
        first_ = query_[0];
        // coordinates are rounded relative to the larger cluster's norm, at most ||a|| plus the distance
        slack_now_ = 2.2F * rounding * std::sqrt(norm / share_[at(tip_)]) + 1e-18F;
    }
    hide();
    least_ = scan(nullptr);
    restore();
}

// The cluster nearest to the tip, of equally near ones `before`, then the one with the smallest id; -1 if none is within the
// limit. *reached: the cost, NaN where there was no need to know it.
std::int32_t Ward::nearest(std::int32_t before, double* reached) {
    const float final = (limit_root_ + slack_now_) * (1 + error_);
    if (least_.key > final * final * (1 + error_)) return -1;
    ++scans_;
    const float root = std::sqrt(std::max(least_.key, 0.0F)), ceiling = (root + 2 * slack_now_) * (1 + error_);
    const float clear = ceiling * ceiling * (1 + error_);
    if (least_.second > clear) {  // no other comes near: this is the nearest, also in float64
        ++candidates_;
        const std::int32_t other = id_[at(least_.index)];
        *reached = std::nan("");  // after the first step the chain is within the limit
        if (before < 0) *reached = cost(tip_, other);
        return *reached > limit_ ? -1 : other;
    }
    hide();
    scan(keys_.data());
    restore();
    const std::int32_t found = scan_->gather(keys_.data(), (live_ + lanes - 1) / lanes, clear, found_.data());
    candidates_ += found;
    std::int32_t best = -1;
    double lowest = 0;
    for (std::int32_t f = 0; f < found; ++f) {
        if (found_[at(f)] >= live_ || id_[at(found_[at(f)])] == tip_) continue;
        const std::int32_t other = id_[at(found_[at(f)])];
        const double c = cost(tip_, other);
        if (best < 0 || c < lowest || (c == lowest && best != before && (other == before || other < best))) {
            best = other;
            lowest = c;
        }
    }
    *reached = lowest;
    return lowest <= limit_ ? best : -1;
}

void Ward::remove(std::int32_t id) {  // the last cluster fills the hole
    const std::int32_t slot = slot_[at(id)], last = --live_;
    if (slot != last) enter(slot, id_[at(last)]);
    leave(last);
}

bool Ward::decide() {
    const std::int32_t before = path_.size() > 1 ? path_[path_.size() - 2] : -1;
    double reached = 0;
    const std::int32_t next = nearest(before, &reached);
    if (next < 0) {  // by reducibility no later join comes nearer to it
        final_.push_back(tip_);
        path_.pop_back();
        remove(tip_);
    } else if (next != before) {
        path_.push_back(next);
    } else {
        path_.resize(path_.size() - 2);
        const std::int32_t kept = std::max(tip_, before), gone = std::min(tip_, before);
        joins.push_back({gone, kept, std::isnan(reached) ? cost(tip_, before) : reached});
        double* m = rows_.data() + static_cast<std::int64_t>(kept) * d_;
        const double* x = rows_.data() + static_cast<std::int64_t>(gone) * d_;
        const double share = size_[at(gone)] / (size_[at(kept)] + size_[at(gone)]);
        for (std::int32_t k = 0; k < d_; ++k) m[k] += share * (x[k] - m[k]);
        size_[at(kept)] += size_[at(gone)];
        remove(gone);
        measure(kept);
        enter(slot_[at(kept)], kept);
    }
    if (live_ > 1) return true;
    if (live_ == 1) final_.push_back(id_[0]);
    return false;
}

void Ward::units() {  // of the keys' roots
    int bits = 2;  // of a key that may be taken for the lane's number
    while ((live_ >> (bits - 2)) != 0) ++bits;
    error_ = scan_->error + (fixed_ ? 3 : static_cast<float>(d_) + 8) * rounding + std::ldexp(1.0F, bits - 23);
    const double root = std::sqrt(limit_) * (fixed_ ? scale_ : float_scale_) * (1 + 1e-6);
    limit_root_ = root < 1e18 ? static_cast<float>(root) : 1e18F;
}

bool Ward::open(double limit) {
    limit_ = limit;
    scan_ = &scanner();
    live_ = static_cast<std::int32_t>(final_.size());
    units();
    for (const std::int32_t id : final_) measure(id);
    std::sort(final_.begin(), final_.end());
    std::copy(final_.begin(), final_.end(), id_.begin());
    final_.clear();
    path_.clear();
    pack();
    if (live_ == 1) final_.push_back(id_[0]);
    return live_ > 1;
}

void Ward::run(double limit) {
    bool more = open(limit);
    while (more) {
        look();
        more = decide();
    }
}

void Ward::run(Ward& a, Ward& b, double limit) {
    bool more_a = a.open(limit), more_b = b.open(limit);
    if (more_a) a.look();
    while (more_a && more_b) {
        b.look();
        more_a = a.decide();
        if (more_a) a.look();
        more_b = b.decide();
    }
    while (more_a) {
        more_a = a.decide();
        if (more_a) a.look();
    }
    while (more_b) {
        b.look();
        more_b = b.decide();
    }
}

}  // namespace reprune
