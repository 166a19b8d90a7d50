#include "ward/line.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <queue>
#include <tuple>

#include "runtime/call.hpp"
#include "simd/clones.hpp"
#include "simd/line.hpp"
#include "simd/scan.hpp"
#include "ward/cost.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

constexpr double above = 1 + 0x1p-30;  // times a cost: surely more

double gap_of(double total_a, double na, double total_b, double nb) {
    const double step = ward_step(total_a, na, total_b, nb);
    return ward_cost(step * step, na, nb);
}

// By how much the costs of the joins of a cluster with those before and after it may differ and yet be equal. Of all clusters:
struct SameBlur {
    double blur;
    const double* size;

    double of(std::int32_t, std::int32_t middle, std::int32_t) const { return blur * size[middle]; }
    static bool joined(std::int32_t, std::int32_t) { return true; }
};

// Of each by its own points, with bound_sizes() for each: a point far away, or many near the origin, are no matter to others.
struct OwnBlur {
    double most;
    const double* size;
    double* far;

    double unit(std::int32_t i) const { return i < 0 ? 0 : far[i] * size[i] * 0x1p-34; }
    double of(std::int32_t before, std::int32_t middle, std::int32_t after) const {
        const double unit_of_all = std::max({unit(before), unit(middle), unit(after)});
        return unit_of_all * unit_of_all * size[middle];
    }
    // a is part of b now. False: rounding near the limit is no small matter any more.
    bool joined(std::int32_t a, std::int32_t b) const {
        far[b] = std::max(far[a], far[b]);
        return unit(b) * unit(b) * size[b] <= most;
    }
};

// The vectorised loops that are not in simd/line.hpp.
REPRUNE_CLONES bool all_differ(std::int32_t n, const double* sorted) {
    std::int64_t equal = 0;
    for (std::int32_t i = 1; i < n; ++i) equal |= sorted[i - 1] == sorted[i];
    return equal == 0;
}

REPRUNE_CLONES void heights_of(double* costs, std::int32_t n) {
    for (std::int32_t i = 0; i < n; ++i) costs[i] = ward_height(costs[i]);
}

}  // namespace

double* Ward1D::start(std::int32_t n) {
    n_ = n;
    for (auto* v : {&values_, &heights_, &total_, &size_, &gap_}) v->resize(at(n + line_spare));
    join_.resize(at(n + line_spare));
    for (auto* v : {&order_, &boundary_, &stack_, &waiting_}) v->resize(at(n + line_spare));
    scratch_.resize(at(line_scratch(n)));
    return values_.data();
}

// order_: the points by value, equal values by id. First nearly so, then by insertion, unless few buckets hold nearly all.
void Ward1D::sort() {
    furthest_ = scanner().line->sort(values_.data(), n_, scratch_.data(), order_.data(), total_.data());
    std::int64_t moves = 0;
    for (std::int32_t i = 1; i < n_; ++i) {  // stable, so equal values stay by id
        const double x = total_[at(i)];
        if (!(total_[at(i - 1)] > x)) continue;
        const std::int32_t id = order_[at(i)];
        std::int32_t k = i;
        for (; k > 0 && total_[at(k - 1)] > x; --k) {
            total_[at(k)] = total_[at(k - 1)];
            order_[at(k)] = order_[at(k - 1)];
        }
        total_[at(k)] = x;
        order_[at(k)] = id;
        moves += i - k;
        if (moves > std::int64_t{4} * n_) {
            radix_.run(values_.data(), n_, order_.data());
            restart();
            return;
        }
    }
}

// Every point is a cluster, in their order.
void Ward1D::restart() {
    for (std::int32_t i = 0; i < n_; ++i) total_[at(i)] = values_[at(order_[at(i)])];
}

// Equal points are one cluster from the start.
void Ward1D::collapse() {
    std::fill(heights_.begin(), heights_.begin() + n_, infinity);
    if (all_differ(n_, total_.data())) {
        std::fill(size_.begin(), size_.begin() + n_, 1.0);
        std::iota(boundary_.begin(), boundary_.begin() + n_, 0);
        live_ = n_;
        largest_ = 1;
        return;
    }
    live_ = 0;
    largest_ = 1;
    for (std::int32_t i = 0, j = 0; i < n_; i = j) {
        const double x = total_[at(i)];
        for (j = i + 1; j < n_ && total_[at(j)] == x; ++j) heights_[at(j - 1)] = 0;
        size_[at(live_)] = j - i;
        largest_ = std::max(largest_, size_[at(live_)]);
        total_[at(live_)] = (j - i) * x;
        boundary_[at(live_++)] = j - 1;
    }
    boundary_[at(live_)] = n_ - 1;
}

void Ward1D::run(double limit, bool wide, const Tolerance* refuse_within) {
    sequence_.clear();
    sort();
    collapse();
    const double cost = limit * limit / 2 * (1 + 0x1p-8);  // a little further, so that rounding near the limit is no matter
    const bool found = !wide && bound_sizes(cost) && rounds(cost, refuse_within == nullptr) && largest_ <= most_;
    if (found || (!wide && one_by_one(cost))) {
        heights_of(heights_.data(), n_ - 1);
    } else {
        restart();
        collapse();
        greedy(limit, refuse_within);
    }
}

// A total of s values is off by m 2^-50 s times the furthest at most, m being the depth of the sum: at most the points of the
// largest cluster within the limit, here as many as may be for rounding near the limit to be no matter. Squared, and apart from
// what `above` holds, that is the blur. False: no cluster is small enough.
bool Ward1D::bound_sizes(double limit) {
    const double unit = furthest_ * 0x1p-34, most = std::cbrt(limit * 0x1p-11 / (unit * unit));
    most_ = most < n_ ? static_cast<std::int32_t>(most) : n_;
    blur_ = unit * most_ * (unit * most_);
    return most_ >= 2;
}

// Every round joins all neighbours whose gap is the smallest on both sides: they are each other's nearest. A cluster whose gaps
// both lie beyond the limit stays as it is, and no one joins across it: two clusters that are that far from what lies between
// them are further than the limit from each other, whatever their sizes. So it is left out of later rounds. Most data takes few
// rounds; where a round joins little, the rest goes one by one. Heights are costs until the end. False: rounding may have decided.
bool Ward1D::rounds(double limit, bool decide) {
    const LineLoops& loops = *scanner().line;
    LineClusters line{total_.data(), size_.data(), gap_.data(), join_.data(), boundary_.data(), heights_.data(), live_, n_};
    while (live_ > 1) {
        poll(10LL * live_);
        loops.gaps(line);
        line.gap[0] = line.gap[live_] = line.gap[live_ + 1] = infinity;
        line.total[live_] = line.size[live_] = 0;
        if (loops.smallest(line, limit, blur_) && !(decide && settle(limit))) return false;
        const std::int32_t joins = loops.close(line, limit, &largest_);
        live_ = line.count;
        if (joins == 0) return true;
        if (joins * 16 < live_) break;
    }
    return chain(limit, SameBlur{blur_, size_.data()});
}

// As chain() says, from the start, with what is known of each cluster.
bool Ward1D::one_by_one(double limit) {
    restart();
    collapse();
    far_.resize(at(n_));
    for (std::int32_t i = 0; i < live_; ++i) far_[at(i)] = std::abs(values_[at(order_[at(boundary_[at(i)])])]);
    return chain(limit, OwnBlur{limit * 0x1p-11, size_.data(), far_.data()});
}

// The joins of a round in which gaps side by side are about the same. Here rounding cannot make the order of joins matter, if it
// is no more than a join takes the next cluster away: a gap grows by a share of 1 / (s + 1)^2 at least when one of its clusters,
// of s points, joins another. False where it may be more.
bool Ward1D::settle(double limit) {
    const auto id = [&](std::int32_t i) {
        const auto points = static_cast<std::int32_t>(size_[at(i)]), end = boundary_[at(i)] + 1;
        poll(points);
        return *std::max_element(order_.begin() + end - points, order_.begin() + end);
    };
    bool sure = true;
    const auto lower = [&](std::int32_t p, std::int32_t q) {  // is gap p below gap q beside it?
        const double g = gap_[at(p)], other = gap_[at(q)], shared = size_[at(std::min(p, q))];
        if (std::min(g, other) * above + blur_ * shared < std::max(g, other)) return g < other;
        const std::int32_t middle = std::min(p, q);
        const double most = 1 + std::max({size_[at(middle - 1)], shared, size_[at(middle + 1)]}), share = most * most;
        sure = sure && g > blur_ * shared * share * share * 0x1p-26;
        const double height = ward_height(g), beside = ward_height(other);
        if (height != beside) return height < beside;
        const std::int32_t left = id(p - 1), right = id(p), far = id(q > p ? q : q - 1), near = q > p ? right : left;
        return std::minmax(left, right) < std::minmax(near, far);
    };
    for (std::int32_t i = 0; i + 1 < live_; ++i)
        join_[at(i)] = gap_[at(i + 1)] <= limit && lower(i + 1, i) && lower(i + 1, i + 2);
    return sure;
}

// One by one: the stack holds clusters whose gaps fall towards the top, a chain of nearest neighbours. Where the gap to the
// cluster that comes next is no smaller than the top gap, the top two are each other's nearest. Joined, they come next.
template <class Blur>
bool Ward1D::chain(double limit, Blur blur) {
    double *total = total_.data(), *size = size_.data(), *gap = gap_.data();
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
            return true;
        }
        double g = infinity;
        if (top >= 0 && next >= 0) {
            const std::int32_t a = stack[top];
            g = gap_of(total[a], size[a], total[next], size[next]);
        }
        if (top > 0) {
            const double other = gap[stack[top]];
            if (std::min(g, other) * above + blur.of(stack[top - 1], stack[top], next) >= std::max(g, other)) return false;
        }
        if (top > 0 && gap[stack[top]] <= g) {
            const std::int32_t a = stack[top - 1], b = stack[top];
            heights_[at(boundary_[at(a)])] = gap[b];
            total[b] += total[a];
            size[b] += size[a];
            largest_ = std::max(largest_, size[b]);
            if (!blur.joined(a, b)) return false;
            if (next >= 0) waiting[waits++] = next;
            waiting[waits++] = b;
            top -= 2;
            continue;
        }
        if (g > limit) top = -1;  // nothing joins across this gap any more
        if (next < 0) return true;
        gap[next] = g;
        stack[++top] = next;
    }
}

// As the rule reads: the lowest join of all, again and again. Across a neighbour no one is as near as the nearer of the two on
// either side of it, so neighbours show whether rounding decides.
void Ward1D::greedy(double limit, const Tolerance* refuse_within) {
    // clusters by their first one: `last`, numbers and heights; boundary b is that between b and b + 1 of those at first
    const std::int32_t count = live_;
    std::vector<std::int32_t> first(at(count)), last(at(count)), id(at(count));
    std::vector<double> reached(at(count), 0.0);
    using Gap = std::tuple<double, std::int32_t, std::int32_t, std::int32_t>;  // height, both numbers, boundary
    const auto gap = [&](std::int32_t b) {
        const std::size_t left = at(first[at(b)]), right = at(b + 1);
        double step = ward_step(total_[left], size_[left], total_[right], size_[right]);
        const double height = wide_height(&step, 1, size_[left], size_[right]);
        return Gap{height, std::min(id[left], id[right]), std::max(id[left], id[right]), b};
    };
    std::priority_queue<Gap, std::vector<Gap>, std::greater<>> gaps;
    for (std::int32_t c = 0; c < count; ++c) {
        first[at(c)] = last[at(c)] = c;
        id[at(c)] = order_[at(boundary_[at(c)])];
    }
    Ticks tick;
    for (std::int32_t b = 0; b + 1 < count; ++b) {
        tick();
        gaps.push(gap(b));
    }
    while (!gaps.empty()) {
        tick();
        const Gap least = gaps.top();
        gaps.pop();
        const auto [height, lower, higher, b] = least;
        if (height > limit) return;
        if (heights_[at(boundary_[at(b)])] < infinity || gap(b) != least) continue;  // joined, or its clusters were
        const std::int32_t left = first[at(b)], end = last[at(b + 1)];
        if (refuse_within != nullptr) {
            const double points = std::max(size_[at(left)], size_[at(b + 1)]);
            const double before = left > 0 ? std::get<0>(gap(left - 1)) : infinity;
            const double after = end + 1 < count ? std::get<0>(gap(end)) : infinity;
            if (refuse_within->covers(height, std::min(before, after), points)) throw NearTie();
        }
        const double raised = std::max({height, reached[at(left)], reached[at(b + 1)]});
        heights_[at(boundary_[at(b)])] = reached[at(left)] = raised;
        sequence_.push_back(boundary_[at(b)]);
        total_[at(left)] += total_[at(b + 1)];
        size_[at(left)] += size_[at(b + 1)];
        id[at(left)] = higher;
        first[at(end)] = left;
        last[at(left)] = end;
        if (left > 0) gaps.push(gap(left - 1));
        if (end + 1 < count) gaps.push(gap(end));
    }
}

}  // namespace reprune
