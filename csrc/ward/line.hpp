// Ward's clustering of points on a line (1 x 1 kernels): only neighbours ever merge, so after sorting each boundary between
// neighbours has one height, and the clusters at a cut are read off by comparing.
//
// Rounds join all neighbours that are each other's nearest, in whatever order. That is the rule of
// reprune/clustering/reference/linkage.py as long as rounding decides nothing. Where it might, by the furthest of all points, the
// line is done again one by one, by the furthest in each cluster; where it still might, as the rule reads.
#pragma once

#include <cstdint>
#include <vector>

#include "linkage/near_ties.hpp"
#include "ward/radix.hpp"

namespace reprune {

class Ward1D {  // memory is kept from one channel to the next
  public:
    double* start(std::int32_t n);  // values [n] to be filled in, scaled
    // Finds the joins of height <= limit: heights()[p] is that of the join which closes the boundary between the sorted points
    // p and p + 1; above the limit, or infinite, where none within the limit does. wide: as Scale has it.
    // refuse_within: throw NearTie where a join is decided by less; null: decide all the same.
    void run(double limit, bool wide, const Tolerance* refuse_within = nullptr);

    const std::int32_t* order() const { return order_.data(); }  // [n] points by value, equal ones by id
    const double* heights() const { return heights_.data(); }    // [n-1]
    // Boundaries between different points in the order they were closed in, if rounding may have decided; else empty.
    const std::vector<std::int32_t>& sequence() const { return sequence_; }

  private:
    void sort();
    void collapse();
    void restart();
    bool bound_sizes(double limit);
    bool rounds(double limit, bool decide);
    bool settle(double limit);
    bool one_by_one(double limit);
    template <class Blur>
    bool chain(double limit, Blur blur);
    void greedy(double limit, const Tolerance* refuse_within);

    std::int32_t n_ = 0, live_ = 0;
    double furthest_ = 0;    // from the origin
    double largest_ = 0;     // points in a cluster so far
    std::int32_t most_ = 0;  // that many may there be in one, for the blur to hold
    double blur_ = 0;        // costs of clusters of s points that differ by less than s times this may be equal
    std::vector<double> values_, heights_;
    std::vector<std::int32_t> order_, scratch_;
    RadixSort radix_;
    std::vector<double> far_;  // of clusters: their point furthest from the origin, where that is asked for
    // clusters from left to right: sum, size, and the boundary on their right; gap: cost of the join across their left one
    std::vector<double> total_, size_, gap_;
    std::vector<std::int64_t> join_;
    std::vector<std::int32_t> boundary_, stack_, waiting_, sequence_;
};

}  // namespace reprune
