// A persistent thread pool: a loop over independent items, shared out one item at a time.
#pragma once

#include <cstdint>
#include <functional>

namespace reprune {

// Calls body(item) for item in [0, items) on the calling thread and at most threads - 1 others, and returns when all are
// done. The first exception ends the call (call.hpp) that the calling thread works for, and with it all of its loops. Loops of
// several threads are interleaved item by item.
void parallel_for(std::int64_t items, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace reprune
