// The scan for x86-64. Functions carry their instruction set as an attribute, so the rest of the library does not
// need it.
#include "simd/scan.hpp"

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#include <immintrin.h>

// loaded once into a register, not by each instruction that uses it: loads are what the loops are bound by
#define REPRUNE_KEEP(x) __asm__("" : "+v"(x))

namespace reprune {
namespace {

constexpr std::int64_t odd = 0x9e3779b1;

const std::int32_t first_lanes[lanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

namespace avx2 {
#define REPRUNE_TARGET __attribute__((target("avx2,fma,bmi,popcnt")))
#define REPRUNE_WIDTH 8
using F = __m256;
using I = __m256i;
REPRUNE_TARGET inline F load(const void* p) { return _mm256_loadu_ps(static_cast<const float*>(p)); }
REPRUNE_TARGET inline I loadi(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
REPRUNE_TARGET inline I seti(std::int32_t x) { return _mm256_set1_epi32(x); }
REPRUNE_TARGET inline F set(float x) { return _mm256_set1_ps(x); }
REPRUNE_TARGET inline I minus2(I x) { return _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_add_epi16(x, x)); }
REPRUNE_TARGET inline I dot(I sum, I x, I y) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y)); }
REPRUNE_TARGET inline I addi(I x, I y) { return _mm256_add_epi32(x, y); }
REPRUNE_TARGET inline F number(I x) { return _mm256_cvtepi32_ps(x); }
REPRUNE_TARGET inline F add(F x, F y) { return _mm256_add_ps(x, y); }
REPRUNE_TARGET inline F sub(F x, F y) { return _mm256_sub_ps(x, y); }
REPRUNE_TARGET inline F mul(F x, F y) { return _mm256_mul_ps(x, y); }
REPRUNE_TARGET inline F square_add(F x, F sum) { return _mm256_fmadd_ps(x, x, sum); }
REPRUNE_TARGET inline F reciprocal(F x) { return _mm256_rcp_ps(x); }
REPRUNE_TARGET inline I count_bytes(I sum, I x, I y) { return _mm256_sub_epi8(sum, _mm256_cmpeq_epi8(x, y)); }
REPRUNE_TARGET inline std::int32_t sum_bytes(I x) {
    const I s = _mm256_sad_epu8(x, _mm256_setzero_si256());
    const __m128i h = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    return _mm_cvtsi128_si32(h) + _mm_cvtsi128_si32(_mm_unpackhi_epi64(h, h));
}
REPRUNE_TARGET inline I bits(F x) { return _mm256_castps_si256(x); }
REPRUNE_TARGET inline I least(I x, I y) { return _mm256_min_epu32(x, y); }
REPRUNE_TARGET inline I most(I x, I y) { return _mm256_max_epu32(x, y); }
// makes the code of the lane `own` the largest
REPRUNE_TARGET inline I hide(I code, I lane, I own) { return _mm256_or_si256(code, _mm256_cmpeq_epi32(lane, own)); }
REPRUNE_TARGET inline I tag(I key, I mask, I lane) { return _mm256_or_si256(_mm256_andnot_si256(mask, key), lane); }
template <int N>  // lanes change places with those N further on
REPRUNE_TARGET inline I swap(I x) {
    return N < 4 ? _mm256_shuffle_epi32(x, N == 2 ? 0x4E : 0xB1) : _mm256_permute2x128_si256(x, x, 1);
}
REPRUNE_TARGET inline std::int32_t first(I x) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(x)); }
REPRUNE_TARGET inline std::uint32_t above(I x, I y) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y))));
}
REPRUNE_TARGET inline I square_difference(I x, I y) {
    const I difference = _mm256_sub_epi16(x, y);
    return _mm256_madd_epi16(difference, difference);
}
REPRUNE_TARGET inline std::int32_t sum_words(I x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}
using D = __m256d;
REPRUNE_TARGET inline D loadd(const double* p) { return _mm256_loadu_pd(p); }
REPRUNE_TARGET inline D setd(double x) { return _mm256_set1_pd(x); }
REPRUNE_TARGET inline D addd(D x, D y) { return _mm256_add_pd(x, y); }
REPRUNE_TARGET inline D subd(D x, D y) { return _mm256_sub_pd(x, y); }
REPRUNE_TARGET inline D muld(D x, D y) { return _mm256_mul_pd(x, y); }
REPRUNE_TARGET inline void stored(double* p, D x) { _mm256_storeu_pd(p, x); }
REPRUNE_TARGET inline D head(D x, std::int32_t n) {  // n numbers of x, then zeros
    return _mm256_and_pd(x, _mm256_castsi256_pd(_mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))));
}
REPRUNE_TARGET inline double sumd(D x) {
    const __m128d h = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
}
REPRUNE_TARGET inline I hash(I sum, D x, I odd) {
    const I word = _mm256_castpd_si256(x);
    return _mm256_add_epi64(sum, _mm256_mul_epu32(_mm256_xor_si256(word, _mm256_srli_epi64(word, 32)), odd));
}
REPRUNE_TARGET inline std::uint64_t sum_long(I x) {
    const __m128i h = _mm_add_epi64(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(h, _mm_unpackhi_epi64(h, h))));
}
REPRUNE_TARGET inline I odds() { return _mm256_setr_epi64x(odd, odd + 2, odd + 4, odd + 6); }
REPRUNE_TARGET inline __m128i four(const double* total, const double* mean, double part, double scale) {
    const __m256d x = _mm256_mul_pd(_mm256_loadu_pd(total), _mm256_set1_pd(part));
    return _mm256_cvtpd_epi32(_mm256_mul_pd(_mm256_sub_pd(x, _mm256_loadu_pd(mean)), _mm256_set1_pd(scale)));
}
REPRUNE_TARGET inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
REPRUNE_TARGET inline std::uint32_t below(F x, F limit) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_LE_OQ)));
}
#include "simd/scan_x86.inc"
}  // namespace avx2

namespace avx512 {
#define REPRUNE_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi,popcnt")))
#define REPRUNE_WIDTH 16
using F = __m512;
using I = __m512i;
REPRUNE_TARGET inline F load(const void* p) { return _mm512_loadu_ps(p); }
REPRUNE_TARGET inline I loadi(const void* p) { return _mm512_loadu_si512(p); }
REPRUNE_TARGET inline I seti(std::int32_t x) { return _mm512_set1_epi32(x); }
REPRUNE_TARGET inline F set(float x) { return _mm512_set1_ps(x); }
REPRUNE_TARGET inline I minus2(I x) { return _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_add_epi16(x, x)); }
REPRUNE_TARGET inline I dot(I sum, I x, I y) { return _mm512_dpwssd_epi32(sum, x, y); }
REPRUNE_TARGET inline I addi(I x, I y) { return _mm512_add_epi32(x, y); }
REPRUNE_TARGET inline F number(I x) { return _mm512_cvtepi32_ps(x); }
REPRUNE_TARGET inline F add(F x, F y) { return _mm512_add_ps(x, y); }
REPRUNE_TARGET inline F sub(F x, F y) { return _mm512_sub_ps(x, y); }
REPRUNE_TARGET inline F mul(F x, F y) { return _mm512_mul_ps(x, y); }
REPRUNE_TARGET inline F square_add(F x, F sum) { return _mm512_fmadd_ps(x, x, sum); }
REPRUNE_TARGET inline F reciprocal(F x) { return _mm512_rcp14_ps(x); }
REPRUNE_TARGET inline I bits(F x) { return _mm512_castps_si512(x); }
REPRUNE_TARGET inline I least(I x, I y) { return _mm512_min_epu32(x, y); }
REPRUNE_TARGET inline I most(I x, I y) { return _mm512_max_epu32(x, y); }
REPRUNE_TARGET inline I tag(I key, I mask, I lane) {  // key & ~mask | lane
    return _mm512_ternarylogic_epi32(key, mask, lane, 0xBA);
}
REPRUNE_TARGET inline std::uint32_t above(I x, I y) { return _mm512_cmpgt_epi32_mask(x, y); }
REPRUNE_TARGET inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
REPRUNE_TARGET inline std::uint32_t below(F x, F limit) { return _mm512_cmp_ps_mask(x, limit, _CMP_LE_OQ); }
#include "simd/scan_x86.inc"
}  // namespace avx512

namespace sse2 {
#define REPRUNE_TARGET
#define REPRUNE_WIDTH 4
using F = __m128;
using I = __m128i;
inline F load(const void* p) { return _mm_loadu_ps(static_cast<const float*>(p)); }
inline I loadi(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline I seti(std::int32_t x) { return _mm_set1_epi32(x); }
inline F set(float x) { return _mm_set1_ps(x); }
inline I minus2(I x) { return _mm_sub_epi16(_mm_setzero_si128(), _mm_add_epi16(x, x)); }
inline I dot(I sum, I x, I y) { return _mm_add_epi32(sum, _mm_madd_epi16(x, y)); }
inline I addi(I x, I y) { return _mm_add_epi32(x, y); }
inline F number(I x) { return _mm_cvtepi32_ps(x); }
inline F add(F x, F y) { return _mm_add_ps(x, y); }
inline F sub(F x, F y) { return _mm_sub_ps(x, y); }
inline F mul(F x, F y) { return _mm_mul_ps(x, y); }
inline F square_add(F x, F sum) { return _mm_add_ps(_mm_mul_ps(x, x), sum); }
inline F reciprocal(F x) { return _mm_rcp_ps(x); }
inline I count_bytes(I sum, I x, I y) { return _mm_sub_epi8(sum, _mm_cmpeq_epi8(x, y)); }
inline std::int32_t sum_bytes(I x) {
    const I s = _mm_sad_epu8(x, _mm_setzero_si128());
    return _mm_cvtsi128_si32(s) + _mm_cvtsi128_si32(_mm_unpackhi_epi64(s, s));
}
inline I bits(F x) { return _mm_castps_si128(x); }
inline I least(I x, I y) { return _mm_castps_si128(_mm_min_ps(_mm_castsi128_ps(x), _mm_castsi128_ps(y))); }
inline I most(I x, I y) { return _mm_castps_si128(_mm_max_ps(_mm_castsi128_ps(x), _mm_castsi128_ps(y))); }
inline I hide(I code, I lane, I own) {  // numbers are compared; the code is the lane alone, its key being 0
    return _mm_or_si128(code, _mm_and_si128(_mm_cmpeq_epi32(lane, own), bits(set(3e38F))));
}
inline I tag(I key, I mask, I lane) { return _mm_or_si128(_mm_andnot_si128(mask, key), lane); }
template <int N>
inline I swap(I x) {
    return _mm_shuffle_epi32(x, N == 2 ? 0x4E : 0xB1);
}
inline std::int32_t first(I x) { return _mm_cvtsi128_si32(x); }
inline std::uint32_t above(I x, I y) {
    return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(x, y))));
}
inline I square_difference(I x, I y) {
    const I difference = _mm_sub_epi16(x, y);
    return _mm_madd_epi16(difference, difference);
}
inline std::int32_t sum_words(I x) {
    const I s = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}
using D = __m128d;
inline D loadd(const double* p) { return _mm_loadu_pd(p); }
inline D setd(double x) { return _mm_set1_pd(x); }
inline D addd(D x, D y) { return _mm_add_pd(x, y); }
inline D subd(D x, D y) { return _mm_sub_pd(x, y); }
inline D muld(D x, D y) { return _mm_mul_pd(x, y); }
inline void stored(double* p, D x) { _mm_storeu_pd(p, x); }
inline D head(D x, std::int32_t n) {  // n numbers of x, then zeros
    return n >= 2 ? x : n == 1 ? _mm_move_sd(_mm_setzero_pd(), x) : _mm_setzero_pd();
}
inline double sumd(D x) { return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x))); }
inline I hash(I sum, D x, I odd) {
    const I word = _mm_castpd_si128(x);
    return _mm_add_epi64(sum, _mm_mul_epu32(_mm_xor_si128(word, _mm_srli_epi64(word, 32)), odd));
}
inline std::uint64_t sum_long(I x) {
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(x, _mm_unpackhi_epi64(x, x))));
}
inline I odds() { return _mm_set_epi64x(odd + 2, odd); }
inline __m128i two(const double* total, const double* mean, double part, double scale) {
    const __m128d x = _mm_mul_pd(_mm_loadu_pd(total), _mm_set1_pd(part));
    return _mm_cvtpd_epi32(_mm_mul_pd(_mm_sub_pd(x, _mm_loadu_pd(mean)), _mm_set1_pd(scale)));
}
inline __m128i four(const double* total, const double* mean, double part, double scale) {
    return _mm_unpacklo_epi64(two(total, mean, part, scale), two(total + 2, mean + 2, part, scale));
}
inline void store(float* p, F x) { _mm_storeu_ps(p, x); }
inline std::uint32_t below(F x, F limit) { return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_cmple_ps(x, limit))); }
#include "simd/scan_x86.inc"
}  // namespace sse2

const Scanner scanners[3] = {
    {"avx512", 6.2e-5F, avx512::fixed, avx512::floating, avx512::within, avx512::indices, avx2::squares,
     avx2::quantise, avx2::adopt, avx2::extent, avx512::gather, avx2::subtract_equal, &avx512_line},
    {"avx2", 3.7e-4F, avx2::fixed, avx2::floating, avx2::within, avx2::indices, avx2::squares,
     avx2::quantise, avx2::adopt, avx2::extent, avx2::gather, avx2::subtract_equal, &plain_line},
    {"sse2", 3.7e-4F, sse2::fixed, sse2::floating, sse2::within, sse2::indices, sse2::squares,
     sse2::quantise, sse2::adopt, sse2::extent, sse2::gather, sse2::subtract_equal, &plain_line},
};

}  // namespace

const Scanner* x86_scanner(int rank) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("popcnt");
    const bool can[3] = {avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512vnni"),
                         avx2, true};
    return can[rank] ? &scanners[rank] : nullptr;
}

}  // namespace reprune

#else

namespace reprune {
const Scanner* x86_scanner(int) { return nullptr; }
}  // namespace reprune

#endif
