// Ward's clustering of one channel up to a cost, on centroids: a nearest-neighbour chain whose scans run in 16-bit fixed
// point and whose decisions are those of float64.
#pragma once

#include <cstdint>
#include <vector>

#include "scan.hpp"

namespace reprune {

struct Join {  // `gone` becomes part of `kept`; clusters go by the largest id of their points
    std::int32_t gone, kept;
    double cost;  // |A||B|/(|A|+|B|) * ||m_A - m_B||^2, half the square of the height
};

// Memory is kept from one channel to the next.
class Ward {
  public:
    double* start(std::int32_t n, std::int32_t d);  // rows [n, d] to be filled in, exactly centred if need be
    // Starts from singletons; `parent` [n] in: who belongs together already (a forest, parent[i] >= i), or null.
    void begin(const std::int32_t* parent);
    // Makes all joins of cost <= limit that are left, appended to joins.
    void run(double limit);
    // Two channels in turn: while one scans, what the other found is ready to be decided on.
    static void run(Ward& a, Ward& b, double limit);

    std::vector<Join> joins;

  private:
    void pack();  // live clusters into blocks
    void units();
    void measure(std::int32_t id);  // fixed-point form of a cluster
    void enter(std::int32_t slot, std::int32_t id);
    void leave(std::int32_t slot);
    double cost(std::int32_t a, std::int32_t b) const;
    bool open(double limit);  // these three are run(); false when nothing is left to do
    void look();              // scans for the neighbours of the chain's tip
    bool decide();
    Least scan(float* keys) const;
    void hide();     // the tip stands far away from itself while others are looked at
    void restore();
    std::int32_t nearest(std::int32_t before, double* reached);
    void remove(std::int32_t id);

    std::int32_t n_ = 0, d_ = 0, pairs_ = 0, live_ = 0;
    bool fixed_ = true;     // fixed point, else floating point: for points of very different size
    double scale_ = 1, float_scale_ = 1;  // coordinates to fixed point and to float32
    const Scanner* scan_ = nullptr;
    float error_ = 0, limit_root_ = 0;
    double limit_ = 0;
    std::int32_t tip_ = -1;
    char* own_ = nullptr;  // lane of the tip
    float slack_now_ = 0, first_ = 0;
    Least least_{};
    std::int64_t scans_ = 0, candidates_ = 0;
    std::vector<double> rows_, size_, mean_;
    std::vector<std::int32_t> words_, norm_;  // [n, pairs], [n] fixed-point coordinates and squared norms
    std::vector<float> share_, slack_;        // [n] 1/size; how far the root of a key can be off
    std::vector<std::int32_t> id_, slot_, path_, final_, found_, forest_, count_;
    std::vector<char> memory_;
    char* blocks_ = nullptr;  // in memory_, at a multiple of 64: a scan is bound by its loads
    std::vector<float> keys_, query_;
};

}  // namespace reprune
