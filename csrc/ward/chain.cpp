#include "ward/chain.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "runtime/call.hpp"
#include "runtime/numbers.hpp"
#include "ward/link.hpp"

namespace reprune {
namespace {

constexpr std::int32_t beyond = 1 << 30;  // larger than a squared distance, and no more than 2^31 together with one
constexpr float far = 1e15F;               // coordinate of an empty lane; others are of order one
constexpr float rounding = Clusters::rounding;

}  // namespace

void Chain::pack() {
    const std::int32_t words = fixed_ ? clusters_->pairs + 2 : clusters_->d + 1;
    const std::int32_t count = (count_ + lanes - 1) / lanes;
    std::memset(blocks_, 0, 64 * at(count) * at(words));
    for (std::int32_t s = 0; s < count * lanes; ++s) {
        if (s < count_) {
            enter(s, id_[at(s)]);
        } else {
            leave(s);
        }
    }
}

void Chain::enter(std::int32_t slot, std::int32_t id) {
    const Clusters& c = *clusters_;
    id_[at(slot)] = id;
    slot_[at(id)] = slot;
    if (fixed_) {
        char* block = blocks_ + 64LL * (slot / lanes) * (c.pairs + 2) + 4 * (slot % lanes);
        const std::int32_t* words = c.fixed(id);
        for (std::int32_t p = 0; p < c.pairs; ++p) std::memcpy(block + 64 * p, words + p, 4);
        std::memcpy(block + 64 * c.pairs, &c.norm[at(id)], 4);
        std::memcpy(block + 64 * (c.pairs + 1), &c.inverse_size[at(id)], 4);
    } else {
        const double* total = c.total(id);
        const double unit = c.float_scale / c.size[at(id)];
        char* block = blocks_ + 64LL * (slot / lanes) * (c.d + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < c.d; ++k) {
            const auto x = static_cast<float>(total[k] * unit);
            std::memcpy(block + 64 * k, &x, 4);
        }
        std::memcpy(block + 64 * c.d, &c.inverse_size[at(id)], 4);
    }
}

// An empty lane: as far away as a lane can be. In fixed point, what is in it is moved further than any two clusters lie apart.
void Chain::leave(std::int32_t slot) {
    const float none = 0;
    const std::int32_t pairs = clusters_->pairs, d = clusters_->d;
    if (fixed_) {
        char* block = blocks_ + 64LL * (slot / lanes) * (pairs + 2) + 4 * (slot % lanes);
        std::int32_t norm;
        std::memcpy(&norm, block + 64 * pairs, 4);
        norm += beyond;
        std::memcpy(block + 64 * pairs, &norm, 4);
        std::memcpy(block + 64 * (pairs + 1), &none, 4);
    } else {
        char* block = blocks_ + 64LL * (slot / lanes) * (d + 1) + 4 * (slot % lanes);
        for (std::int32_t k = 0; k < d; ++k) std::memcpy(block + 64 * k, &far, 4);
        std::memcpy(block + 64 * d, &none, 4);
    }
}

void Chain::finish(std::int32_t id) {  // the last cluster fills the hole
    const std::int32_t slot = slot_[at(id)], last = --count_;
    if (slot != last) enter(slot, id_[at(last)]);
    leave(last);
}

void Chain::scan(float* keys) {
    const Clusters& c = *clusters_;
    const std::int32_t count = (count_ + lanes - 1) / lanes, lane = slot_[at(tip_)];
    if (fixed_) {
        fixed_scan_(blocks_, count, c.pairs, {c.fixed(tip_), c.norm[at(tip_)], c.inverse_size[at(tip_)], lane}, keys, &least_);
    } else {
        scan_->floating(blocks_, count, c.d, {query_.data(), c.inverse_size[at(tip_)], lane}, keys, &least_);
    }
}

bool Chain::look() {
    if (count_ <= 1 || clusters_->tied) {
        poll(std::exchange(work_, 0));
        clusters_->fixed_point_fails = !fixed_;
        return false;
    }
    work_ += static_cast<std::int64_t>(count_) * (clusters_->d + 8) / 8;
    if (work_ > 1 << 16) poll(std::exchange(work_, 0));
    if (path_.empty()) path_.push_back(id_[at(count_ - 1)]);
    tip_ = path_.back();
    if (fixed_ && scans_ >= 64 && candidates_ > 4 * scans_) {  // fixed point is too coarse for these points
        fixed_ = false;
        update_error_bounds();
        pack();
    }
    const Clusters& c = *clusters_;
    if (fixed_) {
        slack_now_ = c.slack[at(tip_)];
    } else {
        const double* total = c.total(tip_);
        const double unit = c.float_scale / c.size[at(tip_)];
        float norm = 0;
        for (std::int32_t k = 0; k < c.d; ++k) {
            query_[at(k)] = static_cast<float>(total[k] * unit);
            norm += query_[at(k)] * query_[at(k)];
        }
        // coordinates are rounded relative to the larger cluster's norm, at most ||a|| plus the distance
        slack_now_ = 2.2F * rounding * std::sqrt(norm / c.inverse_size[at(tip_)]) + 1e-18F;
    }
    scan(nullptr);
    return true;
}

void Chain::go_on() { link(path_, *clusters_, *this); }

// *reached is NaN where there was no need to know it: only a chain's first step may lie beyond the limit.
std::int32_t Chain::nearest(std::int32_t, bool first, double* reached) {
    const float final = (limit_root_ + slack_now_) * (1 + error_);
    if (least_.key > final * final * (1 + error_)) return -1;
    ++scans_;
    const float root = std::sqrt(std::max(least_.key, 0.0F)), ceiling = (root + 2 * slack_now_) * (1 + error_);
    const float clear = ceiling * ceiling * (1 + error_);
    if (least_.second > clear) {  // no other comes near: this is the nearest, also in float64
        ++candidates_;
        const std::int32_t other = id_[at(least_.index)];
        const bool within = (root + slack_now_) * (1 + error_) * (1 + error_) < limit_root_;
        *reached = first && !within ? clusters_->cost(tip_, other) : std::nan("");
        return *reached > limit_ ? -1 : other;
    }
    scan(keys_.data());
    const std::int32_t found = scan_->gather(keys_.data(), (count_ + lanes - 1) / lanes, clear, found_.data());
    candidates_ += found;
    std::int32_t best = -1;
    double lowest = infinity, second = infinity;
    for (std::int32_t f = 0; f < found; ++f) {
        if (found_[at(f)] >= count_ || id_[at(found_[at(f)])] == tip_) continue;
        const std::int32_t other = id_[at(found_[at(f)])];
        const double c = clusters_->cost(tip_, other);
        second = std::min(second, std::max(lowest, c));
        if (c < lowest) {
            best = other;
            lowest = c;
        }
    }
    *reached = lowest;
    if (lowest > limit_) return -1;
    clusters_->tied = clusters_->blurred(tip_, lowest, second);
    return best;
}

void Chain::join(std::int32_t a, std::int32_t b, double cost) {
    clusters_->join(a, b, cost);
    const std::int32_t kept = std::max(a, b);
    finish(std::min(a, b));
    enter(slot_[at(kept)], kept);
}

void Chain::update_error_bounds() {  // of the keys' roots
    int bits = 4;  // of a key that may be taken for the lane's number
    while ((count_ >> (bits - 2)) != 0) ++bits;
    error_ = scan_->error + (fixed_ ? 3 : static_cast<float>(clusters_->d) + 8) * rounding + std::ldexp(1.0F, bits - 23);
    limit_root_ = key_root(limit_, fixed_ ? clusters_->scale : clusters_->float_scale);
}

void Chain::start(Clusters& clusters, double limit) {
    clusters_ = &clusters;
    limit_ = limit;
    fixed_ = !clusters.fixed_point_fails;
    scan_ = &scanner();
    fixed_scan_ = scan_->fixed(clusters.pairs);
    count_ = static_cast<std::int32_t>(clusters.live.size());
    const std::int32_t n = clusters.n, d = clusters.d;
    for (auto* ids : {&id_, &slot_, &found_}) ids->resize(at(n + lanes));
    memory_.resize(at(64LL * (n / lanes + 1) * (d + 2)) + 64);
    blocks_ = memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64;
    keys_.resize(at(n + lanes));
    query_.resize(at(d));
    scans_ = candidates_ = work_ = 0;
    path_.clear();
    update_error_bounds();
    std::copy(clusters.live.begin(), clusters.live.end(), id_.begin());
    pack();
}

}  // namespace reprune
