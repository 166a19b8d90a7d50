#include <vector>

#include "gpu/block_host.hpp"
#include "gpu/cover_layers.hpp"
#include "selection/squares.hpp"

namespace reprune {
namespace {

constexpr std::uint32_t parts = 3;  // blocks that index a layer

void index(const CoverLayer& layer, const CoverShape& shape, std::uint32_t threads, std::uint32_t seed) {
    HostBlock<false> block(threads, seed);
    std::vector<std::uint32_t> tables(shape.index_words(threads), ~0U);
    for (std::uint32_t part = 0; part < parts; ++part) index_layer(block, layer, tables.data(), part, parts);
}

template <bool by_norm>
void cover(const CoverLayer& layer, const CoverShape& shape, std::uint32_t threads, std::uint32_t seed) {
    HostBlock<by_norm> block(threads, seed);
    std::vector<Four> gains(shape.cover_words() / 4, Four{-1, -1, -1, -1});
    cover_layer<by_norm>(block, layer, reinterpret_cast<std::uint32_t*>(gains.data()));
}

}  // namespace

void cover_layers_on_host(const CoverLayer* layers, std::int64_t count, CoverShape shape, bool by_norm, std::uint32_t threads,
                          std::uint32_t seed) {
    // as on the GPU, all are indexed before one is covered: an index that reached into the next would be seen
    for (std::int64_t k = 0; k < count; ++k) index(layers[k], shape, threads, seed);
    for (std::int64_t k = 0; k < count; ++k) (by_norm ? cover<true> : cover<false>)(layers[k], shape, threads, seed);
}

void add_squares_on_host(const SquaresOf& table, double* norms) {
    for (std::int64_t i = 0; i < table.filters; ++i) norms[i] = with_squares(table, i, norms[i]);
}

}  // namespace reprune
