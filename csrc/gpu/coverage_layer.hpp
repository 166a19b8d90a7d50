// Maximum cluster coverage of one layer by blocks of threads: what csrc/gpu/coverage.cu runs on the GPU and, on a stand-in for a
// block (block_host.hpp), the CPU's tests. Picks and gains are those of coverage.hpp.
//
// First, index_layer: in every channel the filters are sorted by cluster, one warp to a channel, on as many blocks as there are.
// Then, cover_layer, on one block: a pick walks the clusters that it is the first to cover and takes one off the gain of their
// members, so all picks together touch each kernel at most once: O(O I + keep O). A pick waits for what it reads, so it reads
// little in turn: where its clusters are, for all channels side by side, and then four members at a time.
#pragma once

#include <cstdint>

#include "gpu/device.hpp"
#include "selection/ties.hpp"

namespace reprune {

struct CoverLayer {
    const std::int32_t* labels;     // [I, O] the cluster of kernel (i, j), 0 <= . < clusters
    const double* norms;            // [O], or null
    std::uint16_t* index;           // scratch at 8 bytes: Members [I, O / 2], then where [O, I]; as index_channel writes them
    std::int64_t *order, *gains;    // [keep] the results
    std::int32_t filters, channels;  // 1 <= O <= most_filters; 3 I O < 2^32
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

// Four members of a cluster, and flags of the first of them. Empty places name one of `spare` gains that nobody reads, another in
// every channel, so that no place needs a question and threads seldom meet.
struct alignas(8) Members {
    std::uint16_t of[4];
};
constexpr std::uint32_t more = 1U << 15;     // from the second four of a cluster on: the next are of it too
constexpr std::uint32_t covered = 1U << 14;  // in the first four of a cluster: a picked filter is in it
constexpr std::uint32_t member = covered - 1;
constexpr std::uint32_t spare = 32;

// Where the cluster of a filter is: which of the channel's fours is its first, and whether it has a second, so that both are read
// at once.
constexpr std::uint32_t alone = 0xffff;  // it has none: nobody else's gain depends on a cluster of one
constexpr std::uint32_t several = 1U << 14;
constexpr std::uint32_t first = several - 1;

// Where the fours of channel j begin in the index, and after those of all channels `where`.
REPRUNE_DEVICE inline std::uint32_t members_at(const CoverLayer& layer, std::uint32_t j) {
    return static_cast<std::uint32_t>(layer.filters) / 2 * 4 * j;
}

REPRUNE_DEVICE inline std::uint32_t where_at(const CoverLayer& layer) {
    return members_at(layer, static_cast<std::uint32_t>(layer.channels));
}

// cursor [clusters]: scratch that the lanes of the warp share.
template <class Warp>
REPRUNE_DEVICE void index_channel(Warp& warp, const CoverLayer& layer, std::uint32_t j, std::uint32_t* cursor) {
    const auto n = static_cast<std::uint32_t>(layer.filters), clusters = static_cast<std::uint32_t>(layer.clusters);
    const std::int32_t* labels = layer.labels + j * n;
    std::uint16_t* members = layer.index + members_at(layer, j);
    const std::uint32_t where = where_at(layer) + j;
    const auto unread = static_cast<std::uint16_t>(n + j % spare);
    const Members empty = {{unread, unread, unread, unread}};
    warp.each([&](std::uint32_t lane) {
        REPRUNE_NO_UNROLL
        for (std::uint32_t c = lane; c < clusters; c += 32) cursor[c] = 0;
    });
    warp.each_of(labels, n, [&](std::uint32_t, std::int32_t label) { warp.add(cursor + label, 1U); });
    // each lane a range of clusters; of odd length, so that the lanes hit different banks
    const std::uint32_t range = (clusters + 31) / 32 | 1;
    const auto end = [&](std::uint32_t lane) { return (lane + 1) * range < clusters ? (lane + 1) * range : clusters; };
    const auto fours = [](std::uint32_t size) { return size == 1 ? 0 : (size + 3) / 4; };
    warp.scan(
        [&](std::uint32_t lane) {
            std::uint32_t sum = 0;
            for (std::uint32_t c = lane * range; c < end(lane); ++c) sum += fours(cursor[c]);
            return sum;
        },
        [&](std::uint32_t lane, std::uint32_t place) {  // from sizes to (members that have come << 16 | where the cluster is)
            for (std::uint32_t c = lane * range; c < end(lane); ++c) {
                const std::uint32_t size = cursor[c];
                cursor[c] = size == 1 ? alone : size > 4 ? place | several : place;
                if (size < 2) continue;
                place += fours(size);
                reinterpret_cast<Members*>(members)[place - 1] = empty;
            }
        });
    warp.each_of(labels, n, [&](std::uint32_t i, std::int32_t label) {
        const std::uint32_t come = warp.add(cursor + label, 1U << 16), place = come & 0xffff;
        layer.index[where + i * static_cast<std::uint32_t>(layer.channels)] = static_cast<std::uint16_t>(place);
        if (place != alone) members[4 * (place & first) + (come >> 16)] = static_cast<std::uint16_t>(i);
    });
    warp.apart([&](std::uint32_t lane) {  // who looks at a cluster here is who begins the next channel with it
        REPRUNE_NO_UNROLL
        for (std::uint32_t c = lane; c < clusters; c += 32)
            for (std::uint32_t k = 8; k < cursor[c] >> 16; k += 4) members[4 * (cursor[c] & first) + k - 4] |= more;
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

// The better of `best` and filter i, which have the same gain.
template <bool by_norm>
REPRUNE_DEVICE void consider(Candidate<by_norm>& best, std::uint32_t i, std::uint32_t step_key, const double* norms) {
    const std::uint32_t value = tie_value(step_key, i);
    bool wins = value <= best.tie_value;  // equal to that of no other filter, but to what `best` starts with
    if constexpr (by_norm) {
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
    const std::uint32_t warps = block.threads / 32;
    block.warps([&](auto& warp) {
        for (std::uint32_t j = part * warps + warp.index; j < static_cast<std::uint32_t>(layer.channels); j += parts * warps)
            index_channel(warp, layer, j, shared + warp.index * static_cast<std::uint32_t>(layer.clusters));
    });
}

// Cover the clusters of a filter in the channels t, t + threads, ...; always the same thread for a channel. `side_by_side` of
// them are read at once.
template <std::uint32_t side_by_side, class Block>
REPRUNE_DEVICE void cover_filter(Block& block, const CoverLayer& layer, std::uint32_t filter, std::uint32_t t,
                                 std::int32_t* gain) {
    const auto channels = static_cast<std::uint32_t>(layer.channels);
    const std::uint32_t where = where_at(layer) + filter * channels;
    const auto read = [&](std::uint32_t at) { return *reinterpret_cast<const Members*>(layer.index + at); };
    const auto lower = [&](const Members& members) {
        block.subtract(gain + (members.of[0] & member), 1);
        for (int k = 1; k < 4; ++k) block.subtract(gain + members.of[k], 1);
    };
    REPRUNE_NO_UNROLL
    for (std::uint32_t from = t; from < channels; from += side_by_side * block.threads) {
        std::uint32_t place[side_by_side], at[side_by_side];
        Members own[side_by_side], next[side_by_side];
        for (std::uint32_t k = 0; k < side_by_side; ++k) {
            const std::uint32_t j = from + k * block.threads;
            place[k] = j < channels ? layer.index[where + j] : alone;
            at[k] = members_at(layer, j) + 4 * (place[k] & first);
        }
        for (std::uint32_t k = 0; k < side_by_side; ++k) {
            own[k].of[0] = covered;
            if (place[k] == alone) continue;
            own[k] = read(at[k]);
            if ((place[k] & several) != 0) next[k] = read(at[k] + 4);
        }
        for (std::uint32_t k = 0; k < side_by_side; ++k) {
            if ((own[k].of[0] & covered) != 0) continue;
            layer.index[at[k]] = static_cast<std::uint16_t>(own[k].of[0] | covered);
            lower(own[k]);
            if ((place[k] & several) == 0) continue;
            lower(next[k]);
            REPRUNE_NO_UNROLL
            for (std::uint32_t rest = at[k] + 8; (next[k].of[0] & more) != 0; rest += 4) {
                next[k] = read(rest);
                lower(next[k]);
            }
        }
    }
}

// shared: O and `spare` words, rounded up to fours, at 16 bytes.
template <bool by_norm, class Block>
REPRUNE_DEVICE void cover_layer(Block& block, const CoverLayer& layer, std::uint32_t* shared) {
    const auto n = static_cast<std::uint32_t>(layer.filters), channels = static_cast<std::uint32_t>(layer.channels);
    auto* gain = reinterpret_cast<std::int32_t*>(shared);  // [O] clusters that a filter would newly cover
    const auto four = [&](std::uint32_t i) -> const Four& { return *reinterpret_cast<const Four*>(gain + i); };
    const std::uint32_t fours = (n + 3) / 4;
    block.each([&](std::uint32_t t) {
        for (std::uint32_t i = t; i < 4 * fours + spare; i += block.threads) gain[i] = i < n ? layer.channels : -retired;
    });
    for (std::int32_t step = 0; step < layer.keep; ++step) {
        const Candidate<by_norm> pick = block.best(
            fours,
            [&](std::uint32_t t) {  // four filters at a time
                std::int32_t most = INT32_MIN;
                REPRUNE_NO_UNROLL
                for (std::uint32_t i = 4 * t; i < n; i += 4 * block.threads) {
                    const Four gains = four(i);
                    most = larger(most, larger(larger(gains.a, gains.b), larger(gains.c, gains.d)));
                }
                return most;
            },
            [&](std::uint32_t t, std::int32_t most) {
                Candidate<by_norm> best;
                best.gain = most;
                if (most < 0) return best;  // all are picked, or are none
                const std::uint32_t step_key = tie_step(layer.tie_key, static_cast<std::uint32_t>(step));
                REPRUNE_NO_UNROLL
                for (std::uint32_t i = 4 * t; i < n; i += 4 * block.threads) {
                    const Four gains = four(i);
                    if (gains.a == most) consider(best, i, step_key, layer.norms);
                    if (gains.b == most) consider(best, i + 1, step_key, layer.norms);
                    if (gains.c == most) consider(best, i + 2, step_key, layer.norms);
                    if (gains.d == most) consider(best, i + 3, step_key, layer.norms);
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
            if (channels <= block.threads) cover_filter<1>(block, layer, pick.filter, t, gain);
            else cover_filter<4>(block, layer, pick.filter, t, gain);
        });
    }
}

}  // namespace reprune
