// The loops of a line in AVX-512: rounds of joins are compressed eight clusters at a time, and values are sorted by a network.
#include "simd/line.hpp"

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#include <immintrin.h>

#define REPRUNE_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,popcnt")))

namespace reprune {
namespace {

constexpr double above = 1 + 0x1p-30;  // times a cost: surely more
constexpr std::int32_t most_sorted = 4096;  // by the network, whose time grows faster than n

using I = __m512i;

REPRUNE_TARGET inline I vector_at(const std::int32_t* p, std::int32_t i) { return _mm512_loadu_si512(p + 16 * i); }
REPRUNE_TARGET inline void put(std::int32_t* p, std::int32_t i, I x) { _mm512_storeu_si512(p + 16 * i, x); }
REPRUNE_TARGET inline I reversed(I x) {
    const I lanes = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_permutexvar_epi32(lanes, x);
}

// Compares each lane with its partner; the lanes of `upper` keep the larger.
REPRUNE_TARGET inline I exchange(I x, I partner, __mmask16 upper) {
    return _mm512_mask_max_epu32(_mm512_min_epu32(x, partner), upper, x, partner);
}
REPRUNE_TARGET inline I apart1(I x) { return exchange(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB), 0xAAAA); }
REPRUNE_TARGET inline I apart2(I x) { return exchange(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC), 0xCCCC); }
REPRUNE_TARGET inline I apart4(I x) { return exchange(x, _mm512_shuffle_i64x2(x, x, 0xB1), 0xF0F0); }
REPRUNE_TARGET inline I apart8(I x) { return exchange(x, _mm512_shuffle_i64x2(x, x, 0x4E), 0xFF00); }
REPRUNE_TARGET inline I within_vector(I x) { return apart1(apart2(apart4(apart8(x)))); }

REPRUNE_TARGET inline I sorted_vector(I x) {  // Batcher's bitonic network, whose first step of each merge is mirrored
    const I halves = _mm512_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    x = apart1(x);
    x = apart1(exchange(x, _mm512_shuffle_epi32(x, _MM_PERM_ABCD), 0xCCCC));
    x = apart1(apart2(exchange(x, _mm512_permutexvar_epi32(halves, x), 0xF0F0)));
    return apart1(apart2(apart4(exchange(x, reversed(x), 0xFF00))));
}

// Sorts keys [16 count]. The upper of two that are exchanged keeps the larger, so what would stand beyond the end is left out.
REPRUNE_TARGET void sort_keys(std::int32_t* keys, std::int32_t count) {
    for (std::int32_t i = 0; i < count; ++i) put(keys, i, sorted_vector(vector_at(keys, i)));
    for (std::int32_t run = 1; run < count; run *= 2) {  // sorted vectors side by side
        for (std::int32_t begin = 0; begin + run < count; begin += 2 * run) {
            const std::int32_t end = begin + 2 * run < count ? begin + 2 * run : count;
            for (std::int32_t j = end - 1; j >= begin + run; --j) {
                const std::int32_t i = 2 * begin + 2 * run - 1 - j;
                const I x = vector_at(keys, i), y = reversed(vector_at(keys, j));
                put(keys, i, _mm512_min_epu32(x, y));
                put(keys, j, reversed(_mm512_max_epu32(x, y)));
            }
            for (std::int32_t apart = run / 2; apart > 0; apart /= 2)
                for (std::int32_t from = begin; from + apart < end; from += 2 * apart) {
                    const std::int32_t to = from + 2 * apart < end ? from + apart : end - apart;
                    for (std::int32_t i = from; i < to; ++i) {
                        const I x = vector_at(keys, i), y = vector_at(keys, i + apart);
                        put(keys, i, _mm512_min_epu32(x, y));
                        put(keys, i + apart, _mm512_max_epu32(x, y));
                    }
                }
        }
        for (std::int32_t i = 0; i < count; ++i) put(keys, i, within_vector(vector_at(keys, i)));
    }
}

// By keys of 32 bits: the leading ones are of the value, over the range of the values, the others its id.
REPRUNE_TARGET double sort(const double* values, std::int32_t n, std::int32_t* scratch, std::int32_t* order, double* sorted) {
    if (n > most_sorted) return plain_line.sort(values, n, scratch, order, sorted);
    __m512d lowest = _mm512_set1_pd(values[0]), highest = lowest;
    for (std::int32_t i = 0; i < n; i += 8) {
        const __mmask8 here = n - i >= 8 ? 0xFF : static_cast<__mmask8>((1 << (n - i)) - 1);
        const __m512d x = _mm512_mask_loadu_pd(lowest, here, values + i);
        lowest = _mm512_min_pd(lowest, x);
        highest = _mm512_mask_max_pd(highest, here, highest, x);
    }
    const double low = _mm512_reduce_min_pd(lowest), high = _mm512_reduce_max_pd(highest);
    int id_bits = 4;
    while (n > 1 << id_bits) ++id_bits;
    const double scale = high > low ? static_cast<double>((std::int64_t{1} << (32 - id_bits)) - 1) / (high - low) : 0;
    const std::int32_t count = (n + 15) / 16;
    __m256i id = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (std::int32_t i = 0; i < 16 * count; i += 8) {
        const __mmask8 here = n - i >= 8 ? 0xFF : n <= i ? 0 : static_cast<__mmask8>((1 << (n - i)) - 1);
        const __m512d x = _mm512_mul_pd(_mm512_sub_pd(_mm512_maskz_loadu_pd(here, values + i), _mm512_set1_pd(low)),
                                        _mm512_set1_pd(scale));
        const __m256i key = _mm256_or_si256(_mm256_sll_epi32(_mm512_cvttpd_epu32(x), _mm_cvtsi32_si128(id_bits)), id);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(scratch + i), _mm256_mask_mov_epi32(_mm256_set1_epi32(-1), here, key));
        id = _mm256_add_epi32(id, _mm256_set1_epi32(8));
    }
    sort_keys(scratch, count);
    const std::int32_t id_mask = (1 << id_bits) - 1;
    for (std::int32_t i = 0; i < n; ++i) {
        const std::int32_t own = scratch[i] & id_mask;
        order[i] = own;
        sorted[i] = values[own];
    }
    return -low > high ? -low : high;
}

REPRUNE_TARGET void gaps(const LineClusters& line) {
    for (std::int32_t i = 1; i < line.count; i += 8) {  // those beyond the end are of no use, and overwritten
        const __m512d x = _mm512_loadu_pd(line.total + i - 1), y = _mm512_loadu_pd(line.total + i);
        const __m512d na = _mm512_loadu_pd(line.size + i - 1), nb = _mm512_loadu_pd(line.size + i);
        const __m512d step = _mm512_sub_pd(_mm512_mul_pd(x, nb), _mm512_mul_pd(y, na));
        const __m512d parts = _mm512_mul_pd(_mm512_mul_pd(na, nb), _mm512_add_pd(na, nb));
        _mm512_storeu_pd(line.gap + i, _mm512_div_pd(_mm512_mul_pd(step, step), parts));
    }
}

REPRUNE_TARGET bool smallest(const LineClusters& line, double limit, double blur) {
    __mmask8 blurred = 0;
    const I one = _mm512_set1_epi64(1);
    for (std::int32_t i = 0; i < line.count; i += 8) {  // a gap beyond the end is infinite, or none of a cluster's
        const __m512d g = _mm512_loadu_pd(line.gap + i + 1);
        const __m512d beside = _mm512_min_pd(_mm512_loadu_pd(line.gap + i), _mm512_loadu_pd(line.gap + i + 2));
        const __m512d points = _mm512_add_pd(_mm512_loadu_pd(line.size + i), _mm512_loadu_pd(line.size + i + 1));
        const __mmask8 here = line.count - i >= 8 ? 0xFF : static_cast<__mmask8>((1 << (line.count - i)) - 1);
        const __mmask8 within = _mm512_mask_cmp_pd_mask(here, g, _mm512_set1_pd(limit), _CMP_LE_OQ);
        const __mmask8 least = _mm512_mask_cmp_pd_mask(within, g, beside, _CMP_LE_OQ);
        const __m512d most =
            _mm512_add_pd(_mm512_mul_pd(g, _mm512_set1_pd(above)), _mm512_mul_pd(_mm512_set1_pd(blur), points));
        blurred |= _mm512_mask_cmp_pd_mask(least, most, beside, _CMP_GE_OQ);
        _mm512_storeu_si512(line.join + i, _mm512_maskz_mov_epi64(least, one));
    }
    return blurred != 0;
}

REPRUNE_TARGET std::int32_t close(LineClusters& line, double limit, double* largest) {
    double *total = line.total, *size = line.size;
    std::int32_t* boundary = line.boundary;
    std::int32_t to = 0, joins = 0;
    unsigned before = 0;  // bit 0: is this cluster joined to the one before it?
    const __m512d most = _mm512_set1_pd(limit);
    __m512d points = _mm512_set1_pd(*largest);
    for (std::int32_t i = 0; i < line.count; i += 8) {
        const unsigned here = line.count - i >= 8 ? 0xFFU : (1U << (line.count - i)) - 1;
        const I join = _mm512_loadu_si512(line.join + i);
        const auto yes = static_cast<__mmask8>(_mm512_test_epi64_mask(join, join) & here);
        const __m512d left = _mm512_loadu_pd(line.gap + i), right = _mm512_loadu_pd(line.gap + i + 1);
        const unsigned near = static_cast<unsigned>(_mm512_cmp_pd_mask(left, most, _CMP_LE_OQ)) |
                              static_cast<unsigned>(_mm512_cmp_pd_mask(right, most, _CMP_LE_OQ));
        const auto on = static_cast<__mmask8>(~(static_cast<unsigned>(yes) << 1 | before) & near & here);
        before = static_cast<unsigned>(yes) >> 7;
        const __m512d sums = _mm512_loadu_pd(total + i), sizes = _mm512_loadu_pd(size + i);
        const __m512d sum = _mm512_mask_add_pd(sums, yes, sums, _mm512_loadu_pd(total + i + 1));
        const __m512d more = _mm512_mask_add_pd(sizes, yes, sizes, _mm512_loadu_pd(size + i + 1));
        const __m256i ends = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(boundary + i));
        const __m256i end = _mm256_mask_loadu_epi32(ends, yes, boundary + i + 1);
        points = _mm512_mask_max_pd(points, on, points, more);
        // what a round closes is written one by one, its number first: no branch to guess
        alignas(64) double closed[8];
        alignas(32) std::int32_t where[8];
        _mm512_store_pd(closed, right);
        const __m256i none = _mm256_set1_epi32(line.points);
        _mm256_store_si256(reinterpret_cast<__m256i*>(where), _mm256_mask_mov_epi32(none, yes, ends));
        for (int l = 0; l < 8; ++l) line.heights[where[l]] = closed[l];
        _mm512_storeu_pd(total + to, _mm512_maskz_compress_pd(on, sum));
        _mm512_storeu_pd(size + to, _mm512_maskz_compress_pd(on, more));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(boundary + to), _mm256_maskz_compress_epi32(on, end));
        to += __builtin_popcount(on);
        joins += __builtin_popcount(yes);
    }
    *largest = _mm512_reduce_max_pd(points);
    line.count = to;
    return joins;
}

}  // namespace

const LineLoops avx512_line{sort, gaps, smallest, close};

}  // namespace reprune
#endif
