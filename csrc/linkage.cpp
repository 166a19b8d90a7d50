#include "linkage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "dendrogram.hpp"
#include "rows.hpp"

namespace reprune {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// The nearest-neighbour chain (Benzecri 1982): follow nearest neighbours until two are mutual, merge, go on from the rest
// of the chain. Right for every reducible linkage. `live` [m] holds the clusters by the id of a member; of equally near
// ones the chain's predecessor is taken first, then the smallest id, so the chain always ends.
template <class Nearest, class Join>
void chain(std::int64_t n, Nearest nearest, Join join) {
    std::vector<std::int32_t> live(static_cast<std::size_t>(n)), path;
    std::iota(live.begin(), live.end(), 0);
    while (live.size() > 1) {
        if (path.empty()) path.push_back(live.front());
        const std::int32_t tip = path.back();
        const std::int32_t before = path.size() > 1 ? path[path.size() - 2] : -1;
        const std::int32_t next = nearest(tip, before, live);
        if (next != before) {
            path.push_back(next);
            continue;
        }
        path.resize(path.size() - 2);
        const std::int32_t kept = std::max(tip, before), gone = std::min(tip, before);
        live.erase(std::lower_bound(live.begin(), live.end(), gone));
        join(kept, gone, live);
    }
}

std::vector<Merge> ward(const Points& points) {
    Rows rows(points);
    const std::int64_t n = rows.n, d = rows.d;
    std::vector<double> size(static_cast<std::size_t>(n), 1.0);
    std::vector<Merge> merges;
    double reached = 0;  // the cost that the last nearest() found
    const auto cost = [&](std::int32_t a, std::int32_t b) {  // |A||B|/(|A|+|B|) * ||m_A - m_B||^2
        const double na = size[static_cast<std::size_t>(a)], nb = size[static_cast<std::size_t>(b)];
        return na * nb / (na + nb) * rows.squared(a, b);
    };
    const auto nearest = [&](std::int32_t tip, std::int32_t before, const std::vector<std::int32_t>& live) {
        std::int32_t best = before;
        double least = before < 0 ? infinity : cost(tip, before);
        for (const std::int32_t other : live) {
            if (other == tip) continue;
            const double c = cost(tip, other);
            if (c < least || best < 0) {
                least = c;
                best = other;
            }
        }
        reached = least;
        return best;
    };
    const auto join = [&](std::int32_t kept, std::int32_t gone, const std::vector<std::int32_t>&) {
        merges.push_back({kept, gone, rows.unit * std::sqrt(2 * reached)});
        double* m = rows.row(kept);
        const double* other = rows.row(gone);
        double& nk = size[static_cast<std::size_t>(kept)];
        const double share = size[static_cast<std::size_t>(gone)] / (nk + size[static_cast<std::size_t>(gone)]);
        for (std::int64_t k = 0; k < d; ++k) m[k] += share * (other[k] - m[k]);
        nk += size[static_cast<std::size_t>(gone)];
    };
    chain(n, nearest, join);
    return merges;
}

// single, complete, average: the n x n matrix of distances, updated by Lance and Williams' formula.
std::vector<Merge> stored(const Points& points, Method method) {
    const Rows rows(points);
    const std::int64_t n = rows.n;
    std::vector<double> matrix(static_cast<std::size_t>(n * n)), size(static_cast<std::size_t>(n), 1.0);
    const auto at = [&](std::int32_t a, std::int32_t b) -> double& {
        return matrix[static_cast<std::size_t>(a * n + b)];
    };
    for (std::int32_t a = 0; a < n; ++a)
        for (std::int32_t b = 0; b < a; ++b) at(a, b) = at(b, a) = std::sqrt(rows.squared(a, b));
    std::vector<Merge> merges;
    const auto nearest = [&](std::int32_t tip, std::int32_t before, const std::vector<std::int32_t>& live) {
        std::int32_t best = before;
        double least = before < 0 ? infinity : at(tip, before);
        for (const std::int32_t other : live) {
            if (other == tip) continue;
            if (at(tip, other) < least || best < 0) {
                least = at(tip, other);
                best = other;
            }
        }
        return best;
    };
    const auto join = [&](std::int32_t kept, std::int32_t gone, const std::vector<std::int32_t>& live) {
        merges.push_back({kept, gone, rows.unit * at(kept, gone)});
        const double nk = size[static_cast<std::size_t>(kept)], ng = size[static_cast<std::size_t>(gone)];
        for (const std::int32_t other : live) {
            if (other == kept) continue;
            const double x = at(kept, other), y = at(gone, other);
            double z = 0;
            if (method == Method::single) z = std::min(x, y);
            if (method == Method::complete) z = std::max(x, y);
            if (method == Method::average) z = (nk * x + ng * y) / (nk + ng);
            at(kept, other) = at(other, kept) = z;
        }
        size[static_cast<std::size_t>(kept)] = nk + ng;
    };
    chain(n, nearest, join);
    return merges;
}

}  // namespace

void linkage(const Points& points, Method method, double* z) {
    std::vector<Merge> merges = method == Method::ward ? ward(points) : stored(points, method);
    to_scipy(merges, points.n, z);
}

}  // namespace reprune
