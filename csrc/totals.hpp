// Clusters by their totals, for greedy.hpp: Ward's heights are computed when they are asked for, so memory is O(n d).
#pragma once

#include <cstddef>
#include <vector>

#include "call.hpp"
#include "clusters.hpp"
#include "cost.hpp"
#include "loops.hpp"

namespace reprune {

class Totals {
  public:
    Totals(const Clusters& clusters, bool wide)
        : places_(clusters.live.size()), stride_(places_), d_(static_cast<std::size_t>(clusters.d)), wide_(wide),
          totals_(stride_ * d_), size_(places_), heights_(places_), steps_(d_) {
        for (std::size_t i = 0; i < places_; ++i) {
            size_[i] = clusters.size[static_cast<std::size_t>(clusters.live[i])];
            for (std::size_t k = 0; k < d_; ++k) totals_[k * stride_ + i] = clusters.total(clusters.live[i])[k];
        }
    }

    const double* row(std::size_t i) {
        hear(static_cast<std::int64_t>(places_ * (d_ + 8) * (wide_ ? 16 : 1)));
        if (wide_) {
            for (std::size_t j = 0; j < places_; ++j) {
                for (std::size_t k = 0; k < d_; ++k)
                    steps_[k] = ward_step(totals_[k * stride_ + i], size_[i], totals_[k * stride_ + j], size_[j]);
                heights_[j] = wide_height(steps_.data(), static_cast<std::int64_t>(d_), size_[i], size_[j]);
            }
        } else {
            std::fill_n(heights_.data(), places_, 0.0);
            for (std::size_t k = 0; k < d_; ++k)
                add_steps(totals_[k * stride_ + i], size_[i], totals_.data() + k * stride_, size_.data(), places_,
                          heights_.data());
            ward_heights(size_[i], size_.data(), places_, heights_.data());
        }
        return heights_.data();
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

  private:
    std::size_t places_, stride_, d_;
    bool wide_;
    std::vector<double> totals_, size_, heights_, steps_;  // [d, stride], [places], [places], [d]
};

}  // namespace reprune
