// A strided view of one clustering problem: n points of d coordinates, float32 or float64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprune {

struct Points {  // [n, d]
    const void* data;
    bool is_double;
    std::int64_t n, d;
    std::ptrdiff_t stride_n, stride_d;  // in elements

    double at(std::int64_t i, std::int64_t k) const {
        const std::ptrdiff_t offset = i * stride_n + k * stride_d;
        return is_double ? static_cast<const double*>(data)[offset]
                         : static_cast<double>(static_cast<const float*>(data)[offset]);
    }
};

struct Batch {  // [b, n, d]: b problems of n points, equally spaced in memory
    Points first;
    std::int64_t b;
    std::ptrdiff_t stride_b;  // in elements

    Points operator[](std::int64_t i) const {
        Points p = first;
        const std::ptrdiff_t offset = i * stride_b * static_cast<std::ptrdiff_t>(p.is_double ? 8 : 4);
        p.data = static_cast<const char*>(p.data) + offset;
        return p;
    }
};

}  // namespace reprune
