// The squared norm of a filter, summed in an order that is part of the tie rule: no multiply-add may be contracted here.
#pragma once

#include "gpu/cover_layers.hpp"

namespace reprune {

REPRUNE_BOTH inline double with_squares(const SquaresOf& table, std::int64_t i, double sum) {
    for (std::int64_t j = 0; j < table.channels; ++j)
        for (std::int64_t k = 0; k < table.d; ++k) {
            const std::int64_t at = j * table.stride_j + i * table.stride_i + k * table.stride_k;
            const double x = table.is_double ? static_cast<const double*>(table.points)[at]
                                             : static_cast<double>(static_cast<const float*>(table.points)[at]);
            sum += x * x;
        }
    return sum;
}

}  // namespace reprune
