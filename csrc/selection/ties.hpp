// Breaks ties by a counter-based hash of (seed, name, step, filter); reprune/clustering/reference/ties.py defines it.
#pragma once

#include <cstdint>
#include <string_view>

#include "gpu/device.hpp"

namespace reprune {

// A bijection of 32-bit words with little bias (C. Wellons, "lowbias32").
REPRUNE_BOTH inline std::uint32_t mix(std::uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    x ^= x >> 16;
    return x;
}

inline std::uint32_t tie_key(std::uint64_t seed, std::string_view name) {
    std::uint32_t key = 0x811c9dc5U;  // FNV-1a of the name
    for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 0x01000193U;
    key = mix(key ^ static_cast<std::uint32_t>(seed));
    return mix(key + static_cast<std::uint32_t>(seed >> 32));
}

REPRUNE_BOTH inline std::uint32_t tie_step(std::uint32_t key, std::uint32_t step) {
    return mix(key + step * 0x9e3779b9U);
}

// Distinct for distinct filters of one step, so the smallest one is a single winner.
REPRUNE_BOTH inline std::uint32_t tie_value(std::uint32_t step_key, std::uint32_t filter) {
    return mix(step_key ^ (filter * 0x85ebca6bU));
}

}  // namespace reprune
