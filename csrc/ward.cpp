#include "ward.hpp"

#include <algorithm>
#include <cmath>

#include "greedy.hpp"
#include "totals.hpp"

namespace reprune {
namespace {

constexpr std::size_t few = 600;  // clusters that a chain of scans finishes faster
constexpr std::int32_t neighbours = 16;  // per cluster, so many at most
constexpr double step = 0.6;           // from one level down to the next

}  // namespace

double* Ward::start(std::int32_t n, std::int32_t d) {
    n_ = n;
    d_ = d;
    points_.resize(static_cast<std::size_t>(n) * static_cast<std::size_t>(d));
    return points_.data();
}

void Ward::run(double limit, bool wide, bool refuse) {
    clusters_.start(points_.data(), n_, d_);
    if (limit <= 0) return;
    if (refuse && (wide || clusters_.joins.size() > 1)) throw NearTie();  // of equal points
    const double cost = limit * limit / 2 * (1 + 0x1p-6);  // a little further, so that rounding near the limit is no matter
    if (!wide) {
        clusters_.begin();
        clusters_.tied = clusters_.blurred(cost);
        if (!clusters_.tied) levels(cost);
        if (!clusters_.tied) return;
        if (refuse) throw NearTie();
        clusters_.start(points_.data(), n_, d_);
    }
    greedy(limit, wide);
}

// The cost threshold is raised step by step; below it lists of neighbours suffice, and there are ever fewer clusters.
void Ward::levels(double limit) {
    double done = 0, level = std::min(limit, clusters_.spread);
    bool fresh = true;
    for (int tries = 0; tries < 12 && clusters_.live.size() > few && !clusters_.coarse; ++tries) {
        const std::size_t before = clusters_.live.size();
        if (lists_.run(clusters_, level, neighbours, fresh)) {
            if (clusters_.tied) return;
            fresh = true;
            if (level >= limit) return;
            if (8 * (before - clusters_.live.size()) < before) break;
            done = level;
            level = std::min(limit, level / step);
        } else {
            fresh = false;
            level = done > 0 ? std::sqrt(level * done) : level * step;
        }
    }
    chain_.run(clusters_, limit);
}

// As the rule reads.
void Ward::greedy(double limit, bool wide) {
    clusters_.tied = true;
    Totals totals(clusters_, wide);
    for (const Merge& x : Greedy<Totals>(totals, clusters_.live).run(limit)) clusters_.joins.push_back({x.a, x.b, x.height});
}

}  // namespace reprune
