// Maximum cluster coverage of one layer by blocks of threads: what csrc/gpu/coverage.cu runs on the GPU and, on a stand-in for a
// block (block_host.hpp), the CPU's tests. Picks and gains are those of coverage.hpp.
//
// First, index_layer: in every channel the filters are sorted by cluster, one warp to a channel, on as many blocks as there are.
// Then, cover_layer, on one block: a pick walks the clusters that it is the first to cover and takes one off the gain of their
// members, so all picks together touch each kernel at most once: O(O I + keep O).
#pragma once

#include <cstdint>

#include "gpu/device.hpp"
#include "selection/ties.hpp"

namespace reprune {

struct CoverLayer {
    const std::int32_t* labels;     // [I, O] the cluster of kernel (i, j), 0 <= . < clusters
    const double* norms;            // [O], or null
    std::uint16_t* index;           // scratch [I, 2 O + 1], as written by index_channel
    std::int64_t *order, *gains;    // [keep] the results
    std::int32_t filters, channels;  // 1 <= O <= most_filters; I (2 O + 1) < 2^32
    std::int32_t clusters, keep;    // 1 <= clusters, keep <= O
    std::uint32_t tie_key;          // of ties.hpp
};

constexpr std::int32_t most_filters = 4096;

// What picks are compared by, and the filter. No two filters have the same tie_value.
template <bool by_norm>
struct alignas(16) Candidate {
    std::int32_t gain = INT32_MIN;  // larger wins
    std::uint32_t tie_value = ~0U;  // smaller wins
    std::uint32_t filter = 0;
    std::uint32_t padding = 0;  // by name, so that no word of a 16-byte access is uninitialised
};
template <>
struct alignas(16) Candidate<true> : Candidate<false> {
    std::uint32_t norm_high = 0, norm_low = 0;  // larger wins, before tie_value
};

template <bool by_norm>
REPRUNE_DEVICE bool better(const Candidate<by_norm>& a, const Candidate<by_norm>& b) {
    if (a.gain != b.gain) return a.gain > b.gain;
    if constexpr (by_norm) {
        if (a.norm_high != b.norm_high) return a.norm_high > b.norm_high;
        if (a.norm_low != b.norm_low) return a.norm_low > b.norm_low;
    }
    return a.tie_value < b.tie_value;
}

constexpr std::int32_t retired = 1 << 28;  // taken off the gain of what is picked, so that it is never best again

// A row of the index: for every filter, where in the row the members of its cluster begin, or `alone`; the filters sorted by
// cluster, each as the offset in bytes of its gain and two flags; at last an entry with `first`.
constexpr std::uint32_t alone = 1U << 15;    // a cluster of one, which nobody else's gain depends on
constexpr std::uint32_t first = 1U << 15;    // the first of its cluster
constexpr std::uint32_t covered = 1U << 14;  // on the first one only: a picked filter is in the cluster
constexpr std::uint32_t member_offset = covered - 1;

// cursor [clusters]: scratch that the lanes of the warp share.
template <class Warp>
REPRUNE_DEVICE void index_channel(Warp& warp, const std::int32_t* labels, std::uint32_t n, std::uint32_t clusters,
                                  std::uint32_t* cursor, std::uint16_t* row) {
    warp.each([&](std::uint32_t lane) {
        const std::uint32_t* last = cursor + clusters;
        REPRUNE_NO_UNROLL
        for (std::uint32_t* c = cursor + lane; c < last; c += 32) *c = 0;
        if (lane == 0) row[2 * n] = static_cast<std::uint16_t>(first);
    });
    warp.each_of(labels, n, [&](std::uint32_t, std::int32_t label) { warp.add(cursor + label, 1U); });
    // each lane a range of clusters; of odd length, so that the lanes hit different banks
    const std::uint32_t range = (clusters + 31) / 32 | 1;
    const auto end = [&](std::uint32_t lane) { return (lane + 1) * range < clusters ? (lane + 1) * range : clusters; };
    warp.scan(
        [&](std::uint32_t lane) {
            std::uint32_t sum = 0;
            for (std::uint32_t c = lane * range; c < end(lane); ++c) sum += cursor[c];
            return sum;
        },
        [&](std::uint32_t lane, std::uint32_t before) {  // from sizes to (next free place) << 16 | first place
            std::uint32_t place = (n + before) * 0x10001U;
            for (std::uint32_t c = lane * range; c < end(lane); ++c) {
                const std::uint32_t size = cursor[c];
                cursor[c] = size == 1 ? place | alone : place;
                place += size * 0x10001U;
            }
        });
    warp.each_of(labels, n, [&](std::uint32_t i, std::int32_t label) {
        const std::uint32_t place = warp.add(cursor + label, 1U << 16);
        const std::uint32_t at = place >> 16, start = place & ~alone & 0xffffU;
        row[at] = static_cast<std::uint16_t>(at == start ? i * 4 | first : i * 4);
        row[i] = static_cast<std::uint16_t>(place);
    });
}

// Bits whose order as an integer is the order of x as a number; -0 is 0.
REPRUNE_DEVICE inline std::uint64_t ordered_bits(double x) {
    union {
        double number;
        std::uint64_t bits;
    } word;
    word.number = x + 0.0;
    return word.bits >> 63 != 0 ? ~word.bits : word.bits | std::uint64_t{1} << 63;
}

struct alignas(16) Four {
    std::int32_t a, b, c, d;
};

REPRUNE_DEVICE inline std::int32_t larger(std::int32_t a, std::int32_t b) { return a > b ? a : b; }

// The better of `best`, whose gain is as large as any now, and filter i.
template <bool by_norm>
REPRUNE_DEVICE void consider(Candidate<by_norm>& best, std::int32_t gain, std::uint32_t i, std::uint32_t step_key,
                             const double* norms) {
    const std::uint32_t value = tie_value(step_key, i);
    bool wins = gain == best.gain && value <= best.tie_value;  // equal to that of no other filter, but to what `best` starts with
    if constexpr (by_norm) {
        if (gain != best.gain || gain < 0) return;
        const std::uint64_t bits = ordered_bits(norms[i]), most = std::uint64_t{best.norm_high} << 32 | best.norm_low;
        wins = bits > most || (bits == most && wins);
        best.norm_high = static_cast<std::uint32_t>((wins ? bits : most) >> 32);
        best.norm_low = static_cast<std::uint32_t>(wins ? bits : most);
    }
    best.tie_value = wins ? value : best.tie_value;
    best.filter = wins ? i : best.filter;
}

// The channels of block `part` of `parts`. shared: `clusters` words for every warp.
template <class Block>
REPRUNE_DEVICE void index_layer(Block& block, const CoverLayer& layer, std::uint32_t* shared, std::uint32_t part,
                                std::uint32_t parts) {
    const auto n = static_cast<std::uint32_t>(layer.filters), clusters = static_cast<std::uint32_t>(layer.clusters);
    const std::uint32_t warps = block.threads / 32;
    block.warps([&](auto& warp) {
        for (std::uint32_t j = part * warps + warp.index; j < static_cast<std::uint32_t>(layer.channels); j += parts * warps)
            index_channel(warp, layer.labels + j * n, n, clusters, shared + warp.index * clusters,
                          layer.index + j * (2 * n + 1));
    });
}

// shared: O words, rounded up to fours, at 16 bytes.
template <bool by_norm, class Block>
REPRUNE_DEVICE void cover_layer(Block& block, const CoverLayer& layer, std::uint32_t* shared) {
    const auto n = static_cast<std::uint32_t>(layer.filters), channels = static_cast<std::uint32_t>(layer.channels);
    const std::uint32_t width = 2 * n + 1;
    auto* gain = reinterpret_cast<std::int32_t*>(shared);  // [O] clusters that a filter would newly cover
    const auto lower = [&](std::uint32_t member) {
        block.subtract(reinterpret_cast<std::int32_t*>(reinterpret_cast<char*>(gain) + member), 1);
    };
    const std::uint32_t fours = (n + 3) / 4;
    block.each([&](std::uint32_t t) {
        for (std::uint32_t i = t; i < 4 * fours; i += block.threads) gain[i] = i < n ? layer.channels : -retired;
    });
    for (std::int32_t step = 0; step < layer.keep; ++step) {
        const std::uint32_t step_key = tie_step(layer.tie_key, static_cast<std::uint32_t>(step));
        const Candidate<by_norm> pick = block.best(fours, [&](std::uint32_t t) {  // four filters at a time
            Candidate<by_norm> best;
            REPRUNE_NO_UNROLL
            for (std::uint32_t i = 4 * t; i < n; i += 4 * block.threads) {
                const Four gains = *reinterpret_cast<const Four*>(gain + i);
                const std::int32_t most = larger(larger(gains.a, gains.b), larger(gains.c, gains.d));
                if (most > best.gain) best = {most};
                consider(best, gains.a, i, step_key, layer.norms);
                consider(best, gains.b, i + 1, step_key, layer.norms);
                consider(best, gains.c, i + 2, step_key, layer.norms);
                consider(best, gains.d, i + 3, step_key, layer.norms);
            }
            return best;
        });
        block.each([&](std::uint32_t t) {
            if (t == 0) {
                layer.order[step] = pick.filter;
                layer.gains[step] = pick.gain;
                block.subtract(gain + pick.filter, retired);
            }
            if (pick.gain == 0) return;
            REPRUNE_NO_UNROLL
            for (std::uint32_t j = t; j < channels; j += block.threads) {  // always the same thread for a channel
                std::uint16_t* row = layer.index + j * width;
                const std::uint32_t start = row[pick.filter];
                if ((start & alone) != 0) continue;
                std::uint16_t* entry = row + start;
                std::uint32_t member = *entry;
                if ((member & covered) != 0) continue;
                *entry = static_cast<std::uint16_t>(member | covered);
                member &= member_offset;
                do {
                    lower(member);
                    member = *++entry;
                } while ((member & first) == 0);
            }
        });
    }
}

}  // namespace reprune
