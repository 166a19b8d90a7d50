#include <vector>

#include "block_host.hpp"
#include "cover_layers.hpp"
#include "squares.hpp"

namespace reprune {
namespace {

template <bool by_norm>
void cover(const CoverLayer& layer, std::uint32_t words, std::uint32_t threads, std::uint32_t seed) {
    HostBlock<by_norm> block(threads, seed);
    std::vector<Four> shared((words + 3) / 4, Four{-1, -1, -1, -1});
    cover_layer<by_norm>(block, layer, reinterpret_cast<std::uint32_t*>(shared.data()), words);
}

}  // namespace

void cover_layers_on_host(const CoverLayer* layers, std::int64_t count, std::uint32_t words, bool by_norm,
                          std::uint32_t threads, std::uint32_t seed) {
    for (std::int64_t k = 0; k < count; ++k) (by_norm ? cover<true> : cover<false>)(layers[k], words, threads, seed);
}

void add_squares_on_host(const SquaresOf& table, double* norms) {
    for (std::int64_t i = 0; i < table.filters; ++i) norms[i] = with_squares(table, i, norms[i]);
}

}  // namespace reprune
