// The loops of Ward's clustering of points on a line, by instruction set: see ward/line.hpp. Each gives the same everywhere.
#pragma once

#include <cstdint>

namespace reprune {

struct LineClusters {  // from left to right; all arrays can be read and written for line_spare more
    double *total, *size;     // sums, and numbers of points
    double* gap;              // [i] cost of the join of i - 1 and i, infinite beyond the ends
    std::int64_t* join;       // does i join i + 1? 0 or 1
    std::int32_t* boundary;   // the last of a cluster's points by value
    double* heights;          // of boundaries; what stands at [points] is of no use
    std::int32_t count, points;
};

constexpr std::int32_t line_spare = 16;

struct LineLoops {
    // order [n]: the points by value, but for those in the wrong order that are about as large, equal ones by id; sorted [n]:
    // their values. Returns the largest absolute value. scratch: line_scratch(n). n >= 1.
    double (*sort)(const double* values, std::int32_t n, std::int32_t* scratch, std::int32_t* order, double* sorted);
    // gap [1, count).
    void (*gaps)(const LineClusters& line);
    // join, for the gaps within the limit that are the smallest of the three around a cluster. Returns whether one beside a gap
    // that is taken may be as small: if not, no cluster is in two joins.
    bool (*smallest)(const LineClusters& line, double limit, double blur);
    // Makes the joins, and leaves out clusters both of whose gaps lie beyond the limit. Returns the number of joins; *largest
    // becomes that of the largest cluster, if it is larger.
    std::int32_t (*close)(LineClusters& line, double limit, double* largest);
};

constexpr std::int32_t line_buckets(std::int32_t n) {
    std::int32_t buckets = 1;
    while (buckets / 4 < n && buckets < 16384) buckets *= 2;
    return buckets;
}
static_assert(line_buckets(1 << 30) == 16384);  // no product overflows
constexpr std::int32_t line_scratch(std::int32_t n) { return n + line_buckets(n) + 2 * line_spare; }

extern const LineLoops plain_line;
extern const LineLoops avx512_line;  // compiled for x86-64 alone

}  // namespace reprune
