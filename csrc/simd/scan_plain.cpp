// The scan in plain C++, for machines other than x86-64, and as the readable version.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "simd/scan.hpp"

namespace reprune {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr std::uint32_t odd = 0x9e3779b1U;

void take(const float* keys, std::int32_t block, std::int32_t own, Least& least) {
    for (int l = 0; l < lanes; ++l) {
        if (block * lanes + l == own) continue;
        least.second = std::min(least.second, std::max(least.key, keys[l]));
        if (keys[l] < least.key) {
            least.key = keys[l];
            least.index = block * lanes + l;
        }
    }
}

// -2 <row, lane> on top of sum; modulo 2^32, only the final value has to fit
void add_products(const char* block, std::int32_t pairs, const std::int32_t* row, std::uint32_t* sum) {
    for (std::int32_t p = 0; p < pairs; ++p) {
        std::int16_t x[2 * lanes], q[2];
        std::memcpy(x, block + 64 * p, 64);
        std::memcpy(q, row + p, 4);
        const std::int32_t q0 = -2 * q[0], q1 = -2 * q[1];
        for (int l = 0; l < lanes; ++l) sum[l] += static_cast<std::uint32_t>(x[2 * l] * q0 + x[2 * l + 1] * q1);
    }
}

void fixed_scan(const char* blocks, std::int32_t count, std::int32_t pairs, const FixedQuery& query, float* keys, Least* found) {
    Least least{infinity, infinity, 0};
    float key[lanes];
    for (std::int32_t b = 0; b < count; ++b, blocks += 64 * (pairs + 2)) {
        std::uint32_t sum[lanes];
        float reciprocal[lanes];
        std::memcpy(sum, blocks + 64 * pairs, 64);
        std::memcpy(reciprocal, blocks + 64 * (pairs + 1), 64);
        add_products(blocks, pairs, query.words, sum);
        for (int l = 0; l < lanes; ++l) {
            const auto squared = static_cast<std::int32_t>(sum[l] + static_cast<std::uint32_t>(query.norm));
            key[l] = static_cast<float>(squared) / (reciprocal[l] + query.reciprocal);
        }
        take(key, b, query.lane, least);
        if (keys != nullptr) std::memcpy(keys + b * lanes, key, 64);
    }
    *found = least;
}

FixedScan fixed(std::int32_t) { return fixed_scan; }

void floating(const char* blocks, std::int32_t count, std::int32_t d, const FloatQuery& query, float* keys, Least* found) {
    Least least{infinity, infinity, 0};
    float key[lanes];
    for (std::int32_t b = 0; b < count; ++b, blocks += 64 * (d + 1)) {
        float sum[lanes] = {}, x[lanes];
        for (std::int32_t k = 0; k < d; ++k) {
            std::memcpy(x, blocks + 64 * k, 64);
            for (int l = 0; l < lanes; ++l) sum[l] += (x[l] - query.coordinates[k]) * (x[l] - query.coordinates[k]);
        }
        std::memcpy(x, blocks + 64 * d, 64);
        for (int l = 0; l < lanes; ++l) key[l] = sum[l] / (x[l] + query.reciprocal);
        take(key, b, query.lane, least);
        if (keys != nullptr) std::memcpy(keys + b * lanes, key, 64);
    }
    *found = least;
}

void within(const char* blocks, std::int32_t first, std::int32_t count, std::int32_t pairs, const std::int32_t* row,
            std::int32_t bound, std::uint64_t* hits) {
    std::uint64_t all = 0;  // of four blocks
    for (std::int32_t b = first; b < count; ++b) {
        const char* block = blocks + 64LL * b * (pairs + 1);
        std::uint32_t sum[lanes];
        std::memcpy(sum, block + 64 * pairs, 64);
        add_products(block, pairs, row, sum);
        std::uint64_t hit = 0;
        for (int l = 0; l < lanes; ++l)
            hit |= static_cast<std::uint64_t>(static_cast<std::int32_t>(sum[l]) <= bound ? 1 : 0) << l;
        all |= hit << 16 * (b % 4);
        if (b % 4 != 3 && b + 1 < count) continue;
        hits[b / 4] = all;
        all = 0;
    }
}

void within(const char* blocks, std::int32_t first, std::int32_t count, std::int32_t pairs, const std::int32_t* x,
            const std::int32_t* y, std::int32_t bound_x, std::int32_t bound_y, std::uint64_t* hits_x, std::uint64_t* hits_y) {
    within(blocks, first, count, pairs, x, bound_x, hits_x);
    within(blocks, first, count, pairs, y, bound_y, hits_y);
}

std::int32_t indices(const std::uint64_t* hits, std::int32_t own, std::int32_t count, std::int32_t* found) {
    std::int32_t m = 0;
    for (std::int32_t i = own + 1; i < count * 64; ++i)
        if ((hits[i / 64] >> (i % 64) & 1) != 0) found[m++] = i;
    return m;
}

void squares(const std::int32_t* words, std::int32_t stride, const std::int32_t* query, const std::int32_t* ids,
             std::int32_t count, std::int32_t* squares) {
    for (std::int32_t k = 0; k < count; ++k) {
        const std::int32_t* row = words + static_cast<std::int64_t>(ids[k]) * stride;
        std::int32_t sum = 0;
        for (std::int32_t p = 0; p < stride; ++p) {
            std::int16_t x[2], y[2];
            std::memcpy(x, query + p, 4);
            std::memcpy(y, row + p, 4);
            sum += (x[0] - y[0]) * (x[0] - y[0]) + (x[1] - y[1]) * (x[1] - y[1]);
        }
        squares[k] = sum;
    }
}

std::int32_t quantise(double* total, const double* more, const double* mean, double part, double scale, std::int32_t width,
                      std::int32_t* words) {
    std::uint32_t squared = 0;  // modulo 2^32: where fixed point fails, it is of no use
    for (std::int32_t k = 0; k < width; ++k) {
        if (more != nullptr) total[k] += more[k];
        const double y = (total[k] * part - mean[k]) * scale + 0x1.8p52;  // rounds: the last bits are the integer
        std::uint64_t bits;
        std::memcpy(&bits, &y, 8);
        const auto q = static_cast<std::int16_t>(bits);
        squared += static_cast<std::uint32_t>(q * q);
        std::memcpy(reinterpret_cast<char*>(words) + 2 * k, &q, 2);
    }
    return static_cast<std::int32_t>(squared);
}

void adopt(const double* points, std::int32_t n, std::int32_t d, std::int32_t width, double* rows, double* sum,
           std::uint64_t* hashes) {
    std::fill(sum, sum + width, 0.0);
    for (std::int32_t i = 0; i < n; ++i, points += d, rows += width) {
        std::uint64_t hash = 0;
        for (std::int32_t k = 0; k < width; ++k) {
            rows[k] = k < d ? points[k] + 0.0 : 0.0;
            sum[k] += rows[k];
            std::uint64_t word;
            std::memcpy(&word, rows + k, 8);
            hash += ((word ^ word >> 32) & 0xffffffff) * (odd + 2 * static_cast<std::uint32_t>(k));
        }
        hashes[i] = hash;
    }
}

Extent extent(const double* totals, const double* size, const double* mean, const std::int32_t* ids, std::int32_t count,
              std::int32_t width) {
    Extent result{0, 0, 0};
    for (std::int32_t c = 0; c < count; ++c) {
        const double* total = totals + static_cast<std::int64_t>(ids[c]) * width;
        const double part = 1 / size[ids[c]];
        double from_mean = 0, from_origin = 0;
        for (std::int32_t k = 0; k < width; ++k) {
            const double x = total[k] * part, step = x - mean[k];
            from_mean += step * step;
            from_origin += x * x;
        }
        result.sum_from_mean += from_mean;
        result.from_mean = std::max(result.from_mean, from_mean);
        result.from_origin = std::max(result.from_origin, from_origin);
    }
    return result;
}

std::int32_t gather(const float* keys, std::int32_t count, float limit, std::int32_t* found) {
    std::int32_t m = 0;
    for (std::int32_t i = 0; i < count * lanes; ++i)
        if (keys[i] <= limit) found[m++] = i;
    return m;
}

void subtract_equal(const std::uint8_t* rows, std::int64_t width, const std::uint8_t* row, const std::int32_t* left,
                    std::int64_t count, std::int32_t* gain) {
    for (std::int64_t k = 0; k < count; ++k) {
        const std::uint8_t* other = rows + left[k] * width;
        std::int32_t equal = 0;
        for (std::int64_t j = 0; j < width; ++j) equal += other[j] == row[j];
        gain[left[k]] -= equal;
    }
}

std::atomic<const Scanner*> chosen{nullptr};

const Scanner* fastest() {
    for (int rank = 0; rank < 3; ++rank)
        if (const Scanner* s = x86_scanner(rank)) return s;
    return &plain_scanner;
}

}  // namespace

const Scanner plain_scanner{"plain", 1e-6F, fixed, floating, within, indices, squares, quantise,
                            adopt, extent, gather, subtract_equal, &plain_line};

const Scanner& scanner() {
    const Scanner* s = chosen.load(std::memory_order_relaxed);
    if (s == nullptr) chosen.store(s = fastest(), std::memory_order_relaxed);
    return *s;
}

bool set_isa(const char* name) {
    if (*name == 0) {
        chosen.store(fastest());
        return true;
    }
    for (int rank = 0; rank < 4; ++rank) {
        const Scanner* s = rank < 3 ? x86_scanner(rank) : &plain_scanner;
        if (s != nullptr && std::strcmp(s->name, name) == 0) {
            chosen.store(s);
            return true;
        }
    }
    return false;
}

}  // namespace reprune
