// Maximum coverage of many layers whose label tables lie on the GPU, and what its tie rule needs. `stream` is a cudaStream_t; no
// function waits for what it starts. Without CUDA (has_cuda is false) only the functions of the host exist.
#pragma once

#include <cstdint>
#include <string>

#include "gpu/coverage_layer.hpp"

namespace reprune {

constexpr std::uint32_t cover_threads = 512;  // of the block of a layer; 16 warps hide the latency of a pick's loads
constexpr std::uint32_t index_threads = 128, index_blocks = 32;  // of a block, and per layer

// What the launches need to know of all layers.
struct CoverShape {
    std::uint32_t most_filters = 1, most_clusters = 1;

    std::uint32_t cover_words() const { return (most_filters + 3) / 4 * 4 + spare; }  // of shared memory
    std::uint32_t index_words(std::uint32_t threads) const { return threads / 32 * most_clusters; }
};

struct SquaresOf {  // points [I, O, d] by their strides in numbers
    const void* points;
    bool is_double;
    std::int64_t channels, filters, d, stride_j, stride_i, stride_k;
};

// Why the kernels cannot run on the current device (a driver that is too old, code for other devices); empty if they can.
std::string cuda_error();
// layers: on the device
void cover_layers(const CoverLayer* layers, std::int64_t count, CoverShape shape, bool by_norm, int device,
                  std::uintptr_t stream);
// norms [O] += squares of the points in the order (channel, coordinate), as select.cpp sums them
void add_squares(const SquaresOf& table, double* norms, int device, std::uintptr_t stream);

// The same for memory of the host, on stand-ins for blocks of `threads` (a power of two from 32 on).
void cover_layers_on_host(const CoverLayer* layers, std::int64_t count, CoverShape shape, bool by_norm,
                          std::uint32_t threads, std::uint32_t seed);
void add_squares_on_host(const SquaresOf& table, double* norms);

}  // namespace reprune
