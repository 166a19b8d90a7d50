// Maximum cluster coverage on the GPU: all layers in one launch, one block per layer, after one that indexes their channels.
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "gpu/block_cuda.hpp"
#include "gpu/cover_layers.hpp"
#include "selection/squares.hpp"

namespace reprune {
namespace {

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace

// layers [gridDim.y]; dynamic shared memory: index_words
__global__ void __launch_bounds__(index_threads) index_kernel(const CoverLayer* layers) {
    extern __shared__ Four shared[];
    CudaBlock<false> block(nullptr);
    const CoverLayer layer = layers[blockIdx.y];
    index_layer(block, layer, reinterpret_cast<std::uint32_t*>(shared), blockIdx.x, gridDim.x);
}

// layers [gridDim.x]; dynamic shared memory: cover_words
template <bool by_norm>
__global__ void __launch_bounds__(cover_threads, 1) cover_kernel(const CoverLayer* layers) {
    extern __shared__ Four shared[];
    __shared__ Candidate<by_norm> winners[CudaBlock<by_norm>::most_warps];
    CudaBlock<by_norm> block(kept(winners));
    const CoverLayer layer = layers[blockIdx.x];
    __builtin_assume(__isGlobal(layer.index));
    cover_layer<by_norm>(block, layer, reinterpret_cast<std::uint32_t*>(kept(shared)));
}

__global__ void squares_kernel(SquaresOf table, double* norms) {  // one thread per filter
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < table.filters) norms[i] = with_squares(table, i, norms[i]);
}

std::string cuda_error() {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, index_kernel);
    return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

void cover_layers(const CoverLayer* layers, std::int64_t count, CoverShape shape, bool by_norm, int device,
                  std::uintptr_t stream_handle) {
    const auto stream = reinterpret_cast<cudaStream_t>(stream_handle);
    const auto blocks = static_cast<unsigned>(count);
    const unsigned index_bytes = 4 * shape.index_words(index_threads), cover_bytes = 4 * shape.cover_words();
    check(cudaSetDevice(device), "cudaSetDevice");
    // 64 KiB at most, more than a kernel gets without asking
    check(cudaFuncSetAttribute(index_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(index_bytes)),
          "shared memory of the index kernel");
    index_kernel<<<dim3(index_blocks, blocks), index_threads, index_bytes, stream>>>(layers);
    check(cudaGetLastError(), "launch of the index kernel");
    (by_norm ? cover_kernel<true> : cover_kernel<false>)<<<blocks, cover_threads, cover_bytes, stream>>>(layers);
    check(cudaGetLastError(), "launch of the coverage kernel");
}

void add_squares(const SquaresOf& table, double* norms, int device, std::uintptr_t stream) {
    check(cudaSetDevice(device), "cudaSetDevice");
    const auto blocks = static_cast<unsigned>((table.filters + 63) / 64);
    squares_kernel<<<blocks, 64, 0, reinterpret_cast<cudaStream_t>(stream)>>>(table, norms);
    check(cudaGetLastError(), "launch of the kernel of norms");
}

}  // namespace reprune
