// A block of threads on the GPU, with the interface that coverage_layer.hpp uses. block_host.hpp has the same on the CPU.
#pragma once

#include "gpu/coverage_layer.hpp"

namespace reprune {

// The same number, which the compiler keeps rather than find it out anew after every wait.
__device__ inline std::uint32_t kept(std::uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}

// The same place of shared memory.
template <class T>
__device__ T* kept(T* place) {
    return static_cast<T*>(__cvta_shared_to_generic(kept(static_cast<std::uint32_t>(__cvta_generic_to_shared(place)))));
}

class CudaWarp {
  public:
    std::uint32_t index = threadIdx.x / 32;

    template <class F>
    __device__ void each(F f) {  // f(lane) on all lanes; what they wrote is seen by all
        f(lane_);
        __syncwarp();
    }

    template <class F>
    __device__ void apart(F f) {  // f(lane) on all lanes; none sees what the others wrote
        f(lane_);
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

    // winners [most_warps]: shared memory
    __device__ explicit CudaBlock(Candidate<by_norm>* winners) : winners_(winners), thread_(kept(threadIdx.x)) {}

    template <class F>
    __device__ void each(F f) {  // f(thread) on all threads; what they wrote is seen by all
        f(thread_);
        __syncthreads();
    }

    template <class F>
    __device__ void warps(F f) {  // f(warp) on all warps, which do not wait for each other
        CudaWarp warp;
        f(warp);
    }

    // The best of the first `count` threads or all. most(thread) is the largest gain that a thread has, and among(thread, gain) its
    // best candidate of that gain. Between two calls must lie an `each`, for `winners_` is used again.
    template <class Most, class Among>
    __device__ Candidate<by_norm> best(std::uint32_t count, Most most, Among among) {
        const std::uint32_t lane = thread_ % 32, warp = thread_ / 32, warps = min(count + 31, threads) / 32;
        if (warp < warps) {
            const std::int32_t own = most(thread_), gain = __reduce_max_sync(~0U, own);
            Candidate<by_norm> candidate;
            if (own == gain) candidate = among(thread_, gain);
            candidate = best_of_warp(candidate, own == gain, gain);
            if (lane == 0) winners_[warp] = candidate;
        }
        __syncthreads();
        Candidate<by_norm> candidate;
        if (lane < warps) candidate = winners_[lane];
        const std::int32_t gain = __reduce_max_sync(~0U, candidate.gain);
        return best_of_warp(candidate, candidate.gain == gain, gain);
    }

    __device__ void subtract(std::int32_t* word, std::int32_t x) { atomicSub(word, x); }

  private:
    // The best candidate of the lanes that are in, whose gain this is; every lane takes part in every reduction.
    __device__ static Candidate<by_norm> best_of_warp(const Candidate<by_norm>& mine, bool in, std::int32_t gain) {
        Candidate<by_norm> best;
        best.gain = gain;
        if constexpr (by_norm) {
            best.norm_high = __reduce_max_sync(~0U, in ? mine.norm_high : 0U);
            in = in && mine.norm_high == best.norm_high;
            best.norm_low = __reduce_max_sync(~0U, in ? mine.norm_low : 0U);
            in = in && mine.norm_low == best.norm_low;
        }
        best.tie_value = __reduce_min_sync(~0U, in ? mine.tie_value : ~0U);
        in = in && mine.tie_value == best.tie_value;
        best.filter = __reduce_max_sync(~0U, in ? mine.filter : 0U);
        return best;
    }

    Candidate<by_norm>* winners_;
    std::uint32_t thread_;
};

}  // namespace reprune
