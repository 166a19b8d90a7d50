// Merges in the order an algorithm finds them, and their form as scipy's Z.
#pragma once

#include <cstdint>
#include <vector>

namespace reprune {

struct Merge {
    std::int32_t a, b;  // any member point of either cluster
    double height;
};

// n-1 merges that join n points -> z [n-1, 4]: sorted by height (stable), rows (smaller id, larger id, height, size).
void to_scipy(std::vector<Merge>& merges, std::int64_t n, double* z);

}  // namespace reprune
