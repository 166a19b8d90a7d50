// The rule of reprune/clustering/reference/linkage.py to the letter: merge the lowest pair of all, among equally low pairs that
// with the smallest numbers. It is right for every linkage, and also where rounding decides.
//
// Clusters have places in the order of their numbers. Every place knows its nearest among those above it, so the lowest pair is
// found in time O(n), and after a merge only those look again whose nearest took part in it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "linkage/dendrogram.hpp"
#include "simd/loops.hpp"
#include "linkage/near_ties.hpp"
#include "runtime/numbers.hpp"

namespace reprune {

constexpr std::int32_t no_neighbour = -1;

// Space knows the heights between places; `gone` is infinite for places that are gone, else 0. It has
//     void update_nearest(i, gone, least, nearest): the lowest of those above place i, the first of equals; infinite, and
//         no_neighbour, if there are none
//     void offer(b, gone, least, nearest): place b to all below it, which take it where it is lower than their least, or as
//         low and below their nearest
//     void join(a, b, height): b takes a in
//     void keep(places): those that are left move together
//     has_rows; if so, const double* row(place): heights with all places, anything for places that are gone
template <class Space>
class Greedy {
  public:
    // reached: heights of the clusters' own merges. refuse_within: throw NearTie where a merge is decided by less, for which Space
    // has rows; null: decide all the same.
    Greedy(Space& space, std::vector<std::int32_t> numbers, std::vector<double> reached, const Tolerance* refuse_within = nullptr)
        : space_(space), refuse_within_(refuse_within), number_(std::move(numbers)), places_(number_.size()), gone_(places_, 0.0),
          reached_(std::move(reached)), least_(places_, infinity), nearest_(places_, no_neighbour), again_(places_) {}

    std::vector<Merge> run(double limit) {  // all merges of height <= limit, in their order
        std::vector<Merge> merges;
        merges.reserve(places_);
        for (std::size_t i = 0; i < places_; ++i) update_nearest(i);
        for (std::size_t live = places_; live > 1;) {
            const double least = smallest(least_.data(), places_);
            if (least > limit) break;
            const std::size_t a = first_sum(least_.data(), gone_.data(), places_, least);
            const auto b = static_cast<std::size_t>(nearest_[a]);
            if constexpr (Space::has_rows)
                if (refuse_within_ != nullptr) refuse_near_tie(a, b);
            const double height = std::max({least, reached_[a], reached_[b]});
            merges.push_back({number_[a], number_[b], height});
            space_.join(a, b, height);
            reached_[b] = height;
            gone_[a] = least_[a] = infinity;
            nearest_[a] = no_neighbour;
            after(a, b);
            if (2 * --live <= places_) keep();
        }
        return merges;
    }

  private:

    void update_nearest(std::size_t i) { space_.update_nearest(i, gone_.data(), least_.data(), nearest_.data()); }

    // Is another cluster about as near to a or b as they are to each other?
    void refuse_near_tie(std::size_t a, std::size_t b) {
        double other = infinity;
        for (const std::size_t i : {a, b}) {
            const double* row = space_.row(i);
            std::size_t from = 0;
            for (const std::size_t to : {a, b, places_}) {  // all but the two
                other = std::min(other, smallest_sum(row + from, gone_.data() + from, to - from));
                from = to + 1;
            }
        }
        if (refuse_within_->covers(least_[a], other, 1)) throw NearTie();
    }

    void after(std::size_t a, std::size_t b) {
        update_nearest(b);
        const std::size_t count =
            find_either(nearest_.data(), b, static_cast<std::int32_t>(a), static_cast<std::int32_t>(b), again_.data());
        space_.offer(b, gone_.data(), least_.data(), nearest_.data());
        for (std::size_t k = 0; k < count; ++k) update_nearest(static_cast<std::size_t>(again_[k]));
    }

    void keep() {
        std::vector<std::size_t> left;
        std::vector<std::int32_t> now(places_, no_neighbour);
        for (std::size_t i = 0; i < places_; ++i) {
            if (gone_[i] > 0) continue;
            now[i] = static_cast<std::int32_t>(left.size());
            left.push_back(i);
        }
        for (std::size_t i = 0; i < left.size(); ++i) {
            const std::int32_t nearest = nearest_[left[i]];
            number_[i] = number_[left[i]];
            reached_[i] = reached_[left[i]];
            least_[i] = least_[left[i]];
            nearest_[i] = nearest < 0 ? no_neighbour : now[static_cast<std::size_t>(nearest)];
        }
        places_ = left.size();
        std::fill_n(gone_.begin(), places_, 0.0);
        space_.keep(left);
    }

    Space& space_;
    const Tolerance* refuse_within_;
    std::vector<std::int32_t> number_;
    std::size_t places_;
    std::vector<double> gone_, reached_;  // infinity for a place that is gone; the height of its own merge
    std::vector<double> least_;           // to the nearest place above
    std::vector<std::int32_t> nearest_, again_;
};

}  // namespace reprune
