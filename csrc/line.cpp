#include "line.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace reprune {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double gap_of(double ma, double na, double mb, double nb) { return na * nb / (na + nb) * ((mb - ma) * (mb - ma)); }

}  // namespace

double* Line::start(std::int32_t n) {
    n_ = n;
    values_.resize(at(n));
    keys_.resize(at(n));
    spare_.resize(at(n));
    order_.resize(at(n));
    spare_order_.resize(at(n));
    stack_.resize(at(n));
    waiting_.resize(at(n) + 2);
    joins.clear();
    return values_.data();
}

// order_: the points by value, equal values by id. Radix sort of the bits that differ, eight at a time.
void Line::sort() {
    std::uint64_t all = ~std::uint64_t{0}, any = 0;
    for (std::int32_t i = 0; i < n_; ++i) {
        const double v = values_[at(i)] + 0.0;
        std::uint64_t bits;
        std::memcpy(&bits, &v, 8);
        bits ^= bits >> 63 != 0 ? ~std::uint64_t{0} : std::uint64_t{1} << 63;
        keys_[at(i)] = bits;
        order_[at(i)] = i;
        all &= bits;
        any |= bits;
    }
    const std::uint64_t differ = all ^ any;
    for (int shift = 0; shift < 64; shift += 8) {
        if ((differ >> shift & 255) == 0) continue;
        std::array<std::int32_t, 257> start{};
        for (std::int32_t i = 0; i < n_; ++i) ++start[(keys_[at(i)] >> shift & 255) + 1];
        for (std::size_t b = 1; b < 257; ++b) start[b] += start[b - 1];
        for (std::int32_t i = 0; i < n_; ++i) {
            const std::int32_t to = start[keys_[at(i)] >> shift & 255]++;
            spare_[at(to)] = keys_[at(i)];
            spare_order_[at(to)] = order_[at(i)];
        }
        keys_.swap(spare_);
        order_.swap(spare_order_);
    }
}

void Line::run(double limit) {
    sort();
    // The stack holds clusters whose gaps fall towards the top: a chain of nearest neighbours. Where the gap to the cluster
    // that comes next is no smaller than the top gap, the top two are each other's nearest. Joined, they come next.
    std::int32_t top = -1, waiting = 0;
    for (std::int32_t i = 0;;) {
        Cluster next;
        if (waiting > 0) {
            next = waiting_[at(--waiting)];
        } else if (i < n_) {
            next = {values_[at(order_[at(i)])], 1, 0, order_[at(i)]};
            ++i;
        } else if (top > 0) {  // the end: as if a cluster came that is infinitely far
            next = {0, 0, 0, -1};
        } else {
            return;
        }
        double gap = std::numeric_limits<double>::infinity();
        if (top >= 0 && next.id >= 0) gap = gap_of(stack_[at(top)].mean, stack_[at(top)].size, next.mean, next.size);
        if (top > 0 && stack_[at(top)].gap <= gap) {
            const Cluster &a = stack_[at(top - 1)], &b = stack_[at(top)];
            const std::int32_t kept = std::max(a.id, b.id), gone = std::min(a.id, b.id);
            joins.push_back({gone, kept, b.gap});
            if (next.id >= 0) waiting_[at(waiting++)] = next;
            const double size = a.size + b.size;
            waiting_[at(waiting++)] = {a.mean + b.size / size * (b.mean - a.mean), size, 0, kept};
            top -= 2;
            continue;
        }
        if (gap > limit) top = -1;  // nothing joins across this gap any more
        next.gap = gap;
        stack_[at(++top)] = next;
    }
}

}  // namespace reprune
