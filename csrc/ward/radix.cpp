#include "ward/radix.hpp"

#include <array>
#include <cstring>
#include <utility>

#include "runtime/call.hpp"
#include "runtime/numbers.hpp"

namespace reprune {
namespace {

constexpr int bits = 8, digits = 64 / bits, radix = 1 << bits;

// Unsigned numbers in the order of the values: all bits of a negative one are turned, else that of the sign.
std::uint64_t key_of(double x) {
    x += 0.0;  // -0 equals 0
    std::uint64_t word = 0;
    std::memcpy(&word, &x, sizeof word);
    const std::uint64_t negative = word >> 63, sign = std::uint64_t{1} << 63;
    return word ^ ((0 - negative) | sign);
}

std::size_t digit_of(std::uint64_t key, int k) { return (key >> (bits * k)) & (radix - 1); }

}  // namespace

// From the last digit to the first, but for those that are all the same: of what was float32 the last three are.
void RadixSort::run(const double* values, std::int32_t n, std::int32_t* order) {
    items_.resize(at(n));
    moved_.resize(at(n));
    std::array<std::array<std::int32_t, radix>, digits> counts{};
    for (std::int32_t i = 0; i < n; ++i) {
        const std::uint64_t key = key_of(values[i]);
        items_[at(i)] = {key, i};
        for (int k = 0; k < digits; ++k) ++counts[at(k)][digit_of(key, k)];
    }
    for (int k = 0; k < digits; ++k) {
        auto& count = counts[at(k)];
        if (count[digit_of(items_[0].key, k)] == n) continue;
        poll(8LL * n);
        std::int32_t start = 0;
        for (std::int32_t& c : count) start += std::exchange(c, start);
        for (const Item& item : items_) moved_[at(count[digit_of(item.key, k)]++)] = item;
        items_.swap(moved_);
    }
    for (std::int32_t i = 0; i < n; ++i) order[i] = items_[at(i)].place;
}

}  // namespace reprune
