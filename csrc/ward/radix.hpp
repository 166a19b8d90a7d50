// Numbers in order, whatever their distribution: for those that one pass by their size leaves far out of order.
#pragma once

#include <cstdint>
#include <vector>

namespace reprune {

class RadixSort {  // memory is kept from one problem to the next
  public:
    // order [n]: the numbers' places by value, equal ones by place. n >= 1, no NaN.
    void run(const double* values, std::int32_t n, std::int32_t* order);

  private:
    struct Item {
        std::uint64_t key;
        std::int32_t place;
    };
    std::vector<Item> items_, moved_;
};

}  // namespace reprune
