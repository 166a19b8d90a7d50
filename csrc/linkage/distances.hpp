// Euclidean distances of points: of a linkage's rows, or as the caller gets them.
#pragma once

#include <cstddef>
#include <vector>

#include "linkage/points.hpp"

namespace reprune {

// The distances among scaled rows [n, d], one row at a time.
class Distances {
  public:
    Distances(const double* rows, std::size_t n, std::size_t d, bool wide);
    void above(std::size_t a, double* row) const;  // of row a to all later ones, [n - a - 1]

  private:
    const double* rows_;
    std::size_t n_, d_;
    bool wide_;
    std::vector<double> turned_;  // [d, n]
};

// All distances of points as [n, n], by `threads` threads.
void pairwise(const Points& points, int threads, double* out);

}  // namespace reprune
