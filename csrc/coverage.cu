// Maximum cluster coverage on the GPU: one block per layer, all layers in one launch.
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "block_cuda.hpp"
#include "cover_layers.hpp"
#include "squares.hpp"

namespace reprune {
namespace {

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace

// layers [gridDim.x]; dynamic shared memory: `words` words
template <bool by_norm>
__global__ void __launch_bounds__(cover_threads, 1) cover_kernel(const CoverLayer* layers, std::uint32_t words) {
    extern __shared__ Four shared[];
    __shared__ Candidate<by_norm> winners[CudaBlock<by_norm>::most_warps];
    CudaBlock<by_norm> block(winners);
    const CoverLayer layer = layers[blockIdx.x];
    cover_layer<by_norm>(block, layer, reinterpret_cast<std::uint32_t*>(shared), words);
}

__global__ void squares_kernel(SquaresOf table, double* norms) {  // one thread per filter
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < table.filters) norms[i] = with_squares(table, i, norms[i]);
}

void cover_layers(const CoverLayer* layers, std::int64_t count, std::uint32_t words, bool by_norm, int device,
                  std::uintptr_t stream) {
    const auto kernel = by_norm ? cover_kernel<true> : cover_kernel<false>;
    const unsigned bytes = 4 * words;
    check(cudaSetDevice(device), "cudaSetDevice");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "shared memory of the coverage kernel");
    kernel<<<static_cast<unsigned>(count), cover_threads, bytes, reinterpret_cast<cudaStream_t>(stream)>>>(layers, words);
    check(cudaGetLastError(), "launch of the coverage kernel");
}

void add_squares(const SquaresOf& table, double* norms, int device, std::uintptr_t stream) {
    check(cudaSetDevice(device), "cudaSetDevice");
    const auto blocks = static_cast<unsigned>((table.filters + 63) / 64);
    squares_kernel<<<blocks, 64, 0, reinterpret_cast<cudaStream_t>(stream)>>>(table, norms);
    check(cudaGetLastError(), "launch of the kernel of norms");
}

}  // namespace reprune
