#include "ward/tied.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/call.hpp"
#include "ward/cost.hpp"
#include "simd/loops.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
double TiedLists::height(std::int32_t a, std::int32_t b) const {
    return ward_height(clusters_->cost(clusters_->live[at(a)], clusters_->live[at(b)]));
}

// Puts each pair into the lists of both.
void TiedLists::link(const NeighbourLists& lists) {
    const auto count = static_cast<std::int32_t>(clusters_->live.size());
    list_.assign(at(count), List{0, 0, 0});
    for (std::int32_t a = 0; a < count; ++a) {
        list_[at(a)].capacity += lists.above(a).count;
        for (std::int32_t k = 0; k < lists.above(a).count; ++k) ++list_[at(lists.above(a).places[k])].capacity;
    }
    std::int32_t sum = 0;
    for (List& list : list_) {
        list.begin = sum;
        sum += list.capacity;
    }
    neighbours_.resize(at(sum));
    for (std::int32_t a = 0; a < count; ++a) {
        const auto above = lists.above(a);
        poll(static_cast<std::int64_t>(above.count) * (clusters_->d + 8));
        for (std::int32_t k = 0; k < above.count; ++k) {
            const std::int32_t b = above.places[k];
            const double x = height(a, b);
            if (x > kept_) continue;
            neighbours_[at(list_[at(a)].begin + list_[at(a)].count++)] = {x, b};
            neighbours_[at(list_[at(b)].begin + list_[at(b)].count++)] = {x, a};
        }
    }
}

void TiedLists::update_nearest(std::int32_t place) {
    const Neighbour* first = neighbours_.data() + list_[at(place)].begin;
    double least = infinity;
    std::int32_t nearest = -1;
    for (const Neighbour* x = first; x < first + list_[at(place)].count; ++x) {
        const bool nearer = (x->place > place) & ((x->height < least) | ((x->height == least) & (x->place < nearest)));
        least = nearer ? x->height : least;
        nearest = nearer ? x->place : nearest;
    }
    least_[at(place)] = least;
    nearest_[at(place)] = nearest;
}

// By reducibility only those come within the limit of both that were within it of one.
void TiedLists::join(std::int32_t a, std::int32_t b, double height_of_both) {
    Clusters& c = *clusters_;
    stamp_[at(a)] = stamp_[at(b)] = b;
    std::int32_t count = 0;
    for (const std::int32_t part : {a, b}) {
        const List list = list_[at(part)];
        for (std::int32_t k = list.begin; k < list.begin + list.count; ++k) {
            const std::int32_t place = neighbours_[at(k)].place;
            both_[at(count)] = place;
            count += stamp_[at(place)] != b;
            stamp_[at(place)] = b;
        }
    }
    for (std::int32_t k = 0; k < count; ++k) stamp_[at(both_[at(k)])] = -1;
    stamp_[at(b)] = -1;
    c.join(c.live[at(a)], c.live[at(b)], 0.0);
    c.joins.back().height = height_of_both;
    List& own = list_[at(b)];
    if (list_[at(a)].capacity > own.capacity) std::swap(own, list_[at(a)]);
    if (count > own.capacity) {
        own.begin = static_cast<std::int32_t>(neighbours_.size());
        own.capacity = count;
        neighbours_.resize(neighbours_.size() + at(count));
    }
    own.count = list_[at(a)].count = 0;
    for (std::int32_t k = 0; k < count; ++k) {
        const std::int32_t other = both_[at(k)];
        List& list = list_[at(other)];
        Neighbour* const first = neighbours_.data() + list.begin;
        std::int32_t left = 0;
        for (std::int32_t f = 0; f < list.count; ++f) {
            const Neighbour x = first[f];
            first[left] = x;
            left += (x.place != a) & (x.place != b);
        }
        const double x = height(other, b);
        if (x <= kept_) {  // there is room: one of the two has left
            first[left++] = {x, b};
            neighbours_[at(own.begin + own.count++)] = {x, other};
        }
        list.count = left;
        if (nearest_[at(other)] == a || nearest_[at(other)] == b) {
            update_nearest(other);
        } else if (other < b && (x < least_[at(other)] || (x == least_[at(other)] && b < nearest_[at(other)]))) {
            least_[at(other)] = x;
            nearest_[at(other)] = b;
        }
    }
    least_[at(a)] = infinity;
    nearest_[at(a)] = -1;
    update_nearest(b);
}

void TiedLists::run(Clusters& clusters, const NeighbourLists& lists, double limit, std::vector<double>& reached) {
    clusters_ = &clusters;
    kept_ = ward_height(limit);
    const double most = ward_height(limit * (1 - 0x1p-9));  // rounding may have turned round what lies between
    std::vector<std::int32_t>& live = clusters.live;
    const std::size_t count = live.size();
    least_.resize(count);
    nearest_.resize(count);
    both_.resize(count);
    stamp_.assign(count, -1);
    link(lists);
    for (std::size_t i = 0; i < count; ++i) update_nearest(static_cast<std::int32_t>(i));
    std::vector<bool> gone(count);
    for (;;) {
        poll(static_cast<std::int64_t>(count + 64 * at(clusters.d)));
        const double least = smallest(least_.data(), count);
        if (!(least <= most) || least == infinity) break;
        const auto a = static_cast<std::int32_t>(std::find(least_.begin(), least_.end(), least) - least_.begin());
        const std::int32_t b = nearest_[at(a)];
        double& own = reached[at(live[at(b)])];
        own = std::max({least, reached[at(live[at(a)])], own});
        join(a, b, own);
        gone[at(a)] = true;
    }
    std::size_t left = 0;
    for (std::size_t i = 0; i < count; ++i)
        if (!gone[i]) live[left++] = live[i];
    live.resize(left);
}

}  // namespace reprune
