// A block of threads on the GPU, with the interface that coverage_layer.hpp uses. block_host.hpp has the same on the CPU.
#pragma once

#include "gpu/coverage_layer.hpp"

namespace reprune {

class CudaWarp {
  public:
    std::uint32_t index = threadIdx.x / 32;

    template <class F>
    __device__ void each(F f) {  // f(lane) on all lanes; what they wrote is seen by all
        f(lane_);
        __syncwarp();
    }

    // f(i, values[i]) for all i < n; what it wrote is seen by all
    template <class F>
    __device__ void each_of(const std::int32_t* values, std::uint32_t n, F f) {
        const std::uint32_t four = reinterpret_cast<std::uintptr_t>(values) % 16 == 0 ? n / 4 * 4 : 0;
        const std::int32_t* at = values + lane_ * 4;
        REPRUNE_NO_UNROLL
        for (std::uint32_t i = lane_ * 4; i < four; i += 128, at += 128) {
            const int4 value = *reinterpret_cast<const int4*>(at);
            f(i, value.x);
            f(i + 1, value.y);
            f(i + 2, value.z);
            f(i + 3, value.w);
        }
        REPRUNE_NO_UNROLL
        for (std::uint32_t i = four + lane_; i < n; i += 32) f(i, values[i]);
        __syncwarp();
    }

    // put(lane, sum of get over the lanes before)
    template <class Get, class Put>
    __device__ void scan(Get get, Put put) {
        const std::uint32_t own = get(lane_);
        std::uint32_t sum = own;
        for (std::uint32_t k = 1; k < 32; k *= 2) {
            const std::uint32_t below = __shfl_up_sync(~0U, sum, k);
            if (lane_ >= k) sum += below;
        }
        put(lane_, sum - own);
        __syncwarp();
    }

    __device__ std::uint32_t add(std::uint32_t* word, std::uint32_t x) { return atomicAdd(word, x); }

  private:
    std::uint32_t lane_ = threadIdx.x % 32;
};

template <bool by_norm>
class CudaBlock {
  public:
    static constexpr std::uint32_t most_warps = 32;

    std::uint32_t threads = blockDim.x;  // a multiple of 32

    __device__ explicit CudaBlock(Candidate<by_norm>* winners) : winners_(winners) {}  // [most_warps], shared

    template <class F>
    __device__ void each(F f) {  // f(thread) on all threads; what they wrote is seen by all
        f(threadIdx.x);
        __syncthreads();
    }

    template <class F>
    __device__ void warps(F f) {  // f(warp) on all warps, which do not wait for each other
        CudaWarp warp;
        f(warp);
    }

    // The best of own(thread) over the first `count` threads or all. Between two calls must lie an `each`, for `winners_` is
    // used again.
    template <class F>
    __device__ Candidate<by_norm> best(std::uint32_t count, F own) {
        const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const std::uint32_t warps = min(count + 31, threads) / 32;
        Candidate<by_norm> candidate;
        if (warp < warps) {
            candidate = own(threadIdx.x);
            if (winner(candidate) == lane) winners_[warp] = candidate;
        }
        __syncthreads();
        candidate = {};
        if (lane < warps) candidate = winners_[lane];
        return winners_[winner(candidate)];
    }

    __device__ void subtract(std::int32_t* word, std::int32_t x) { atomicSub(word, x); }

  private:
    // The lane with the best candidate of the warp.
    __device__ static std::uint32_t winner(const Candidate<by_norm>& mine) {
        bool in = mine.gain == __reduce_max_sync(~0U, mine.gain);
        if constexpr (by_norm) {  // every lane takes part in every reduction
            const std::uint32_t high = __reduce_max_sync(~0U, in ? mine.norm_high : 0U);
            in = in && mine.norm_high == high;
            const std::uint32_t low = __reduce_max_sync(~0U, in ? mine.norm_low : 0U);
            in = in && mine.norm_low == low;
        }
        const std::uint32_t value = in ? mine.tie_value : ~0U, least = __reduce_min_sync(~0U, value);
        return static_cast<std::uint32_t>(__ffs(static_cast<int>(__ballot_sync(~0U, in && value == least))) - 1);
    }

    Candidate<by_norm>* winners_;
};

}  // namespace reprune
