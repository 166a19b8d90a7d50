// Hierarchical clustering of one problem, in full.
#pragma once

#include "linkage/points.hpp"

namespace reprune {

enum class Method { ward, single, complete, average };

// What happens where another dendrogram is as right but for rounding: the core decides, or throws NearTie (near_ties.hpp).
enum class Ties { decide, refuse };

// points [n, d], n >= 1 -> z [n-1, 4] in scipy's form; heights in float64 whatever the points are.
void linkage(const Points& points, Method method, double* z, Ties ties = Ties::decide);

// The same from distances [n (n-1) / 2] in the order of scipy's pdist; Ward by Lance and Williams, so the distances should be
// Euclidean.
void linkage_condensed(const double* distances, std::int64_t n, Method method, double* z, Ties ties = Ties::decide);

}  // namespace reprune
