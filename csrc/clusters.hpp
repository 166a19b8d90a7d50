// The clusters of one channel while Ward joins them: their means in float64, which decide, and in 16-bit fixed point, which
// tell in a few instructions who is worth a decision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace reprune {

struct Join {  // `gone` becomes part of `kept`; clusters go by the largest id of their points
    std::int32_t gone, kept;
    double cost;  // |A||B|/(|A|+|B|) * ||m_A - m_B||^2, half the square of the height
};

struct Clusters {  // memory is kept from one channel to the next
    static constexpr float rounding = 6.0e-8F;  // of float32, 2^-24

    double* start(std::int32_t n, std::int32_t d);  // rows [n, d] to be filled in, exactly centred if need be
    void begin();  // a cluster for every point; equal points are joined
    double cost(std::int32_t a, std::int32_t b) const;  // the same to the last bit for (b, a)
    void join(std::int32_t a, std::int32_t b, double cost);

    const std::int32_t* fixed(std::int32_t id) const { return words.data() + static_cast<std::int64_t>(id) * stride; }
    const double* row(std::int32_t id) const { return rows.data() + static_cast<std::int64_t>(id) * d; }

    std::int32_t n = 0, d = 0, pairs = 0, stride = 0;
    std::vector<Join> joins;             // in the order they were made
    std::vector<std::int32_t> live;      // ids, ascending; up to date between one search for joins and the next
    bool coarse = false;                 // true: fixed point tells too little about these points
    double spread = 0;                   // cost of joining two points, on the average
    double scale = 1;                    // coordinates, less the mean, to fixed point
    double float_scale = 1;              // coordinates to float32 of order one
    std::vector<double> rows, size;      // [n, d], [n] means and numbers of points
    std::vector<std::int32_t> words;     // [n, stride] means in fixed point, two coordinates to a word, then zeros
    std::vector<std::int32_t> norm;      // [n] their squared norms
    std::vector<float> share, slack;     // [n] 1 / size; how far the root of a key can be off

  private:
    void measure(std::int32_t id);  // fixed-point form of a cluster
    void collapse();

    std::vector<double> mean_;
    std::vector<std::int32_t> buckets_;
};

// The root of a cost in the units of keys: the square root of what a scan of fixed-point clusters returns.
float key_root(double cost, double scale);

}  // namespace reprune
