#include "dendrogram.hpp"

#include <algorithm>
#include <numeric>

#include "call.hpp"

namespace reprune {

void to_scipy(std::vector<Merge>& merges, std::int64_t n, double* z) {
    Ticks tick;
    std::stable_sort(merges.begin(), merges.end(), [&](const Merge& x, const Merge& y) {
        tick();
        return x.height < y.height;
    });
    std::vector<std::int32_t> parent(static_cast<std::size_t>(2 * n)), size(static_cast<std::size_t>(2 * n), 1);
    std::iota(parent.begin(), parent.end(), 0);
    const auto root = [&](std::int32_t x) {
        while (parent[static_cast<std::size_t>(x)] != x) {
            std::int32_t& up = parent[static_cast<std::size_t>(x)];
            up = parent[static_cast<std::size_t>(up)];
            x = up;
        }
        return x;
    };
    for (std::size_t k = 0; k < merges.size(); ++k) {
        tick();
        const std::int32_t a = root(merges[k].a), b = root(merges[k].b);
        const std::int32_t id = static_cast<std::int32_t>(n) + static_cast<std::int32_t>(k);
        parent[static_cast<std::size_t>(a)] = parent[static_cast<std::size_t>(b)] = id;
        const std::int32_t count = size[static_cast<std::size_t>(a)] + size[static_cast<std::size_t>(b)];
        size[static_cast<std::size_t>(id)] = count;
        z[4 * k] = std::min(a, b);
        z[4 * k + 1] = std::max(a, b);
        z[4 * k + 2] = merges[k].height;
        z[4 * k + 3] = count;
    }
}

}  // namespace reprune
