// A matrix of the heights between all clusters, for greedy.hpp: linkages with a formula of Lance and Williams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "linkage/linkage.hpp"
#include "runtime/pages.hpp"

namespace reprune {

class Square {
  public:
    static constexpr bool has_rows = true;

    Square(std::size_t n, Method method);
    // row i, of which those above the diagonal are read; own and lower ones need not be filled in
    double* row(std::size_t i) { return values_.data() + i * stride_; }
    void mirror();  // from the upper half to the lower

    void update_nearest(std::size_t i, const double* gone, double* least, std::int32_t* nearest);
    void offer(std::size_t b, const double* gone, double* least, std::int32_t* nearest);
    void join(std::size_t a, std::size_t b, double height);
    void keep(const std::vector<std::size_t>& left);

  private:
    std::size_t places_, stride_;  // an odd number of cache lines, so that a column does not compete for a few places
    Method method_;
    HugePageBuffer<double> values_;
    std::vector<double> size_;
};

}  // namespace reprune
