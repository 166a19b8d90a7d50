// Ward's clustering of points on a line (1 x 1 kernels): only neighbours ever merge, so sorting and a stack do.
#pragma once

#include <cstdint>
#include <vector>

#include "ward.hpp"

namespace reprune {

class Line {
  public:
    double* start(std::int32_t n);  // values [n] to be filled in
    // All joins of cost <= limit, appended to joins.
    void run(double limit);

    std::vector<Join> joins;

  private:
    struct Cluster {
        double mean, size;
        double gap;  // cost of the join with the cluster below it on the stack
        std::int32_t id;
    };
    void sort();

    std::int32_t n_ = 0;
    std::vector<double> values_;
    std::vector<std::uint64_t> keys_, spare_;
    std::vector<std::int32_t> order_, spare_order_;
    std::vector<Cluster> stack_, waiting_;
};

}  // namespace reprune
