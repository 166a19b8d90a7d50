// Lists of neighbours within a cost bound: clustering up to that cost without scans of all clusters.
//
// Ward's linkage is reducible, cost(A u B, C) >= min(cost(A, C), cost(B, C)), so only those can come within the limit of a
// joined cluster that were within it of one of its parts. All pairs within the limit are found once, in fixed point and in
// tiles, which costs a fraction of what a chain's scans do, one by one; afterwards a look is at a few neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ward/clusters.hpp"
#include "simd/scan.hpp"

namespace reprune {

class NeighbourLists {  // memory is kept from one channel to the next
  public:
    // Makes all joins of cost <= limit, or a little less, among the live clusters, which stay in clusters.live if they are, or
    // ends with clusters.tied. False, and nothing is done, where more than `most` neighbours per cluster would have to be
    // kept; fresh: the clusters are others than at the last call.
    bool run(Clusters& clusters, double limit, std::int32_t most, bool fresh);

    // The first half of run(), which finds the pairs within the limit, and a few more.
    bool find(Clusters& clusters, double limit, std::int32_t most, bool fresh);
    struct Above {
        const std::int32_t* places;
        std::int32_t count;
    };
    Above above(std::int32_t place) const {  // neighbours above a place among the live clusters
        const std::int32_t begin = place > 0 ? end_[static_cast<std::size_t>(place) - 1] : 0;
        return {near_.data() + begin, end_[static_cast<std::size_t>(place)] - begin};
    }

    // for link.hpp
    std::int32_t nearest(std::int32_t tip, bool first, double* reached);
    void join(std::int32_t a, std::int32_t b, double cost);
    void finish(std::int32_t id);

  private:
    // A neighbour: its key, the approximate cost as of a scan, in the upper half, its node in the lower, so that the smallest
    // entry is the nearest. Keys are not negative, and compare as their bits do.
    using Entry = std::uint64_t;
    static constexpr Entry no_entry = ~Entry{0} >> 1;

    struct List {
        std::int32_t begin = 0, count = 0, capacity = 0;
        Entry least = no_entry, second = no_entry;  // what lies between and before holds as long as the least is alive

        void offer(Entry e) {
            second = std::min(second, std::max(least, e));
            least = std::min(least, e);
        }
    };

    void pack();
    void bound(double limit);
    bool screen(std::int32_t most);
    void lay_out();  // the lists
    void add(List& list, Entry e);
    void refresh(List& list);

    Clusters* clusters_ = nullptr;
    const Scanner* scan_ = nullptr;
    double limit_ = 0;
    float limit_root_ = 0, error_ = 0;
    std::vector<char> memory_;
    char* blocks_ = nullptr;                  // in memory_, at a multiple of 64
    std::vector<std::int32_t> bound_;         // [live] hits are sums of at most this
    std::vector<std::uint64_t> hits_;         // of two rows
    std::vector<std::int32_t> near_, end_;    // slots of neighbours above one's own; where those of a slot end
    std::vector<List> list_;                  // [n] by id
    std::vector<Entry> entries_, joined_;
    std::vector<std::int32_t> id_of_;         // of a node, -1 once dead; a joined cluster is a new node
    std::vector<std::int32_t> node_of_;       // of an id
    std::vector<std::int32_t> stamp_, found_, squares_, path_;
};

}  // namespace reprune
