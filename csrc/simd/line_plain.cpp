// The loops of a line for any machine; those that the compiler can make vectors of are cloned.
#include "simd/line.hpp"

#include <algorithm>

#include "simd/clones.hpp"
#include "ward/cost.hpp"

namespace reprune {
namespace {

constexpr double times[2] = {0, 1};
constexpr double above = 1 + 0x1p-30;  // times a cost: surely more

// One pass by the leading bits, over the range of the values, so that buckets hold few.
double sort(const double* values, std::int32_t n, std::int32_t* scratch, std::int32_t* order, double* sorted) {
    double low = values[0], high = low;
    for (std::int32_t i = 1; i < n; ++i) {
        low = std::min(low, values[i]);
        high = std::max(high, values[i]);
    }
    const std::int32_t buckets = line_buckets(n);
    const double scale = high > low ? (buckets - 1) / (high - low) : 0;
    std::int32_t *bucket = scratch, *start = scratch + n;
    std::fill(start, start + buckets + 1, 0);
    for (std::int32_t i = 0; i < n; ++i) {
        const auto b = static_cast<std::int32_t>((values[i] - low) * scale);
        bucket[i] = b;
        ++start[b + 1];
    }
    for (std::int32_t b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (std::int32_t i = 0; i < n; ++i) {
        const std::int32_t to = start[bucket[i]]++;
        order[to] = i;
        sorted[to] = values[i];
    }
    return std::max(-low, high);
}

REPRUNE_CLONES void gaps(std::int32_t n, const double* total, const double* size, double* __restrict gap) {
    for (std::int32_t i = 1; i < n; ++i) {
        const double step = ward_step(total[i - 1], size[i - 1], total[i], size[i]);
        gap[i] = ward_cost(step * step, size[i - 1], size[i]);
    }
}

void gaps(const LineClusters& line) { gaps(line.count, line.total, line.size, line.gap); }

REPRUNE_CLONES bool smallest(std::int32_t n, const double* gap, const double* size, double limit, double blur,
                             std::int64_t* __restrict join) {
    std::int64_t blurred = 0;
    for (std::int32_t i = 0; i < n; ++i) {
        const double g = gap[i + 1], beside = gap[i] < gap[i + 2] ? gap[i] : gap[i + 2];
        const std::int64_t least = (g <= limit) & (g <= beside), near = g * above + blur * (size[i] + size[i + 1]) >= beside;
        join[i] = least;
        blurred |= least & near;
    }
    return blurred != 0;
}

bool smallest(const LineClusters& line, double limit, double blur) {
    return smallest(line.count, line.gap, line.size, limit, blur, line.join);
}

std::int32_t close(LineClusters& line, double limit, double* largest) {
    double *total = line.total, *size = line.size, most = *largest;
    std::int32_t* boundary = line.boundary;
    std::int32_t to = 0, joins = 0;
    std::int64_t joined = 0;                        // was this cluster joined to the one before it?
    for (std::int32_t i = 0; i < line.count; ++i) {  // no branches: no one could guess them
        const std::int64_t yes = line.join[i], on = (1 - joined) & ((line.gap[i] <= limit) | (line.gap[i + 1] <= limit));
        const double points = size[i] + times[yes] * size[i + 1];
        line.heights[line.points + ((boundary[i] - line.points) & -yes)] = line.gap[i + 1];  // [points] where it is not joined
        total[to] = total[i] + times[yes] * total[i + 1];
        size[to] = points;
        boundary[to] = boundary[i + yes];
        most = points > most ? points : most;
        to += static_cast<std::int32_t>(on);
        joins += static_cast<std::int32_t>(yes);
        joined = yes;
    }
    *largest = most;
    line.count = to;
    return joins;
}

}  // namespace

const LineLoops plain_line{sort, gaps, smallest, close};

}  // namespace reprune
