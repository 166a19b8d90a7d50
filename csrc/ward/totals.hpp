// Clusters by their totals, for greedy.hpp: Ward's heights are computed on demand, so memory is O(n d).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/call.hpp"
#include "runtime/numbers.hpp"
#include "ward/clusters.hpp"
#include "ward/cost.hpp"
#include "linkage/greedy.hpp"
#include "simd/loops.hpp"

namespace reprune {

class Totals {
  public:
    static constexpr bool has_rows = false;

    explicit Totals(const Clusters& clusters)
        : places_(clusters.live.size()), stride_(places_), d_(static_cast<std::size_t>(clusters.d)), totals_(stride_ * d_),
          size_(places_), keys_(places_), steps_(d_), found_(places_) {
        for (std::size_t i = 0; i < places_; ++i) {
            size_[i] = clusters.size[static_cast<std::size_t>(clusters.live[i])];
            for (std::size_t k = 0; k < d_; ++k) totals_[k * stride_ + i] = clusters.total(clusters.live[i])[k];
        }
    }

    // Heights are computed of those alone whose keys are low.
    void update_nearest(std::size_t i, const double* gone, double* least, std::int32_t* nearest) {
        least[i] = infinity;
        nearest[i] = no_neighbour;
        const std::size_t begin = i + 1, count = places_ - begin;
        keys(i, begin, places_, gone);
        const double most = smallest(keys_.data(), count) * key_error * key_error;
        const std::size_t few = std::isinf(most) ? 0 : find_within(keys_.data(), count, most, found_.data());
        for (std::size_t k = 0; k < few; ++k) {
            const std::size_t j = begin + static_cast<std::size_t>(found_[k]);
            const double x = height(i, j);
            if (x >= least[i]) continue;
            least[i] = x;
            nearest[i] = static_cast<std::int32_t>(j);
        }
    }

    void offer(std::size_t b, const double* gone, double* least, std::int32_t* nearest) {
        keys(b, 0, b, gone);
        const auto place = static_cast<std::int32_t>(b);
        const std::size_t few = find_below(keys_.data(), least, b, found_.data());
        for (std::size_t k = 0; k < few; ++k) {
            const auto i = static_cast<std::size_t>(found_[k]);
            const double x = height(i, b);
            if (x > least[i] || (x == least[i] && place > nearest[i])) continue;
            least[i] = x;
            nearest[i] = place;
        }
    }

    void join(std::size_t a, std::size_t b, double) {
        for (std::size_t k = 0; k < d_; ++k) totals_[k * stride_ + b] += totals_[k * stride_ + a];
        size_[b] += size_[a];
    }

    void keep(const std::vector<std::size_t>& left) {
        places_ = left.size();
        for (std::size_t k = 0; k < d_; ++k)
            for (std::size_t i = 0; i < places_; ++i) totals_[k * stride_ + i] = totals_[k * stride_ + left[i]];
        for (std::size_t i = 0; i < places_; ++i) size_[i] = size_[left[i]];
    }

  protected:
    void step(std::size_t i, std::size_t j) {  // into steps_
        for (std::size_t k = 0; k < d_; ++k)
            steps_[k] = ward_step(totals_[k * stride_ + i], size_[i], totals_[k * stride_ + j], size_[j]);
    }

    double height(std::size_t i, std::size_t j) {
        step(i, j);
        double squares = 0;
        for (const double x : steps_) squares += x * x;
        return ward_height(ward_cost(squares, size_[i], size_[j]));
    }

    void keys(std::size_t i, std::size_t begin, std::size_t end, const double* gone) {  // of places begin .. end
        const std::size_t count = end - begin;
        poll(static_cast<std::int64_t>(count * (d_ + 8)));
        std::fill_n(keys_.data(), count, 0.0);
        for (std::size_t k = 0; k < d_; ++k)
            add_steps(totals_[k * stride_ + i], size_[i], totals_.data() + k * stride_ + begin, size_.data() + begin, count,
                      keys_.data());
        ward_keys(size_[i], size_.data() + begin, gone + begin, count, keys_.data());
    }

    std::size_t places_, stride_, d_;
    std::vector<double> totals_, size_, keys_, steps_;  // [d, stride], [places], [places], [d]
    std::vector<std::int32_t> found_;
};

// The same of numbers whose squares overflow or vanish.
class WideTotals : public Totals {
  public:
    using Totals::Totals;

    void update_nearest(std::size_t i, const double* gone, double* least, std::int32_t* nearest) {
        least[i] = infinity;
        nearest[i] = no_neighbour;
        for (std::size_t j = i + 1; j < places_; ++j) take(i, j, gone, least, nearest);
    }

    void offer(std::size_t b, const double* gone, double* least, std::int32_t* nearest) {
        for (std::size_t i = 0; i < b; ++i) take(i, b, gone, least, nearest);
    }

  private:
    void take(std::size_t i, std::size_t j, const double* gone, double* least, std::int32_t* nearest) {
        if (gone[i] > 0 || gone[j] > 0) return;
        poll(static_cast<std::int64_t>(16 * d_));
        step(i, j);
        const double x = wide_height(steps_.data(), static_cast<std::int64_t>(d_), size_[i], size_[j]);
        const auto place = static_cast<std::int32_t>(j);
        if (x > least[i] || (x == least[i] && place > nearest[i])) return;
        least[i] = x;
        nearest[i] = place;
    }
};

}  // namespace reprune
