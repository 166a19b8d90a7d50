// The rule of reprune/clustering/reference/linkage.py up to a height, on the neighbour lists of lists.hpp: for problems
// in which rounding decides.
#pragma once

#include <cstdint>
#include <vector>

#include "ward/clusters.hpp"
#include "ward/lists.hpp"

namespace reprune {

class TiedLists {  // memory is kept from one channel to the next
  public:
    // Makes all joins of cost <= limit, or a little less, in their order; the live clusters stay in clusters.live. `lists` has
    // found all pairs within the limit. reached [n]: the height of a cluster's own merge, by id.
    void run(Clusters& clusters, const NeighbourLists& lists, double limit, std::vector<double>& reached);

  private:
    // Clusters have places in the order of their ids.
    struct Neighbour {
        double height;
        std::int32_t place;
    };
    struct List {
        std::int32_t begin, count, capacity;
    };

    void link(const NeighbourLists& lists);
    void join(std::int32_t a, std::int32_t b, double height);
    void update_nearest(std::int32_t place);
    double height(std::int32_t a, std::int32_t b) const;

    Clusters* clusters_ = nullptr;
    double kept_ = 0;  // heights up to this are in the lists
    std::vector<List> list_;
    std::vector<Neighbour> neighbours_;
    std::vector<double> least_;  // height of the nearest of higher places
    std::vector<std::int32_t> nearest_, stamp_, both_;
};

}  // namespace reprune
