// The filters of each cluster as a ring, channel by channel: at a filter stands the next one of its cluster, at the last the
// first. So a table of rings takes no more memory than one of labels, and can be written over it. Covering a cluster opens its
// ring, a filter alone, so all picks together walk each ring at most once: O(O I + keep I).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/call.hpp"
#include "selection/coverage.hpp"
#include "simd/prefetch.hpp"

namespace reprune {

template <class Id>
class Rings {
  public:
    static constexpr std::size_t tile = 64 / sizeof(Id);  // channels that share a cache line

    static std::size_t room(std::int64_t filters, std::int64_t channels) {
        return (static_cast<std::size_t>(channels) + tile - 1) / tile * tile * static_cast<std::size_t>(filters);
    }

    // memory [room]: may be that of labels of the type Id whose channels follow each other.
    template <class Label>
    Rings(const LabelTable<Label>& table, Id* memory)
        : filters_(static_cast<std::size_t>(table.filters)), channels_(static_cast<std::size_t>(table.channels)), rings_(memory) {
        const std::size_t n = filters_;
        std::vector<Id> labels(tile * n), last(static_cast<std::size_t>(table.clusters));
        for (std::size_t j0 = 0; j0 < channels_; j0 += tile) {
            const std::size_t columns = std::min(tile, channels_ - j0);
            poll(static_cast<std::int64_t>(8 * tile * n));
            for (std::size_t c = 0; c < columns; ++c) {
                const Label* from = table.labels + static_cast<std::ptrdiff_t>(j0 + c) * table.stride_j;
                for (std::size_t i = 0; i < n; ++i)
                    labels[c * n + i] = static_cast<Id>(from[static_cast<std::ptrdiff_t>(i) * table.stride_i]);
            }
            Id* rings = rings_ + j0 * n;
            for (std::size_t c = 0; c < tile; ++c) {
                if (c >= columns) {
                    for (std::size_t i = 0; i < n; ++i) rings[i * tile + c] = static_cast<Id>(i);
                    continue;
                }
                const Id* label = labels.data() + c * n;
                for (std::size_t i = 0; i < n; ++i) last[label[i]] = static_cast<Id>(i);
                for (std::size_t i = 0; i < n; ++i) {  // a filter has the one before it, the first the last
                    Id& before = last[label[i]];
                    rings[i * tile + c] = before;
                    before = static_cast<Id>(i);
                }
            }
        }
    }

    // Opens the rings of filter `pick` and takes one off the gain of every filter on them.
    void cover(std::size_t pick, std::int32_t* gain) {
        Place places[enough + tile];
        std::size_t count = 0;
        for (std::size_t j = 0;;) {
            for (; count < enough && j < channels_; j += tile) {
                Id* row = rings_ + j * filters_ + pick * tile;
                if (j + ahead * tile < channels_) REPRUNE_PREFETCH(row + ahead * tile * filters_);
                for (std::size_t c = 0; c < tile; ++c) {
                    const std::size_t next = row[c];
                    places[count] = {row + c - pick * tile, next};
                    row[c] = static_cast<Id>(pick);
                    count += next != pick;
                }
                for (std::size_t k = count - std::min(count, tile); k < count; ++k)
                    REPRUNE_PREFETCH(places[k].column + places[k].filter * tile);
            }
            if (count == 0) return;
            std::size_t left = 0;
            for (std::size_t k = 0; k < count; ++k) {  // many rings at once: while one waits for memory others go on
                const Place place = places[k];
                Id& at = place.column[place.filter * tile];
                const std::size_t next = at;
                at = static_cast<Id>(place.filter);
                --gain[place.filter];
                places[left] = {place.column, next};
                left += next != pick;
                REPRUNE_PREFETCH(place.column + next * tile);
            }
            poll(static_cast<std::int64_t>(count));
            count = left;
        }
    }

  private:
    static constexpr std::size_t enough = 64, ahead = 8;  // as measured; neither matters much

    struct Place {
        Id* column;  // of the channel
        std::size_t filter;
    };

    std::size_t filters_, channels_;
    Id* rings_;  // [tiles, O, tile]
};

}  // namespace reprune
