#include "ward.hpp"

#include <algorithm>
#include <cmath>

namespace reprune {
namespace {

constexpr std::size_t few = 600;  // clusters that a chain of scans finishes faster
constexpr std::int32_t neighbours = 16;  // per cluster, so many at most
constexpr double step = 0.6;           // from one level down to the next

}  // namespace

// In levels: neighbours grow with a high power of the cost, while joins make clusters few and their neighbours fewer.
void Ward::run(double limit) {
    clusters_.begin();
    double done = 0, level = std::min(limit, clusters_.spread);
    if (start_ < level) level = start_;
    bool fresh = true;
    for (int tries = 0; tries < 12 && clusters_.live.size() > few && !clusters_.coarse; ++tries) {
        const std::size_t before = clusters_.live.size();
        if (lists_.run(clusters_, level, neighbours, fresh)) {
            if (done == 0) start_ = 4 * lists_.pairs() < before * neighbours / 2 ? level / step : level;
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

}  // namespace reprune
