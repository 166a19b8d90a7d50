// Uninitialised memory for large tables, in huge pages where the system has them: a column of a matrix of n >= 1,000 rows
// touches as many pages, more than the TLB holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace reprune {

template <class T>
class HugePageBuffer {
  public:
    explicit HugePageBuffer(std::size_t count) {
        const std::size_t page = std::size_t{1} << 21, bytes = count * sizeof(T);
        const bool large = bytes >= 2 * page;
        memory_ = std::malloc(bytes + (large ? page : 64));
        if (memory_ == nullptr) throw std::bad_alloc();
        const std::size_t unit = large ? page : 64;
        begin_ = reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(memory_) + unit - 1) / unit * unit);
#if defined(__linux__)
        if (large) madvise(begin_, bytes / page * page, MADV_HUGEPAGE);  // advice: no matter if it is not taken
#endif
    }
    ~HugePageBuffer() { std::free(memory_); }
    HugePageBuffer(const HugePageBuffer&) = delete;
    HugePageBuffer& operator=(const HugePageBuffer&) = delete;

    T* data() { return begin_; }

  private:
    void* memory_;
    T* begin_;
};

}  // namespace reprune
