// Maximum cluster coverage (Eq. 6-7): greedily the filters that cover the most clusters not covered yet.
#pragma once

#include <cstdint>
#include <vector>

namespace reprune {

struct LabelColumn {  // one channel: the cluster of every filter
    const std::int32_t* labels;  // [O], 0-based
    std::int32_t clusters;
};

// columns [I] -> order [keep] and gains [keep]. Ties: the larger norms[i] when norms is given, then the hash of
// ties.hpp under `tie_key`.
void max_coverage(const std::vector<LabelColumn>& columns, std::int64_t filters, std::int64_t keep, std::uint32_t tie_key,
                  const double* norms, std::int64_t* order, std::int64_t* gains);

}  // namespace reprune
