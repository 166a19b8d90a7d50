#include "line.hpp"

#include <algorithm>

#include "call.hpp"
#include "clones.hpp"

namespace reprune {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// With r = 1 / (na + nb): the cost of a join and the mean of what it makes.
double gap_of(double ma, double na, double mb, double nb, double r) { return na * nb * r * ((mb - ma) * (mb - ma)); }
double joined(double ma, double mb, double nb, double r) { return ma + nb * r * (mb - ma); }

// The loops that are worth vectors.
REPRUNE_CLONES void gaps(std::int32_t n, const double* mean, const double* size, double* __restrict share,
                         double* __restrict gap) {
    for (std::int32_t i = 1; i < n; ++i) {
        share[i] = 1 / (size[i - 1] + size[i]);
        gap[i] = size[i - 1] * size[i] * share[i] * ((mean[i] - mean[i - 1]) * (mean[i] - mean[i - 1]));
    }
}

// Does cluster i join i + 1? Of equal gaps the left one is taken, so no cluster is in two joins.
REPRUNE_CLONES void smallest(std::int32_t n, const double* gap, double limit, std::int64_t* __restrict join) {
    for (std::int32_t i = 0; i < n; ++i)
        join[i] = (gap[i + 1] <= limit) & (gap[i + 1] < gap[i]) & (gap[i + 1] <= gap[i + 2]);
}

}  // namespace

double* Line::start(std::int32_t n) {
    n_ = n;
    for (auto* v : {&values_, &cost_, &mean_, &size_, &gap_, &share_}) v->resize(at(n) + 3);
    join_.resize(at(n) + 3);
    for (auto* v : {&order_, &spare_order_, &boundary_, &stack_, &waiting_}) v->resize(at(n) + 2);
    return values_.data();
}

// order_: the points by value, equal values by id. First one pass by the leading bits (over the range of the values, so that
// buckets hold few), then insertion within.
void Line::sort() {
    double low = values_[0], high = low;
    for (std::int32_t i = 1; i < n_; ++i) {
        low = std::min(low, values_[at(i)]);
        high = std::max(high, values_[at(i)]);
    }
    std::int32_t buckets = 1;
    while (buckets < n_ && buckets < 4096) buckets *= 2;
    const double scale = high > low ? (buckets - 1) / (high - low) : 0;
    boundary_.resize(at(std::max(n_, buckets)) + 2);
    std::int32_t* start = boundary_.data();
    std::fill(start, start + buckets + 1, 0);
    for (std::int32_t i = 0; i < n_; ++i) {
        const auto b = static_cast<std::int32_t>((values_[at(i)] - low) * scale);
        spare_order_[at(i)] = b;
        ++start[b + 1];
    }
    for (std::int32_t b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (std::int32_t i = 0; i < n_; ++i) {
        const std::int32_t to = start[spare_order_[at(i)]]++;
        order_[at(to)] = i;
        mean_[at(to)] = values_[at(i)];
    }
    std::int32_t moves = 0;
    for (std::int32_t i = 1; i < n_; ++i) {  // stable, so equal values stay by id
        const double x = mean_[at(i)];
        if (!(mean_[at(i - 1)] > x)) continue;
        const std::int32_t id = order_[at(i)];
        std::int32_t k = i;
        for (; k > 0 && mean_[at(k - 1)] > x; --k) {
            mean_[at(k)] = mean_[at(k - 1)];
            order_[at(k)] = order_[at(k - 1)];
        }
        mean_[at(k)] = x;
        order_[at(k)] = id;
        moves += i - k;
        if (moves > 32 * n_) break;  // few buckets hold nearly all
    }
    if (moves <= 32 * n_) return;
    for (std::int32_t i = 0; i < n_; ++i) order_[at(i)] = i;
    Ticks tick;
    std::stable_sort(order_.begin(), order_.begin() + n_, [&](std::int32_t a, std::int32_t b) {
        tick();
        return values_[at(a)] < values_[at(b)];
    });
    for (std::int32_t i = 0; i < n_; ++i) mean_[at(i)] = values_[at(order_[at(i)])];
}

void Line::run(double limit) {
    sort();
    std::fill(cost_.begin(), cost_.begin() + n_, infinity);
    // equal points first
    live_ = 0;
    for (std::int32_t i = 0, j = 0; i < n_; i = j) {
        const double x = mean_[at(i)];
        for (j = i + 1; j < n_ && mean_[at(j)] == x; ++j) cost_[at(j - 1)] = 0;
        mean_[at(live_)] = x;
        size_[at(live_)] = j - i;
        boundary_[at(live_++)] = j - 1;
    }
    boundary_[at(live_)] = n_ - 1;
    rounds(limit);
}

// Every round joins all neighbours whose gap is the smallest on both sides: they are each other's nearest. Most data takes
// few rounds; where a round joins little, the rest goes one by one.
void Line::rounds(double limit) {
    double *mean = mean_.data(), *size = size_.data(), *gap = gap_.data(), *share = share_.data();
    std::int32_t* boundary = boundary_.data();
    std::int64_t* join = join_.data();
    while (live_ > 1) {
        hear(10LL * live_);
        gaps(live_, mean, size, share, gap);  // gap[i]: to the left of cluster i
        gap[0] = gap[live_] = gap[live_ + 1] = infinity;
        share[live_] = 0;
        smallest(live_, gap, limit, join);
        mean[live_] = size[live_] = 0;
        std::int32_t to = 0;
        std::int64_t skip = 0;  // was this cluster joined to the one before it?
        for (std::int32_t i = 0; i < live_; ++i) {
            const bool yes = join[i] != 0;
            cost_[at(boundary[i])] = yes ? gap[i + 1] : infinity;
            mean[to] = yes ? joined(mean[i], mean[i + 1], size[i + 1], share[i + 1]) : mean[i];
            size[to] = yes ? size[i] + size[i + 1] : size[i];
            boundary[to] = yes ? boundary[i + 1] : boundary[i];
            to += static_cast<std::int32_t>(1 - skip);
            skip = join[i];
        }
        const std::int32_t joins = live_ - to;
        live_ = to;
        if (joins == 0) return;
        if (joins * 16 < live_) break;
    }
    chain(limit);
}

// One by one: the stack holds clusters whose gaps fall towards the top, a chain of nearest neighbours. Where the gap to the
// cluster that comes next is no smaller than the top gap, the top two are each other's nearest. Joined, they come next.
void Line::chain(double limit) {
    double *mean = mean_.data(), *size = size_.data(), *gap = gap_.data();
    std::int32_t *stack = stack_.data(), *waiting = waiting_.data();
    std::int32_t top = -1, waits = 0;
    Ticks tick;
    for (std::int32_t i = 0;;) {
        tick();
        std::int32_t next = -1;  // the end: as if a cluster came that is infinitely far
        if (waits > 0) {
            next = waiting[--waits];
        } else if (i < live_) {
            next = i++;
        } else if (top <= 0) {
            return;
        }
        double g = infinity;
        if (top >= 0 && next >= 0) {
            const std::int32_t a = stack[top];
            g = gap_of(mean[a], size[a], mean[next], size[next], 1 / (size[a] + size[next]));
        }
        if (top > 0 && gap[stack[top]] <= g) {
            const std::int32_t a = stack[top - 1], b = stack[top];
            cost_[at(boundary_[at(a)])] = gap[b];
            mean[b] = joined(mean[a], mean[b], size[b], 1 / (size[a] + size[b]));
            size[b] += size[a];
            if (next >= 0) waiting[waits++] = next;
            waiting[waits++] = b;
            top -= 2;
            continue;
        }
        if (g > limit) top = -1;  // nothing joins across this gap any more
        if (next < 0) return;
        gap[next] = g;
        stack[++top] = next;
    }
}

}  // namespace reprune
