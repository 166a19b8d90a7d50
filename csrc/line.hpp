// Ward's clustering of points on a line (1 x 1 kernels): only neighbours ever merge, so after sorting each boundary between
// neighbours has one cost, and the clusters at a cut are read off by comparing.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace reprune {

class Line {
  public:
    double* start(std::int32_t n);  // values [n] to be filled in
    // Finds the joins of cost <= limit: cost()[p] is that of the join which closes the boundary between the sorted points p
    // and p + 1, infinity where none within the limit does.
    void run(double limit);

    const std::int32_t* order() const { return order_.data(); }  // [n] points by value, equal ones by id
    const double* cost() const { return cost_.data(); }          // [n-1]

  private:
    void sort();
    void rounds(double limit);
    void chain(double limit);

    std::int32_t n_ = 0, live_ = 0;
    std::vector<double> values_;
    std::vector<std::int32_t> order_, spare_order_;
    std::vector<double> cost_;
    // clusters from left to right: mean, size, and the boundary on their right; gap: cost of the join across it
    std::vector<double> mean_, size_, gap_, share_;
    std::vector<std::int64_t> join_;
    std::vector<std::int32_t> boundary_, stack_, waiting_;
};

}  // namespace reprune
