// One layer: clusters of every channel at a common cut, then the filters that cover them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "linkage/points.hpp"

namespace reprune {

struct LayerProblem {
    std::string name;
    std::vector<Batch> tables;  // each [I, O, d]
    std::int64_t filters;       // O
    std::int64_t keep;          // 1 <= keep < O
    // results
    std::vector<double> heights;         // [tables]
    std::int32_t* labels = nullptr;      // [sum of I, O]; those of a layer without are kept while it is worked on
    std::int32_t* clusters = nullptr;    // [sum of I]
    std::int64_t *order = nullptr, *gains = nullptr;  // [keep]
};

// All problems, the largest first and several at a time. `finished` is called on this thread, now and then, with the number
// of layers done; what it throws ends the work.
void select_layers(std::vector<LayerProblem>& problems, std::uint64_t seed, bool ties_by_norm, int threads,
                   const std::function<void(std::int64_t)>& finished);

}  // namespace reprune
