// A link of a nearest-neighbour chain, the same for every way to find the nearest (chain.hpp scans, lists.hpp keeps lists).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ward/clusters.hpp"

namespace reprune {

// path: a cluster, the nearest of it, the nearest of that, and so on. Goes on from its tip, or joins the last two if they are
// each other's nearest, or takes the tip out if none is within the limit. Search has
//     std::int32_t nearest(tip, first, reached): -1 if none is within the limit; *reached: the cost, or NaN if it was not computed
//     void join(a, b, cost)
//     void finish(id): it joins no other; by reducibility no later join comes nearer to it
template <class Search>
void link(std::vector<std::int32_t>& path, const Clusters& clusters, Search& search) {
    const std::int32_t tip = path.back(), before = path.size() > 1 ? path[path.size() - 2] : -1;
    double reached = 0;
    const std::int32_t next = search.nearest(tip, before < 0, &reached);
    if (next < 0) {
        path.pop_back();
        search.finish(tip);
    } else if (next != before) {
        path.push_back(next);
    } else {
        path.resize(path.size() - 2);
        search.join(tip, before, std::isnan(reached) ? clusters.cost(tip, before) : reached);
    }
}

}  // namespace reprune
