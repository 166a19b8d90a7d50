// One query cluster against all live clusters of a channel: the inner loop of Ward's clustering, by instruction set.
//
// Clusters are stored in blocks of 16 lanes of 4 bytes. A block of the fixed-point form is
//     [pairs][16] of two int16 coordinates, [16] int32 squared norm, [16] float 1/size        64 * (pairs + 2) bytes
// and one of the floating-point form
//     [d][16] float coordinates, [16] float 1/size                                           64 * (d + 1) bytes
// Keys are approximate Ward costs ||a - b||^2 / (1/|A| + 1/|B|); the caller bounds their error and decides close
// cases in float64, so that every instruction set gives the same clusters.
#pragma once

#include <cstdint>

#include "simd/line.hpp"

namespace reprune {

constexpr int lanes = 16;

struct FixedQuery {
    const std::int32_t* words;  // [pairs]: a, two int16 coordinates to a word
    std::int32_t norm;          // ||a||^2
    float reciprocal;           // 1/|A|
    std::int32_t lane;          // its own, which does not count
};

struct FloatQuery {
    const float* coordinates;  // [d]
    float reciprocal;
    std::int32_t lane;
};

struct Least {
    float key;            // the smallest; its low bits may hold the number of its lane
    float second;         // the next, not smaller
    std::int32_t index;   // lane of the smallest
};

struct Extent {
    double sum_from_mean, from_mean, from_origin;  // the largest, where it is not the sum
};

// In fixed point, of so many pairs of coordinates.
using FixedScan = void (*)(const char* blocks, std::int32_t count, std::int32_t pairs, const FixedQuery& query, float* keys,
                           Least* least);

struct Scanner {
    const char* name;
    float error;  // relative error of a key beyond that of its coordinates
    // Both write keys [16 * count] too, that of the query included, unless keys is null.
    FixedScan (*fixed)(std::int32_t pairs);
    void (*floating)(const char* blocks, std::int32_t count, std::int32_t d, const FloatQuery& query, float* keys,
                     Least* least);
    // Of two rows x and y, for the lanes s of blocks [first, count): bit s % 64 of hits[s / 64] is set where
    //     sum of lane - 2 <row, lane> <= bound of the row
    // Blocks are of [pairs][16] of two int16 coordinates and [16] int32 sums.
    void (*within)(const char* blocks, std::int32_t first, std::int32_t count, std::int32_t pairs, const std::int32_t* x,
                   const std::int32_t* y, std::int32_t bound_x, std::int32_t bound_y, std::uint64_t* hits_x,
                   std::uint64_t* hits_y);
    // Numbers above `own` of bits that are set in hits[own / 64 .. count), ascending; returns how many, may write two more.
    std::int32_t (*indices)(const std::uint64_t* hits, std::int32_t own, std::int32_t count, std::int32_t* found);
    // squares[k] = ||query - words[ids[k]]||^2 of int16 coordinates; stride words to a row, a multiple of 8, unused ones zero.
    void (*squares)(const std::int32_t* words, std::int32_t stride, const std::int32_t* query, const std::int32_t* ids,
                    std::int32_t count, std::int32_t* squares);
    // Adds `more` to total [width], unless it is null. words [width / 2, rounded up to 4]: (total part - mean) scale, rounded
    // to int16; returns its squared norm. width is a multiple of 4.
    std::int32_t (*quantise)(double* total, const double* more, const double* mean, double part, double scale,
                             std::int32_t width, std::int32_t* words);
    // rows [n, width] = points [n, d], then zeros, without negative zero; sum [width] of them; hashes [n]. Reads three numbers
    // behind the points.
    void (*adopt)(const double* points, std::int32_t n, std::int32_t d, std::int32_t width, double* rows, double* sum,
                  std::uint64_t* hashes);
    // Of the rows ids [count] of totals [., width], divided by size [.]: squares of the distances to `mean` and to the origin.
    Extent (*extent)(const double* totals, const double* size, const double* mean, const std::int32_t* ids, std::int32_t count,
                     std::int32_t width);
    // Indices of keys <= limit, ascending; returns how many.
    std::int32_t (*gather)(const float* keys, std::int32_t count, float limit, std::int32_t* found);
    // gain[left[k]] -= entries of row left[k] of rows [., width] that equal those of `row`; width a multiple of 32, for the
    // coverage.
    void (*subtract_equal)(const std::uint8_t* rows, std::int64_t width, const std::uint8_t* row, const std::int32_t* left,
                           std::int64_t count, std::int32_t* gain);
    const LineLoops* line;  // of points on a line
};

// The fastest one here, or what set_isa() chose. Names: "avx512", "avx2", "sse2", "plain".
const Scanner& scanner();
bool set_isa(const char* name);  // "" for the fastest; false if this machine has no such instruction set
const Scanner* x86_scanner(int rank);  // 0, 1, 2: the fastest first; null where it cannot run
extern const Scanner plain_scanner;

}  // namespace reprune
