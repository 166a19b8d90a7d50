#include "ward/ward.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "linkage/greedy.hpp"
#include "ward/totals.hpp"

namespace reprune {
namespace {

// Below so many clusters a chain of scans is faster than lists; by the rule, the rule itself is.
constexpr std::size_t few = 600, few_by_rule = 100;
constexpr std::int32_t neighbours = 16, neighbours_by_rule = 32;  // per cluster, so many at most
constexpr int levels_most = 12, levels_most_by_rule = 40;
constexpr double step = 0.6;  // from one level down to the next

}  // namespace

double* Ward::start(std::int32_t n, std::int32_t d) {
    n_ = n;
    d_ = d;
    points_.resize(static_cast<std::size_t>(n) * static_cast<std::size_t>(d) + 3);
    return points_.data();
}

bool Ward::begin(double limit, bool wide, bool refuse) {
    limit_ = limit;
    cost_ = limit * limit / 2 * (1 + 0x1p-6);
    wide_ = wide;
    clusters_.start(points_.data(), n_, d_);
    done_ = limit <= 0 && !(wide ? clusters_.inexact() : clusters_.joined_by_rounding());
    if (done_) return false;
    if (refuse && (wide || clusters_.joins.size() > 1)) throw NearTie();  // of equal points
    if (wide) return false;
    clusters_.begin();
    clusters_.tied = clusters_.blurred(cost_);
    if (clusters_.tied || levels(cost_, false)) return false;
    chain_.start(clusters_, cost_);
    return true;
}

void Ward::end(bool refuse) {
    if (done_ || !(wide_ || clusters_.tied)) return;
    if (refuse) throw NearTie();
    if (!wide_) clusters_.start(points_.data(), n_, d_);
    rule();
}

void Ward::run(double limit, bool wide, bool refuse) {
    if (begin(limit, wide, refuse)) chain_.run();
    end(refuse);
}

void Ward::run_two(Ward& a, double limit_a, bool wide_a, Ward& b, double limit_b, bool wide_b) {
    bool more_a = a.begin(limit_a, wide_a, false), more_b = b.begin(limit_b, wide_b, false);
    while (more_a && more_b) {
        more_a = a.chain_.look();
        more_b = b.chain_.look();
        if (more_a) a.chain_.go_on();
        if (more_b) b.chain_.go_on();
    }
    if (more_a) a.chain_.run();
    if (more_b) b.chain_.run();
    a.end(false);
    b.end(false);
}

// The cost threshold is raised step by step; below it lists of neighbours suffice, and there are ever fewer clusters. False if
// there is more to do.
bool Ward::levels(double limit, bool by_rule) {
    double done = 0, level = std::min(limit, clusters_.spread);
    bool fresh = true;
    for (int tries = by_rule ? levels_most_by_rule : levels_most; tries > 0; --tries) {
        const std::size_t before = clusters_.live.size();
        if (before <= (by_rule ? few_by_rule : few) || clusters_.fixed_point_fails) break;
        if (by_rule && clusters_.blurred(level)) break;
        bool found = false;
        if (by_rule) {
            found = lists_.find(clusters_, level, neighbours_by_rule, fresh);
            if (found) tied_.run(clusters_, lists_, level, reached_);
        } else {
            found = lists_.run(clusters_, level, neighbours, fresh);
        }
        fresh = found;
        if (found) {
            if (level >= limit || clusters_.tied) return true;
            if (8 * (before - clusters_.live.size()) < before) break;
            done = level;
            level = std::min(limit, level / step);
        } else {
            level = done > 0 ? std::sqrt(level * done) : level * step;
        }
    }
    return false;
}

// In the order of the rule: on lists of neighbours as far as they reach, then as it reads.
void Ward::rule() {
    reached_.assign(static_cast<std::size_t>(n_), 0.0);
    bool finished = false;
    if (!wide_) {
        clusters_.begin();
        finished = levels(cost_, true);
    }
    clusters_.tied = true;
    if (finished) return;
    std::vector<double> reached;
    for (const std::int32_t id : clusters_.live) reached.push_back(reached_[static_cast<std::size_t>(id)]);
    const auto merge = [&](auto totals) {
        Greedy<decltype(totals)> rule(totals, clusters_.live, std::move(reached));
        for (const Merge& x : rule.run(limit_)) clusters_.joins.push_back({x.a, x.b, x.height});
    };
    if (wide_) {
        merge(WideTotals(clusters_));
    } else {
        merge(Totals(clusters_));
    }
}

}  // namespace reprune
