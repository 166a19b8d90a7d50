// Ward's clustering of one channel up to a cost.
#pragma once

#include "chain.hpp"
#include "clusters.hpp"
#include "lists.hpp"

namespace reprune {

class Ward {  // memory is kept from one channel to the next
  public:
    double* start(std::int32_t n, std::int32_t d) { return clusters_.start(n, d); }  // rows [n, d] to be filled in
    // Makes all joins of cost <= limit: joins().
    void run(double limit);
    const std::vector<Join>& joins() const { return clusters_.joins; }

  private:
    double start_ = 1e300;  // where the levels of the last channel began: a guess for the next
    Clusters clusters_;
    Lists lists_;
    Chain chain_;
};

}  // namespace reprune
