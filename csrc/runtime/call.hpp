// A call of the core, which can end early: by the first exception of any of its threads, or because its caller was
// interrupted, as by Ctrl-C. Long loops call poll() regularly.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

namespace reprune {

class Call;

struct Listener {  // a thread and the call it works for
    Call* call = nullptr;
    bool own = false;       // the call was made on this thread
    int depth = 0;          // calls made on this thread that have not returned: a call's `ask` may make another
    std::int64_t left = 0;  // work until the next poll
};
inline thread_local Listener listener;

struct CallEnded {};  // what poll() throws once the call has ended

class Call {
  public:
    static constexpr std::chrono::milliseconds period{100};

    // `ask`, if any, is called every 100 ms or so, on this thread; what it throws ends the call.
    explicit Call(std::function<void()> ask = nullptr);
    ~Call() { listener = before_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    void run(const std::function<void()>& work);  // throws what ended the call first
    void end(std::exception_ptr why) noexcept;    // on any thread
    void throw_if_ended() const;                  // throws CallEnded

    bool asks() const { return listener.own && ask_; }  // on this thread
    void ask() noexcept;                                // if it is time to; only where asks()

  private:
    bool orphaned() const;

    std::function<void()> ask_;
    std::chrono::steady_clock::time_point due_;
    std::atomic<bool> claimed_{false}, ended_{false};
    std::exception_ptr why_;  // of the thread that claimed it; then the call has ended
    unsigned forks_;
    Listener before_;
};

// Forks between this process and the one that loaded the core. A child has but the thread that forked, and whatever the others
// held is held for ever: what was locked, queued or half done before is not looked at again.
unsigned forks();

// Is there memory for what is local to a thread? It comes when first touched, and where there is none glibc ends the process.
bool room_for_locals();

void poll_now();

// Throws CallEnded once the call that this thread works for has ended. work: what was done since the last poll, about 1 ns
// each.
inline void poll(std::int64_t work) {
    if ((listener.left -= work) < 0) poll_now();
}

// The same for loops of a few instructions, which say so every time.
class Ticks {
  public:
    void operator()() {
        if (--left_ > 0) return;
        left_ = many;
        poll(2 * many);
    }

  private:
    static constexpr std::int64_t many = 1 << 16;
    std::int64_t left_ = many;
};

// A T that this thread keeps from one problem to the next. A call within another has one of its own.
template <class T>
T& kept() {
    thread_local std::vector<std::unique_ptr<T>> by_depth;
    const auto depth = static_cast<std::size_t>(listener.depth);
    while (by_depth.size() <= depth) by_depth.push_back(std::make_unique<T>());
    return *by_depth[depth];
}

}  // namespace reprune
