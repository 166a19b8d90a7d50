// A label table as rows of bytes: what a pick newly covers is found by comparing its row with every other one. O(keep O I),
// but 32 entries to an instruction, so better than Rings where few filters are kept.
// Clusters of one filter do not affect other filters and share a label, so bytes suffice for most layers of up to 600 filters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/call.hpp"
#include "selection/coverage.hpp"
#include "simd/scan.hpp"

namespace reprune {

class Matches {
  public:
    static constexpr std::uint8_t nothing = 255, alone = 254;  // not a label; the label of every cluster of one

    template <class Label>
    explicit Matches(const LabelTable<Label>& table)
        : channels_(static_cast<std::size_t>(table.channels)), width_((channels_ + 31) / 32 * 32),
          rows_(width_ * static_cast<std::size_t>(table.filters), alone), covered_(channels_ * 256, 0),
          row_(width_, nothing), left_(static_cast<std::size_t>(table.filters)) {
        const auto n = static_cast<std::size_t>(table.filters), clusters = static_cast<std::size_t>(table.clusters);
        std::vector<std::uint16_t> labels(tile * n);  // below `clusters`, few where comparing pays
        std::vector<std::uint32_t> size(clusters);
        std::vector<std::uint8_t> byte(tile * clusters);
        for (std::size_t j0 = 0; j0 < channels_ && fits_; j0 += tile) {
            const std::size_t columns = std::min(tile, channels_ - j0);
            poll(static_cast<std::int64_t>(8 * tile * n));
            const Label* from = table.labels + static_cast<std::ptrdiff_t>(j0) * table.stride_j;
            for (std::size_t i = 0; i < n; ++i, from += table.stride_i)  // columns that lie far apart are read once
                for (std::size_t c = 0; c < columns; ++c)
                    labels[i * tile + c] = static_cast<std::uint16_t>(from[static_cast<std::ptrdiff_t>(c) * table.stride_j]);
            for (std::size_t c = 0; c < columns; ++c) {
                std::fill(size.begin(), size.end(), 0U);
                for (std::size_t i = 0; i < n; ++i) ++size[labels[i * tile + c]];
                int next = 0;
                for (std::size_t k = 0; k < clusters; ++k) {
                    const int several = size[k] > 1;  // without a branch, which no one could guess
                    byte[c * clusters + k] = static_cast<std::uint8_t>(alone + several * (next - alone));
                    next += several;
                }
                fits_ = fits_ && next <= alone;
                covered_[(j0 + c) * 256 + alone] = nothing;  // whoever covers it is the only one to care
            }
            for (std::size_t i = 0; i < n; ++i)
                for (std::size_t c = 0; c < columns; ++c)
                    rows_[i * width_ + j0 + c] = byte[c * clusters + labels[i * tile + c]];
        }
        for (std::size_t i = 0; i < n; ++i) left_[i] = static_cast<std::int32_t>(i);
    }

    bool fits() const { return fits_; }  // if not, a channel has too many clusters for bytes

    void cover(std::size_t pick, std::int32_t* gain) {
        left_.erase(std::lower_bound(left_.begin(), left_.end(), static_cast<std::int32_t>(pick)));
        const std::uint8_t* row = rows_.data() + pick * width_;
        for (std::size_t j = 0; j < channels_; ++j) {
            std::uint8_t& covered = covered_[j * 256 + row[j]];  // 255 once covered, else 0
            row_[j] = static_cast<std::uint8_t>(row[j] | covered);
            covered = nothing;
        }
        scanner().subtract_equal(rows_.data(), static_cast<std::int64_t>(width_), row_.data(), left_.data(),
                                 static_cast<std::int64_t>(left_.size()), gain);
    }

  private:
    static constexpr std::size_t tile = 16;  // columns at a time: a cache line of labels

    bool fits_ = true;
    std::size_t channels_, width_;
    std::vector<std::uint8_t> rows_;     // [O, width], padded with `alone`
    std::vector<std::uint8_t> covered_;  // [I, 256]
    std::vector<std::uint8_t> row_;      // [width] the pick's labels where it covers something new, else `nothing`
    std::vector<std::int32_t> left_;     // filters not picked, ascending
};

}  // namespace reprune
