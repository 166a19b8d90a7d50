#include "selection/coverage.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "runtime/call.hpp"
#include "runtime/pages.hpp"
#include "simd/clones.hpp"
#include "selection/matches.hpp"
#include "selection/rings.hpp"
#include "selection/ties.hpp"

namespace reprune {
namespace {

// Indices of x that are `value`, ascending; returns how many.
REPRUNE_CLONES std::size_t find(const std::int32_t* x, std::size_t n, std::int32_t value, std::int32_t* found) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 32) {  // mostly there are few
        std::int32_t any = 0;
        if (i + 32 <= n)
            for (std::size_t l = 0; l < 32; ++l) any |= x[i + l] == value;
        if (i + 32 <= n && any == 0) continue;
        for (std::size_t k = i; k < i + 32 && k < n; ++k)
            if (x[k] == value) found[count++] = static_cast<std::int32_t>(k);
    }
    return count;
}

REPRUNE_CLONES std::int32_t largest(const std::int32_t* x, std::size_t n) {
    std::int32_t most = x[0];
    for (std::size_t i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
    return most;
}

template <class Gains, class Label>
void greedy(Gains& coverage, const LabelTable<Label>& table, std::int64_t keep, std::uint32_t key, const double* norms,
            std::int64_t* order, std::int64_t* gains) {
    const auto n = static_cast<std::size_t>(table.filters);
    // gain[i]: clusters that filter i would newly cover; -1 once picked
    std::vector<std::int32_t> gain(n, static_cast<std::int32_t>(table.channels)), tied(n);
    for (std::int64_t step = 0; step < keep; ++step) {
        poll(table.filters * (table.channels / 32 + 1));
        const std::int32_t most = largest(gain.data(), n);
        const std::uint32_t step_key = tie_step(key, static_cast<std::uint32_t>(step));
        std::size_t best = n;
        std::uint32_t best_value = 0;
        const std::size_t count = find(gain.data(), n, most, tied.data());
        for (std::size_t k = 0; k < count; ++k) {
            const auto i = static_cast<std::size_t>(tied[k]);
            if (norms && best < n && norms[i] < norms[best]) continue;
            const std::uint32_t value = tie_value(step_key, static_cast<std::uint32_t>(i));
            if (best < n && value > best_value && !(norms && norms[i] > norms[best])) continue;
            best = i;
            best_value = value;
        }
        order[step] = static_cast<std::int64_t>(best);
        gains[step] = most;
        if (most > 0) coverage.cover(best, gain.data());
        gain[best] = -1;
    }
}

}  // namespace

template <class Label>
void max_coverage(const LabelTable<Label>& table, std::int64_t keep, std::uint32_t tie_key, const double* norms,
                  std::int64_t* order, std::int64_t* gains, Label* over) {
    const auto with_rings = [&](auto* memory) {
        Rings<std::remove_pointer_t<decltype(memory)>> rings(table, memory);
        greedy(rings, table, keep, tie_key, norms, order, gains);
    };
    const auto with_own = [&](auto zero) {
        HugePageBuffer<decltype(zero)> memory(Rings<decltype(zero)>::room(table.filters, table.channels));
        with_rings(memory.data());
    };
    // where comparing is faster, as measured, and its rows take little memory
    if (keep < 288 && table.clusters < 640 && table.filters * table.channels < 1 << 24) {
        Matches matches(table);
        if (matches.fits()) return greedy(matches, table, keep, tie_key, norms, order, gains);
    }
    if (over != nullptr) {
        with_rings(reinterpret_cast<std::make_unsigned_t<Label>*>(over));
    } else if (table.filters <= 65536) {
        with_own(std::uint16_t{});
    } else {
        with_own(std::uint32_t{});
    }
}

template <class Label>
std::size_t room_for_coverage(std::int64_t filters, std::int64_t channels) {
    return Rings<std::make_unsigned_t<Label>>::room(filters, channels);
}

template void max_coverage(const LabelTable<std::int32_t>&, std::int64_t, std::uint32_t, const double*, std::int64_t*,
                           std::int64_t*, std::int32_t*);
template void max_coverage(const LabelTable<std::uint16_t>&, std::int64_t, std::uint32_t, const double*, std::int64_t*,
                           std::int64_t*, std::uint16_t*);
template std::size_t room_for_coverage<std::int32_t>(std::int64_t, std::int64_t);
template std::size_t room_for_coverage<std::uint16_t>(std::int64_t, std::int64_t);

}  // namespace reprune
