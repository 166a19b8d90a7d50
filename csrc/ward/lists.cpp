#include "ward/lists.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/call.hpp"
#include "runtime/numbers.hpp"
#include "ward/link.hpp"

namespace reprune {
namespace {

constexpr std::int32_t nowhere = 1 << 30;  // of an empty lane: beyond every bound

std::uint64_t entry(std::int32_t node, float key) {
    std::uint32_t bits;
    std::memcpy(&bits, &key, 4);
    return static_cast<std::uint64_t>(bits) << 32 | static_cast<std::uint32_t>(node);
}

std::int32_t node(std::uint64_t entry) { return static_cast<std::int32_t>(entry & 0x7fffffff); }

float key(std::uint64_t entry) {
    const auto bits = static_cast<std::uint32_t>(entry >> 32);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

}  // namespace

// Blocks of [pairs][16] coordinates and, from bound() on, [16] of ||b||^2 - reach(b).
void NeighbourLists::pack() {
    const Clusters& c = *clusters_;
    const auto count = static_cast<std::int32_t>(c.live.size()), blocks = (count + lanes - 1) / lanes;
    const std::int64_t bytes = 64LL * (c.pairs + 1);
    memory_.resize(at(bytes * blocks) + 64);
    blocks_ = memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64;
    for (std::int32_t s = 0; s < blocks * lanes; ++s) {
        char* lane = blocks_ + bytes * (s / lanes) + 4 * (s % lanes);
        const std::int32_t* words = c.fixed(c.live[at(std::min(s, count - 1))]);
        for (std::int32_t p = 0; p < c.pairs; ++p) std::memcpy(lane + 64 * p, words + p, 4);
    }
}

// For each row reach(a) - ||a||^2, so that a hit is ||a - b||^2 <= reach(a) + reach(b). With r = limit / size and e what fixed
// point can be off, that holds for every pair within the limit: (sqrt(r_a + r_b) + e)^2 <= r_a + r_b + 2 e (sqrt(r_a) +
// sqrt(r_b)) + e^2.
void NeighbourLists::bound(double limit) {
    const Clusters& c = *clusters_;
    const auto count = static_cast<std::int32_t>(c.live.size()), blocks = (count + lanes - 1) / lanes;
    bound_.assign(at(blocks * lanes), -nowhere);
    const auto root = static_cast<float>(std::min(std::sqrt(limit) * c.scale, 1e6));
    const float e = 1.01F * std::sqrt(static_cast<float>(c.d));
    for (std::int32_t s = 0; s < count; ++s) {
        const std::int32_t id = c.live[at(s)];
        const float r = root * std::sqrt(c.inverse_size[at(id)]);
        const float reach = std::min((r * r + 2 * e * r) * (1 + 8 * Clusters::rounding) + e * e / 2 + 2, 536870912.0F);
        bound_[at(s)] = static_cast<std::int32_t>(reach) - c.norm[at(id)];
    }
    for (std::int32_t s = 0; s < blocks * lanes; ++s) {
        const std::int32_t away = -bound_[at(s)];
        std::memcpy(blocks_ + 64LL * (s / lanes * (c.pairs + 1) + c.pairs) + 4 * (s % lanes), &away, 4);
    }
}

// Every pair once, two rows at a time: into near_ and end_.
bool NeighbourLists::screen(std::int32_t most) {
    const Clusters& c = *clusters_;
    const auto count = static_cast<std::int32_t>(c.live.size()), blocks = (count + lanes - 1) / lanes;
    const std::int32_t words = (blocks + 3) / 4;  // of 64 hits
    hits_.assign(at(2 * words), 0);
    end_.resize(at(count));
    std::int32_t total = 0;
    double pairs = 0;  // seen, each from both sides
    for (std::int32_t row = 0; row < count; row += 2) {
        poll(static_cast<std::int64_t>(count) * (c.pairs + 8) / 8);
        if (near_.size() < at(total + 2 * count + 3)) near_.resize(at(2 * total + 2 * count + 64));
        const std::int32_t other = std::min(row + 1, count - 1), first = row / lanes;
        std::uint64_t* hits[2] = {hits_.data(), hits_.data() + words};
        scan_->within(blocks_, first, blocks, c.pairs, c.fixed(c.live[at(row)]), c.fixed(c.live[at(other)]), bound_[at(row)],
                      bound_[at(other)], hits[0], hits[1]);
        for (std::int32_t i = row; i <= other; ++i) {
            total += scan_->indices(hits[i - row], i, words, near_.data() + total);
            end_[at(i)] = total;
        }
        pairs += 2.0 * (2 * count - 2 * row - 3);
        if (2.0 * total > most * (pairs / count + 64)) return false;
    }
    return true;
}

void NeighbourLists::lay_out() {
    const Clusters& c = *clusters_;
    const auto count = static_cast<std::int32_t>(c.live.size());
    list_.resize(at(c.n));
    for (auto* v : {&node_of_, &stamp_, &found_, &squares_}) v->resize(at(c.n + 1));
    id_of_.resize(at(2 * c.n));
    joined_.resize(at(c.n));
    stamp_.assign(at(c.n + 1), -1);
    for (std::int32_t s = 0; s < count; ++s) {
        const std::int32_t id = c.live[at(s)];
        id_of_[at(s)] = id;
        node_of_[at(id)] = s;
        list_[at(id)] = List{};
        list_[at(id)].capacity = end_[at(s)] - (s > 0 ? end_[at(s - 1)] : 0);
    }
    const std::int32_t total = count > 0 ? end_[at(count - 1)] : 0;
    for (std::int32_t k = 0; k < total; ++k) ++list_[at(id_of_[at(near_[at(k)])])].capacity;
    std::int32_t sum = 0;
    for (const std::int32_t id : c.live) {
        list_[at(id)].begin = sum;
        sum += list_[at(id)].capacity;
    }
    if (entries_.size() < at(sum)) entries_.resize(at(sum));
    for (std::int32_t s = 0, k = 0; s < count; ++s) {
        const std::int32_t id = c.live[at(s)], few = end_[at(s)] - k;
        poll(static_cast<std::int64_t>(few) * c.stride);
        for (std::int32_t f = 0; f < few; ++f) found_[at(f)] = id_of_[at(near_[at(k + f)])];
        scan_->squares(c.words.data(), c.stride, c.fixed(id), found_.data(), few, squares_.data());
        List& own = list_[at(id)];
        for (std::int32_t f = 0; f < few; ++f) {
            const std::int32_t other = found_[at(f)];
            const float about = static_cast<float>(squares_[at(f)]) / (c.inverse_size[at(id)] + c.inverse_size[at(other)]);
            add(own, entry(near_[at(k + f)], about));
            add(list_[at(other)], entry(s, about));
        }
        k += few;
    }
    id_of_.resize(at(count));
    entries_.resize(at(sum));
}

void NeighbourLists::add(List& list, Entry e) {
    entries_[at(list.begin + list.count++)] = e;
    list.offer(e);
}

// Drops the dead.
void NeighbourLists::refresh(List& list) {
    const Entry* const entries = entries_.data() + list.begin;
    List now;
    now.begin = list.begin;
    now.capacity = list.capacity;
    for (std::int32_t k = 0; k < list.count; ++k)
        if (id_of_[at(node(entries[k]))] >= 0) add(now, entries[k]);
    list = now;
}

std::int32_t NeighbourLists::nearest(std::int32_t tip, bool first, double* reached) {
    const Clusters& c = *clusters_;
    List& list = list_[at(tip)];
    if (list.least != no_entry && id_of_[at(node(list.least))] < 0) refresh(list);
    if (list.least == no_entry) return -1;
    const float least = key(list.least);
    const float slack = c.slack[at(tip)], final = (limit_root_ + slack) * (1 + error_);
    if (least > final * final * (1 + error_)) return -1;
    const float ceiling = (std::sqrt(least) + 2 * slack) * (1 + error_), clear = ceiling * ceiling * (1 + error_);
    if (list.second == no_entry || key(list.second) > clear) {  // no other comes near: this is the nearest, also in float64
        const std::int32_t other = id_of_[at(node(list.least))];
        *reached = first ? c.cost(tip, other) : std::nan("");
        return *reached > limit_ ? -1 : other;
    }
    std::int32_t best = -1;
    double lowest = infinity, second = infinity;
    for (std::int32_t k = list.begin; k < list.begin + list.count; ++k) {
        const std::int32_t id = id_of_[at(node(entries_[at(k)]))];
        if (id < 0 || key(entries_[at(k)]) > clear) continue;
        const double cost = c.cost(tip, id);
        second = std::min(second, std::max(lowest, cost));
        if (cost < lowest) {
            best = id;
            lowest = cost;
        }
    }
    *reached = lowest;
    if (lowest > limit_) return -1;
    clusters_->tied = c.blurred(tip, lowest, second);
    return best;
}

void NeighbourLists::finish(std::int32_t id) { id_of_[at(node_of_[at(id)])] = -1; }

void NeighbourLists::join(std::int32_t a, std::int32_t b, double cost) {
    Clusters& c = *clusters_;
    const std::int32_t kept = std::max(a, b);
    id_of_[at(node_of_[at(a)])] = id_of_[at(node_of_[at(b)])] = -1;
    const auto now = static_cast<std::int32_t>(id_of_.size());  // the new node
    stamp_[at(c.n)] = now;  // of the dead
    std::int32_t few = 0;
    for (const std::int32_t part : {a, b}) {
        const List& list = list_[at(part)];
        for (std::int32_t k = list.begin; k < list.begin + list.count; ++k) {
            const std::int32_t id = id_of_[at(node(entries_[at(k)]))], place = id < 0 ? c.n : id;
            found_[at(few)] = id;
            few += stamp_[at(place)] != now;
            stamp_[at(place)] = now;
        }
    }
    c.join(a, b, cost);
    id_of_.push_back(kept);
    node_of_[at(std::min(a, b))] = -1;
    node_of_[at(kept)] = now;
    scan_->squares(c.words.data(), c.stride, c.fixed(kept), found_.data(), few, squares_.data());
    const float final = (limit_root_ + c.slack[at(kept)]) * (1 + error_), most = final * final * (1 + error_);
    std::int32_t within = 0;
    for (std::int32_t f = 0; f < few; ++f) {
        const std::int32_t id = found_[at(f)];
        const float about = static_cast<float>(squares_[at(f)]) / (c.inverse_size[at(kept)] + c.inverse_size[at(id)]);
        if (about > most) continue;
        // a list never holds more live entries than at first: a new neighbour is joined of two, one of which it held
        if (list_[at(id)].count == list_[at(id)].capacity) refresh(list_[at(id)]);
        add(list_[at(id)], entry(now, about));
        joined_[at(within++)] = entry(node_of_[at(id)], about);
    }
    // into the larger of the two lists, or a new one
    List &own = list_[at(kept)], &other = list_[at(std::min(a, b))];
    if (other.capacity > own.capacity) std::swap(own, other);
    List list;
    list.begin = own.begin;
    list.capacity = own.capacity;
    if (within > list.capacity) {
        list.begin = static_cast<std::int32_t>(entries_.size());
        list.capacity = within;
        entries_.resize(entries_.size() + at(within));
    }
    for (std::int32_t f = 0; f < within; ++f) add(list, joined_[at(f)]);
    own = list;
}

bool NeighbourLists::find(Clusters& clusters, double limit, std::int32_t most, bool fresh) {
    clusters_ = &clusters;
    scan_ = &scanner();
    if (fresh) pack();
    bound(limit);
    return screen(most);
}

bool NeighbourLists::run(Clusters& clusters, double limit, std::int32_t most, bool fresh) {
    if (!find(clusters, limit, most, fresh)) return false;
    limit_ = limit * (1 - 0x1p-9);  // two neighbours on either side of a limit may be equally near
    limit_root_ = key_root(limit, clusters.scale);
    error_ = 4 * Clusters::rounding;
    lay_out();
    path_.clear();
    for (std::size_t node = 0; node < id_of_.size(); ++node) {  // joined clusters are nodes to come
        if (clusters.tied) return true;
        if (id_of_[node] < 0) continue;
        path_.push_back(id_of_[node]);
        while (!path_.empty() && !clusters.tied) {
            poll(100 + 8 * clusters.stride);
            link(path_, clusters, *this);
        }
    }
    const auto gone = [&](std::int32_t id) { return node_of_[at(id)] < 0; };
    clusters.live.erase(std::remove_if(clusters.live.begin(), clusters.live.end(), gone), clusters.live.end());
    return true;
}

}  // namespace reprune
