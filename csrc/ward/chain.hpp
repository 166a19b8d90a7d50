// A nearest-neighbour chain (Benzecri 1982) that scans all live clusters for each link. Scans run in 16-bit fixed point,
// float64 decides, and where rounding could decide the chain gives up.
#pragma once

#include <cstdint>
#include <vector>

#include "ward/clusters.hpp"
#include "simd/scan.hpp"

namespace reprune {

class Chain {  // memory is kept from one channel to the next
  public:
    // All joins of cost <= limit among the live clusters, in time O(live^2 d), or till clusters.tied.
    void start(Clusters& clusters, double limit);
    bool look();  // Scans for the neighbours of the chain's tip; false if there is nothing left to do.
    void go_on();  // By what was seen.
    void run() {
        while (look()) go_on();
    }

    // for link.hpp
    std::int32_t nearest(std::int32_t tip, bool first, double* reached);
    void join(std::int32_t a, std::int32_t b, double cost);
    void finish(std::int32_t id);

  private:
    void pack();  // live clusters into blocks
    void update_error_bounds();
    void enter(std::int32_t slot, std::int32_t id);
    void leave(std::int32_t slot);
    void scan(float* keys);

    Clusters* clusters_ = nullptr;
    bool fixed_ = true;  // fixed point, else floating point: for points of very different size
    std::int32_t count_ = 0;  // live clusters
    const Scanner* scan_ = nullptr;
    FixedScan fixed_scan_ = nullptr;
    float error_ = 0, limit_root_ = 0;
    double limit_ = 0;
    std::int32_t tip_ = -1;
    float slack_now_ = 0;
    Least least_{};
    std::int64_t scans_ = 0, candidates_ = 0, work_ = 0;
    std::vector<std::int32_t> id_, slot_, path_, found_;
    std::vector<char> memory_;
    char* blocks_ = nullptr;  // in memory_, at a multiple of 64: a scan is bound by its loads
    std::vector<float> keys_, query_;
};

}  // namespace reprune
