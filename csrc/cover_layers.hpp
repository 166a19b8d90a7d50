// Maximum coverage of many layers whose label tables lie on the GPU, and what its tie rule needs. `stream` is a cudaStream_t; no
// function waits for what it starts. Without CUDA (has_cuda is false) only the functions of the host are there.
#pragma once

#include <cstdint>
#include <vector>

#include "coverage_layer.hpp"

namespace reprune {

constexpr std::uint32_t cover_threads = 512;  // of a block; 16 warps hide the latency of a pick's loads

// Words of shared memory for a block that covers any of the layers. 64 KiB at most, so that any GPU has it.
inline std::uint32_t shared_words(const std::vector<CoverLayer>& layers, std::uint32_t threads) {
    std::uint32_t most = 0;
    for (const CoverLayer& layer : layers) {
        const auto gains = (static_cast<std::uint32_t>(layer.filters) + 3) / 4 * 4;
        const auto clusters = static_cast<std::uint32_t>(layer.clusters);
        std::uint32_t tables = (std::uint32_t{1} << 14) / clusters;
        tables = tables < threads / 32 ? tables : threads / 32;
        most = most > gains ? most : gains;
        most = most > tables * clusters ? most : tables * clusters;
    }
    return most;
}

struct SquaresOf {  // points [I, O, d] by their strides in numbers
    const void* points;
    bool is_double;
    std::int64_t channels, filters, d, stride_j, stride_i, stride_k;
};

// layers: on the device; words: of shared_words.
void cover_layers(const CoverLayer* layers, std::int64_t count, std::uint32_t words, bool by_norm, int device,
                  std::uintptr_t stream);
// norms [O] += squares of the points in the order (channel, coordinate), as select.cpp sums them
void add_squares(const SquaresOf& table, double* norms, int device, std::uintptr_t stream);

// The same for memory of the host, on stand-ins for blocks of `threads` (a power of two from 32 on).
void cover_layers_on_host(const CoverLayer* layers, std::int64_t count, std::uint32_t words, bool by_norm,
                          std::uint32_t threads, std::uint32_t seed);
void add_squares_on_host(const SquaresOf& table, double* norms);

}  // namespace reprune
