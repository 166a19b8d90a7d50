#include "runtime/pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/call.hpp"

namespace reprune {
namespace {

struct Job {
    const std::function<void(std::int64_t)>& body;
    const std::int64_t items;
    Call& call;
    std::atomic<std::int64_t> next{0};
    std::mutex mutex{};
    std::condition_variable left{};
    int helpers = 0;  // workers inside run(); the caller waits for zero

    void run() noexcept {
        try {
            for (;;) {
                const std::int64_t item = next.fetch_add(1);
                if (item >= items) return;
                poll(500);  // of which there may be millions
                body(item);
            }
        } catch (const CallEnded&) {
        } catch (...) {
            call.end(std::current_exception());
        }
        next.store(items);  // no thread takes another item
    }
};

class Pool {
  public:
    const unsigned born = forks();

    void run(Job& job, int helpers) {
        offer(job, helpers);
        job.run();
        if (born != forks()) return;  // a child, and these are locks of its parent
        {
            const std::lock_guard<std::mutex> lock(mutex_);  // offers that no worker took are withdrawn
            waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), &job), waiting_.end());
        }
        std::unique_lock<std::mutex> lock(job.mutex);
        while (job.helpers > 0) {
            if (!job.call.asks()) {
                job.left.wait(lock);
                continue;
            }
            job.left.wait_for(lock, Call::period);
            lock.unlock();
            job.call.ask();
            if (born != forks()) return;
            lock.lock();
        }
    }

  private:
    void offer(Job& job, int helpers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            try {
                while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { work(); });
            } catch (const std::system_error&) {  // the system gives no more threads; the answer is the same with fewer
            }
            const auto offers = std::min(static_cast<std::size_t>(helpers), workers_.size());
            waiting_.insert(waiting_.end(), offers, &job);
        }
        wake_.notify_all();
    }

    void work() {
        if (!room_for_locals()) return;
        listener = {};  // the first touch
        for (;;) {
            Job* job = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [this] { return !waiting_.empty(); });
                job = waiting_.front();
                waiting_.pop_front();
                const std::lock_guard<std::mutex> joining(job->mutex);
                ++job->helpers;
            }
            listener.call = &job->call;
            job->run();
            const std::lock_guard<std::mutex> leaving(job->mutex);
            if (--job->helpers == 0) job->left.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job*> waiting_;
    std::vector<std::thread> workers_;
};

std::atomic<Pool*> shared{nullptr};

// Never destroyed: its threads sleep until the process ends. A forked child has no threads and starts a pool of its own.
Pool& pool() {
    Pool* now = shared.load();
    if (now != nullptr && now->born == forks()) return *now;
    auto made = std::make_unique<Pool>();
    if (shared.compare_exchange_strong(now, made.get())) return *made.release();
    return *now;  // another thread was first
}

}  // namespace

void parallel_for(std::int64_t items, int threads, const std::function<void(std::int64_t)>& body) {
    Job job{body, items, *listener.call};
    const std::int64_t helpers = std::min<std::int64_t>(threads, items) - 1;
    if (helpers > 0) {
        pool().run(job, static_cast<int>(helpers));
    } else {
        job.run();
    }
    job.call.throw_if_ended();
}

}  // namespace reprune
