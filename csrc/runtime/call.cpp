#include "runtime/call.hpp"

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <utility>
#ifndef _WIN32
#include <pthread.h>
#endif

namespace reprune {
namespace {

constexpr std::int64_t between = 1 << 20;  // of work, from one poll to the next

std::atomic<unsigned> fork_count{0};

#ifndef _WIN32
// The handler only counts: one that took locks before a fork would wait for the threads that hold them.
[[maybe_unused]] const int counting = pthread_atfork(nullptr, nullptr, [] { ++fork_count; });
#endif

}  // namespace

unsigned forks() { return fork_count.load(std::memory_order_relaxed); }

bool room_for_locals() {
    void* volatile memory = std::malloc(1 << 14);  // they take a few hundred bytes
    std::free(memory);
    return memory != nullptr;
}

Call::Call(std::function<void()> ask)
    : ask_(std::move(ask)), due_(std::chrono::steady_clock::now() + period), forks_(forks()) {
    if (!room_for_locals()) throw std::bad_alloc();
    before_ = listener;
    listener = {this, true, before_.depth + 1, between};
}

void Call::run(const std::function<void()>& work) {
    try {
        work();
    } catch (const CallEnded&) {
    } catch (...) {
        end(std::current_exception());
    }
    if (ended_.load(std::memory_order_acquire)) std::rethrow_exception(why_);
    if (orphaned())
        throw std::runtime_error("this process was forked in the middle of a call, by a signal handler or by `progress`; the "
                                 "threads that worked on the call are not in the child, where it cannot go on");
}

void Call::end(std::exception_ptr why) noexcept {
    if (claimed_.exchange(true)) return;
    why_ = std::move(why);
    ended_.store(true, std::memory_order_release);
}

bool Call::orphaned() const { return forks_ != forks(); }

void Call::throw_if_ended() const {
    if (ended_.load(std::memory_order_relaxed) || orphaned()) throw CallEnded();
}

void Call::ask() noexcept {
    if (std::chrono::steady_clock::now() < due_) return;
    try {
        ask_();
    } catch (...) {
        end(std::current_exception());
    }
    due_ = std::chrono::steady_clock::now() + period;
}

void poll_now() {
    listener.left = between;
    Call* const call = listener.call;
    if (call == nullptr) return;
    if (call->asks()) call->ask();
    call->throw_if_ended();
}

}  // namespace reprune
