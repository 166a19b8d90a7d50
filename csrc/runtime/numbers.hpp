// Infinity, and the conversion of a signed index that -Wsign-conversion asks for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace reprune {

constexpr double infinity = std::numeric_limits<double>::infinity();

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace reprune
