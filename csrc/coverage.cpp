#include "coverage.hpp"

#include <algorithm>

#include "ties.hpp"

namespace reprune {
namespace {

// A table of label columns seen from the filters, [O, I]: in entry (i, j) the next member of the cluster of kernel (i, j), in
// a ring; `covered` once a picked filter is in it. Covering a cluster walks its ring once, so all picks together touch each
// entry at most once: O(O I + keep O).
template <class Id>
class Rings {
  public:
    static constexpr Id covered = static_cast<Id>(-1);

    Rings(const std::vector<LabelColumn>& columns, std::int64_t filters)
        : width_(columns.size()), next_(columns.size() * static_cast<std::size_t>(filters)) {
        const auto n = static_cast<std::size_t>(filters);
        std::vector<Id> head(n), tail(n);
        for (std::size_t j = 0; j < width_; ++j) {
            const std::int32_t* labels = columns[j].labels;
            const auto clusters = static_cast<std::size_t>(columns[j].clusters);
            std::fill_n(head.begin(), clusters, covered);
            Id* next = next_.data() + j + n * width_;
            for (std::size_t i = n; i-- > 0;) {
                next -= width_;
                Id& first = head[static_cast<std::size_t>(labels[i])];
                if (first == covered) {
                    tail[static_cast<std::size_t>(labels[i])] = static_cast<Id>(i);
                    *next = static_cast<Id>(i);
                } else {
                    *next = first;
                }
                first = static_cast<Id>(i);
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
            while (i != pick) {
                Id& next = next_[i * width_ + j];
                --gain[i];
                i = next;
                next = covered;
            }
        }
    }

  private:
    std::size_t width_;
    std::vector<Id> next_;
};

template <class Id>
void greedy(const std::vector<LabelColumn>& columns, std::int64_t filters, std::int64_t keep, std::uint32_t key,
            const double* norms, std::int64_t* order, std::int64_t* gains) {
    Rings<Id> rings(columns, filters);
    const auto n = static_cast<std::size_t>(filters);
    // gain[i]: clusters that filter i would newly cover; -1 once picked
    std::vector<std::int32_t> gain(n, static_cast<std::int32_t>(columns.size()));
    for (std::int64_t step = 0; step < keep; ++step) {
        std::int32_t most = -1;
        for (std::size_t i = 0; i < n; ++i) most = std::max(most, gain[i]);
        const std::uint32_t step_key = tie_step(key, static_cast<std::uint32_t>(step));
        std::size_t best = n;
        std::uint32_t best_value = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (gain[i] != most || (norms && best < n && norms[i] < norms[best])) continue;
            const std::uint32_t value = tie_value(step_key, static_cast<std::uint32_t>(i));
            if (best < n && value > best_value && !(norms && norms[i] > norms[best])) continue;
            best = i;
            best_value = value;
        }
        order[step] = static_cast<std::int64_t>(best);
        gains[step] = most;
        if (most > 0) rings.cover(best, gain.data());
        gain[best] = -1;
    }
}

}  // namespace

void max_coverage(const std::vector<LabelColumn>& columns, std::int64_t filters, std::int64_t keep, std::uint32_t tie_key,
                  const double* norms, std::int64_t* order, std::int64_t* gains) {
    if (filters < 65535) {
        greedy<std::uint16_t>(columns, filters, keep, tie_key, norms, order, gains);
    } else {
        greedy<std::uint32_t>(columns, filters, keep, tie_key, norms, order, gains);
    }
}

}  // namespace reprune
