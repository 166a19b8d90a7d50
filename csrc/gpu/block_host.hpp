// A stand-in for the block of threads of block_cuda.hpp on one CPU thread, so that coverage_layer.hpp can be run and tested
// without a GPU. What lies between two barriers runs thread by thread, in another order each time: that nothing depends on it
// is what the barriers promise.
#pragma once

#include <cstdint>

#include "gpu/coverage_layer.hpp"

namespace reprune {

class HostOrder {
  public:
    HostOrder(std::uint32_t count, std::uint32_t& state) : mask_(count - 1) {  // count: a power of two
        state = mix(state + 0x9e3779b9U);
        factor_ = state | 1;
        offset_ = state >> 16;
    }
    std::uint32_t operator[](std::uint32_t k) const { return (k * factor_ + offset_) & mask_; }

  private:
    std::uint32_t mask_, factor_, offset_;
};

class HostWarp {
  public:
    std::uint32_t index;

    HostWarp(std::uint32_t warp, std::uint32_t& state) : index(warp), state_(state) {}

    template <class F>
    void each(F f) {
        const HostOrder order(32, state_);
        for (std::uint32_t k = 0; k < 32; ++k) f(order[k]);
    }

    template <class F>
    void apart(F f) {
        each(f);
    }

    template <class F>
    void each_of(const std::int32_t* values, std::uint32_t n, F f) {
        each([&](std::uint32_t lane) {
            for (std::uint32_t i = lane; i < n; i += 32) f(i, values[i]);
        });
    }

    template <class Get, class Put>
    void scan(Get get, Put put) {
        std::uint32_t before[32], sum = 0;
        for (std::uint32_t lane = 0; lane < 32; ++lane) {
            before[lane] = sum;
            sum += get(lane);
        }
        each([&](std::uint32_t lane) { put(lane, before[lane]); });
    }

    std::uint32_t add(std::uint32_t* word, std::uint32_t x) {
        const std::uint32_t old = *word;
        *word += x;
        return old;
    }

  private:
    std::uint32_t& state_;
};

template <bool by_norm>
class HostBlock {
  public:
    std::uint32_t threads;  // a power of two, at least 32

    HostBlock(std::uint32_t count, std::uint32_t seed) : threads(count), state_(seed) {}

    template <class F>
    void each(F f) {
        const HostOrder order(threads, state_);
        for (std::uint32_t k = 0; k < threads; ++k) f(order[k]);
    }

    template <class F>
    void warps(F f) {
        const HostOrder order(threads / 32, state_);
        for (std::uint32_t k = 0; k < threads / 32; ++k) {
            HostWarp warp(order[k], state_);
            f(warp);
        }
    }

    template <class Most, class Among>
    Candidate<by_norm> best(std::uint32_t count, Most most, Among among) {
        Candidate<by_norm> best;
        const HostOrder order(threads, state_);
        for (std::uint32_t k = 0; k < threads; ++k) {
            if (order[k] >= count) continue;
            const Candidate<by_norm> candidate = among(order[k], most(order[k]));
            if (better(candidate, best)) best = candidate;
        }
        return best;
    }

    void subtract(std::int32_t* word, std::int32_t x) { *word -= x; }

  private:
    std::uint32_t state_;
};

}  // namespace reprune
