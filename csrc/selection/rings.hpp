// A label table seen from the filters, [O, I]: in entry (i, j) the next member of the cluster of kernel (i, j), in a ring;
// `covered` once a picked filter is in it. Covering a cluster walks its ring once, so all picks together touch each entry at
// most once: O(O I + keep O).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/call.hpp"
#include "selection/coverage.hpp"

namespace reprune {

template <class Id>  // holds 0 .. O
class Rings {
  public:
    static constexpr Id covered = static_cast<Id>(-1);

    template <class Label>
    explicit Rings(const LabelTable<Label>& table)
        : width_(static_cast<std::size_t>(table.channels)), next_(width_ * static_cast<std::size_t>(table.filters)) {
        const auto n = static_cast<std::size_t>(table.filters), clusters = static_cast<std::size_t>(table.clusters);
        std::vector<Id> head(clusters), tail(clusters);
        for (std::size_t j = 0; j < width_; ++j) {
            const Label* labels = table.labels + static_cast<std::ptrdiff_t>(j) * table.stride_j;
            poll(static_cast<std::int64_t>(8 * n));
            std::fill(head.begin(), head.end(), covered);
            for (std::size_t i = n; i-- > 0;) {
                const auto label = static_cast<std::size_t>(labels[static_cast<std::ptrdiff_t>(i) * table.stride_i]);
                const Id first = head[label];
                if (first == covered) tail[label] = static_cast<Id>(i);
                next_[i * width_ + j] = first;
                head[label] = static_cast<Id>(i);
            }
            for (std::size_t k = 0; k < clusters; ++k)
                if (head[k] != covered) next_[tail[k] * width_ + j] = head[k];
        }
    }

    // Marks the clusters of filter `pick` and takes one off the gain of every filter that had them to cover.
    void cover(std::size_t pick, std::int32_t* gain) {
        Id* row = next_.data() + pick * width_;
        for (std::size_t j = 0; j < width_; ++j) {
            std::size_t i = row[j];
            if (i == covered) continue;
            row[j] = covered;
            std::int64_t members = 1;
            for (; i != pick; ++members) {
                Id& next = next_[i * width_ + j];
                --gain[i];
                i = next;
                next = covered;
            }
            poll(8 * members);
        }
    }

  private:
    std::size_t width_;
    std::vector<Id> next_;
};

}  // namespace reprune
