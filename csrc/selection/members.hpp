// Which filters each cluster has, channel by channel, and where the cluster of kernel (i, j) stands there. Covering a cluster
// reads its members once, so all picks together touch each entry at most once: O(O I + keep O).
//
// Clusters of one filter are left out: they do not affect other filters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/call.hpp"
#include "runtime/pages.hpp"
#include "selection/coverage.hpp"
#include "simd/prefetch.hpp"

namespace reprune {

template <class Id>  // holds 0 .. O + O / 2
class Members {
  public:
    static bool fits(std::int64_t filters) { return filters + filters / 2 <= std::int64_t{static_cast<Id>(-1)}; }

    template <class Label>
    explicit Members(const LabelTable<Label>& table)
        : channels_(static_cast<std::size_t>(table.channels)), width_((channels_ + tile - 1) / tile * tile),
          places_(width_ * static_cast<std::size_t>(table.filters)),
          clusters_(channels_ * static_cast<std::size_t>(table.filters + table.filters / 2 + 1) + most), first_(channels_),
          few_(most * (channels_ + 1)) {
        const auto n = static_cast<std::size_t>(table.filters), count = static_cast<std::size_t>(table.clusters);
        std::vector<Id> size(count), place(count), end(count), rows(tile * n);
        std::size_t first = 0;
        for (std::size_t j0 = 0; j0 < channels_; j0 += tile) {
            const std::size_t columns = std::min(tile, channels_ - j0);
            poll(static_cast<std::int64_t>(8 * tile * n));
            for (std::size_t c = 0; c < columns; ++c) {
                const Label* labels = table.labels + static_cast<std::ptrdiff_t>(j0 + c) * table.stride_j;
                const auto label = [&](std::size_t i) {
                    return static_cast<std::size_t>(labels[static_cast<std::ptrdiff_t>(i) * table.stride_i]);
                };
                Id* clusters = clusters_.data() + first;
                first_[j0 + c] = first;
                std::fill(size.begin(), size.end(), Id{0});
                for (std::size_t i = 0; i < n; ++i) ++size[label(i)];
                std::size_t next = 1;
                for (std::size_t k = 0; k < count; ++k) {  // without a branch, which no one could guess
                    const bool several = size[k] > 1;
                    clusters[next] = size[k];
                    place[k] = static_cast<Id>(several ? next : 0);
                    end[k] = static_cast<Id>(several ? next + 1 : 0);
                    next += several ? size[k] + std::size_t{1} : 0;
                }
                for (std::size_t i = 0; i < n; ++i) {
                    const std::size_t k = label(i);
                    rows[i * tile + c] = place[k];
                    clusters[end[k]++] = static_cast<Id>(i);
                }
                clusters[0] = 0;  // stands for those left out, which came here
                first += next;
            }
            for (std::size_t i = 0; i < n; ++i)
                std::memcpy(places_.data() + i * width_ + j0, rows.data() + i * tile, tile * sizeof(Id));
        }
    }

    // Marks the clusters of filter `pick` and takes one off the gain of every filter that had them to cover.
    void cover(std::size_t pick, std::int32_t* gain) {
        const Id* places = places_.data() + pick * width_;
        std::size_t few = 0;
        for (std::size_t j = 0; j < channels_; ++j) {
            if (j + ahead < channels_) REPRUNE_PREFETCH(clusters_.data() + first_[j + ahead] + places[j + ahead]);
            Id* cluster = clusters_.data() + first_[j] + places[j];
            const std::size_t count = cluster[0];
            cluster[0] = 0;
            // a number of copies that does not vary, so no branch to guess, where there are few
            std::memcpy(few_.data() + few, cluster + 1, most * sizeof(Id));
            if (count <= most) {
                few += count;
                continue;
            }
            for (std::size_t k = 1; k <= count; ++k) --gain[cluster[k]];
            poll(static_cast<std::int64_t>(2 * count));
        }
        for (std::size_t k = 0; k < few; ++k) --gain[few_[k]];
    }

  private:
    static constexpr std::size_t tile = 64 / sizeof(Id);  // channels that share a cache line
    static constexpr std::size_t most = 8, ahead = 24;    // see cover()

    std::size_t channels_, width_;
    HugePageBuffer<Id> places_;    // [O, width]
    HugePageBuffer<Id> clusters_;  // a count, 0 once covered, and as many filters; and the next
    std::vector<std::size_t> first_;  // [I] where those of a channel begin
    std::vector<Id> few_;
};

}  // namespace reprune
