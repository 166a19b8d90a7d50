#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
#ifndef _WIN32
#include <unistd.h>
#endif

namespace reprune {
namespace {

struct Job {
    const std::function<void(std::int64_t)>* body;
    std::int64_t items;
    std::atomic<std::int64_t> next{0};
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable left;
    int helpers = 0;  // workers inside run(); the caller waits for zero

    void run() noexcept {
        for (;;) {
            const std::int64_t item = next.fetch_add(1);
            if (item >= items) return;
            try {
                (*body)(item);
            } catch (...) {
                next.store(items);  // nobody takes another item
                const std::lock_guard<std::mutex> lock(mutex);
                if (!error) error = std::current_exception();
            }
        }
    }
};

class Pool {
  public:
    void run(Job& job, int helpers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { work(); });
            for (int i = 0; i < helpers; ++i) waiting_.push_back(&job);
        }
        wake_.notify_all();
        job.run();
        {
            const std::lock_guard<std::mutex> lock(mutex_);  // offers that no worker took are withdrawn
            waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), &job), waiting_.end());
        }
        std::unique_lock<std::mutex> lock(job.mutex);
        job.left.wait(lock, [&] { return job.helpers == 0; });
    }

  private:
    void work() {
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

// Never destroyed: its threads sleep until the process ends. A forked child has no threads and starts a pool of its own.
Pool& pool() {
    static std::mutex mutex;
    static Pool* shared = nullptr;
#ifdef _WIN32
    const std::lock_guard<std::mutex> lock(mutex);
#else
    static pid_t owner = 0;
    const std::lock_guard<std::mutex> lock(mutex);
    if (owner != getpid()) {
        shared = nullptr;
        owner = getpid();
    }
#endif
    if (shared == nullptr) shared = new Pool;
    return *shared;
}

}  // namespace

void parallel_for(std::int64_t items, int threads, const std::function<void(std::int64_t)>& body) {
    Job job;
    job.body = &body;
    job.items = items;
    const std::int64_t helpers = std::min<std::int64_t>(threads, items) - 1;
    if (helpers > 0) {
        pool().run(job, static_cast<int>(helpers));
    } else {
        job.run();
    }
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace reprune
