// Ward's clustering of one channel up to a height.
#pragma once

#include "ward/chain.hpp"
#include "ward/clusters.hpp"
#include "ward/lists.hpp"
#include "ward/tied.hpp"

namespace reprune {

class Ward {  // memory is kept from one channel to the next
  public:
    double* start(std::int32_t n, std::int32_t d);  // rows [n, d] to be filled in, scaled
    // Makes all joins of height <= limit, and maybe a few above it: joins(). wide: as Scale has it. refuse: throw NearTie where
    // rounding may decide.
    void run(double limit, bool wide, bool refuse = false);
    // The same of two channels in turns: the one computes while the other waits.
    static void run_two(Ward& a, double limit_a, bool wide_a, Ward& b, double limit_b, bool wide_b);
    const std::vector<Join>& joins() const { return clusters_.joins; }
    std::size_t equal() const { return clusters_.equal; }  // so many joins at first are of equal points
    bool in_order() const { return clusters_.tied; }  // joins are in the order that the rule makes them in, else in any

  private:
    bool begin(double limit, bool wide, bool refuse);  // all but the chain: true if one must be run
    void end(bool refuse);
    bool levels(double limit, bool by_rule);
    void rule();

    double limit_ = 0, cost_ = 0;  // cost: a little further than the limit, so that rounding near it is no matter
    bool done_ = false;  // nothing joins within the limit but equal points
    bool wide_ = false;
    std::int32_t n_ = 0, d_ = 0;
    std::vector<double> points_, reached_;  // [n, d], [n] height of a cluster's own merge
    Clusters clusters_;
    NeighbourLists lists_;
    TiedLists tied_;
    Chain chain_;
};

}  // namespace reprune
