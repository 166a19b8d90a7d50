// Hierarchical clustering of one problem, in full.
#pragma once

#include "points.hpp"

namespace reprune {

enum class Method { ward, single, complete, average };

// points [n, d], n >= 1 -> z [n-1, 4] in scipy's form; heights in float64 whatever the points are.
void linkage(const Points& points, Method method, double* z);

// The same from distances [n (n-1) / 2] in the order of scipy's pdist; Ward by Lance and Williams, so the distances should be
// Euclidean.
void linkage_condensed(const double* distances, std::int64_t n, Method method, double* z);

}  // namespace reprune
