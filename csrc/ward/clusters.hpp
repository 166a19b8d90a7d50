// The clusters of one channel during Ward linkage: their totals in float64, which decide, and their means in 16-bit fixed
// point, which select the candidates in a few instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/scan.hpp"

namespace reprune {

struct Join {  // `gone` becomes part of `kept`; clusters go by the largest id of their points
    std::int32_t gone, kept;
    double height;
};

struct Clusters {  // memory is kept from one channel to the next
    static constexpr float rounding = 6.0e-8F;  // of float32, 2^-24

    // A cluster for every point of points [n, d], behind which three more numbers can be read; equal points are joined.
    void start(const double* points, std::int32_t n, std::int32_t d);
    void begin();  // fixed point
    double cost(std::int32_t a, std::int32_t b) const;  // the same to the last bit for (b, a)
    void join(std::int32_t a, std::int32_t b, double cost);
    // May rounding have decided which of two clusters is nearer to this one, at costs lower <= higher?
    bool blurred(std::int32_t id, double lower, double higher) const;
    // or whether costs are within the limit?
    bool blurred(double limit) const;
    // Of equal points that have been joined: are the totals of any off? And does that make any cost 0? Else no cost is.
    bool inexact() const;
    bool joined_by_rounding() const;

    const std::int32_t* fixed(std::int32_t id) const { return words.data() + static_cast<std::int64_t>(id) * stride; }
    const double* total(std::int32_t id) const { return totals.data() + static_cast<std::int64_t>(id) * width; }

    std::int32_t n = 0, d = 0, width = 0, pairs = 0, stride = 0;
    std::vector<Join> joins;             // in the order they were made
    std::size_t equal = 0;               // so many at first, of equal points
    std::vector<std::int32_t> live;      // ids, ascending; up to date between one search for joins and the next
    bool fixed_point_fails = false;      // it is too coarse for these points
    bool tied = false;                   // rounding may have decided: the rule must, see greedy.hpp
    double spread = 0;                   // cost of joining two points, on the average
    double furthest = 0;                 // square of the largest distance of a point to the origin
    double scale = 1;                    // coordinates, less the mean, to fixed point
    double float_scale = 1;              // coordinates to float32 of order one
    std::vector<double> totals, size;    // [n, width], [n] sums, then zeros, and numbers of points
    std::vector<std::int32_t> words;     // [n, stride] means in fixed point, two coordinates to a word, then zeros
    std::vector<std::int32_t> norm;      // [n] their squared norms
    std::vector<float> inverse_size, slack;  // [n] 1 / size; how far the root of a key can be off

  private:
    void measure(std::int32_t id, const double* more);  // fixed-point form of a cluster, after `more` is added to it, if any
    void collapse(const double* points);
    bool inexact(std::int32_t id) const;

    const Scanner* scan_ = nullptr;
    std::vector<double> mean_;  // [width]
    std::vector<std::uint64_t> hashes_;  // [n]
    std::vector<std::int32_t> buckets_;
};

// The root of a cost in the units of keys: the square root of what a scan of fixed-point clusters returns.
float key_root(double cost, double scale);

}  // namespace reprune
