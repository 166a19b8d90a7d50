// Maximum cluster coverage (Eq. 6-7): greedily picks the filters that cover the most uncovered clusters.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprune {

template <class Label>  // std::int32_t, or std::uint16_t for at most 65,536 filters
struct LabelTable {  // the cluster of kernel (i, j) within channel j: labels[i * stride_i + j * stride_j], 0 <= . < clusters
    const Label* labels;
    std::ptrdiff_t stride_i, stride_j;
    std::int64_t filters, channels;  // O, I
    std::int32_t clusters;           // at most this many in any channel, at most O
};

// table [O, I] -> order [keep] and gains [keep]. Ties: the larger norms[i] when norms is given, then the hash of ties.hpp
// under `tie_key`. over: null, or the memory of the labels, where channels follow each other and there is room_for_coverage
// of them. It is written over, and hardly any other is taken.
template <class Label>
void max_coverage(const LabelTable<Label>& table, std::int64_t keep, std::uint32_t tie_key, const double* norms,
                  std::int64_t* order, std::int64_t* gains, Label* over = nullptr);

template <class Label>
std::size_t room_for_coverage(std::int64_t filters, std::int64_t channels);

}  // namespace reprune
