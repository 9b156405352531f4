// Gradients averaged over the ranks while backward runs: c10d's Reducer, driven from Rust (src/ranks/reducer.rs).
#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>

#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "ranks.h"

namespace {

using border::guarded;
using border::list;
using namespace ranks;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// What the reducer did in the last backward that synchronised.
struct Traffic {
  std::mutex lock;
  Clock::time_point start;
  uint64_t buckets = 0, bytes = 0;
  double first = 0, last = 0, whole = 0;
  // Whether one of its messages failed because of another rank.
  int peer = 0;

  template <class F>
  auto noting(F f) {
    try {
      return f();
    } catch (...) {
      const std::lock_guard<std::mutex> guard(lock);
      if (of_a_peer(std::current_exception())) peer = 1;
      throw;
    }
  }
};

// Means over the ranks, as the reducer's own rule makes them, with a look at when buckets leave and whether a peer failed.
class MeanHook : public c10d::CommHookInterface {
 public:
  MeanHook(c10::intrusive_ptr<ProcessGroup> group, std::shared_ptr<Traffic> traffic) : group(std::move(group)), traffic(std::move(traffic)) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    auto& buffer = bucket.getBufferRef();
    {
      const std::lock_guard<std::mutex> guard(traffic->lock);
      traffic->last = seconds(Clock::now() - traffic->start);
      if (traffic->buckets++ == 0) traffic->first = traffic->last;
      traffic->bytes += buffer.nbytes();
    }
    buffer.div_(group->getSize());
    List one{buffer};
    // Backward waits for the answer of `then`, which exists only after the failure has been noted. A callback on the work's own future runs when
    // whoever waits for that future has been woken already, and backward may end before it.
    const auto future = traffic->noting([&] { return group->allreduce(one)->getFuture(); });
    return future->then([t = traffic](c10::ivalue::Future& f) { return t->noting([&] { return f.value(); }); }, c10::ListType::ofTensors());
  }

  at::Tensor parseHookResult(const c10::IValue& result) override { return c10d::detail::parseCppCommHookResult(result); }

 private:
  c10::intrusive_ptr<ProcessGroup> group;
  std::shared_ptr<Traffic> traffic;
};

constexpr int64_t kFirstBucket = int64_t{1} << 20;

class Reducer : public c10d::Reducer {
 public:
  Reducer(const c10::intrusive_ptr<ProcessGroup>& group, List params, std::vector<std::vector<size_t>> buckets, int64_t cap,
          std::unordered_map<size_t, std::string> names, std::shared_ptr<Traffic> traffic, std::shared_ptr<Account> account)
      : c10d::Reducer(params, std::move(buckets), group, std::vector<bool>(params.size(), false), cap, /*find_unused_parameters=*/false,
                      /*gradient_as_bucket_view=*/true, std::move(names), std::min(cap, kFirstBucket),
                      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/{}),
        traffic(std::move(traffic)),
        account(std::move(account)) {}

  // The next backward synchronises. Forgets which gradients were there.
  void expect() {
    std::fill(backward_stats_.begin(), backward_stats_.end(), int64_t{-1});
    prepare_for_backward({});
  }
  // Parameters that the last synchronising backward gave no gradient, if it did not come to its end.
  std::vector<size_t> missing() const {
    std::vector<size_t> out;
    for (size_t i = 0; require_finalize_ && i < backward_stats_.size(); ++i)
      if (backward_stats_[i] < 0) out.push_back(i);
    return out;
  }

  const std::shared_ptr<Traffic> traffic;
  const std::shared_ptr<Account> account;
};

}  // namespace

extern "C" {

struct TrTraffic {
  uint64_t buckets, bytes;
  double first, last, whole;
};

char* tr_reducer_new(Links* links, at::Tensor** params, const char* const* names, size_t n, int64_t cap, Reducer** out) {
  return guarded([&] {
    const auto all = list(params, n);
    std::unordered_map<size_t, std::string> called;
    for (size_t i = 0; i < n; ++i) called[i] = names[i];
    // Buckets in the reverse order, as gradients come; put right after the first backward.
    auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(all, {static_cast<size_t>(std::min(cap, kFirstBucket)), static_cast<size_t>(cap)},
                                                                     std::vector<bool>(n, false));
    std::reverse(buckets.begin(), buckets.end());
    auto traffic = std::make_shared<Traffic>();
    auto reducer = std::make_unique<Reducer>(links->data, all, std::move(buckets), cap, std::move(called), traffic,
                                             links->account);
    reducer->register_comm_hook(std::make_unique<MeanHook>(links->data, traffic));
    *out = reducer.release();
  });
}

void tr_reducer_free(Reducer* r) {
  free(guarded([&] { delete r; }));
}

// Before the first forward of a step. After the first step the buckets are made anew, in the order in which gradients came at rank 0.
char* tr_reducer_begin(Reducer* r, int* peer) {
  return guarded([&] {
    among_peers(peer, [&] {
      if (r->should_rebuild_buckets()) r->rebuild_buckets();
    });
    r->prepare_for_forward();
  });
}

// Before the backward that synchronises.
char* tr_reducer_expect(Reducer* r) {
  return guarded([&] {
    r->expect();
    const std::lock_guard<std::mutex> guard(r->traffic->lock);
    r->traffic->peer = 0;
    r->traffic->buckets = r->traffic->bytes = 0;
    r->traffic->first = r->traffic->last = r->traffic->whole = 0;
    r->traffic->start = Clock::now();
  });
}

// Behind it: since the last bucket left, this rank has only waited. *peer: whether a collective failed. `missing` (room for n): parameters without a gradient, *count of them.
void tr_reducer_done(Reducer* r, int* peer, size_t* missing, size_t n, size_t* count, TrTraffic* out) {
  *count = 0;
  free(guarded([&] {
    for (const auto i : r->missing())
      if (*count < n) missing[(*count)++] = i;
  }));
  auto& t = *r->traffic;
  const std::lock_guard<std::mutex> guard(t.lock);
  *peer = t.peer != 0 || r->account->lost ? 1 : 0;
  t.whole = seconds(Clock::now() - t.start);
  if (t.buckets > 0) r->account->waited += static_cast<int64_t>((t.whole - t.last) * 1e9);
  *out = {t.buckets, t.bytes, t.first, t.last, t.whole};
}
}
