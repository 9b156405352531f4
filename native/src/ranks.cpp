// Several processes that train one model: PyTorch's c10d, driven from Rust (src/ranks). Handles are objects that the caller owns and frees.
// What waits for other ranks tells by *peer whether it failed because of one.
#include <unistd.h>

#include <algorithm>
#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupWrapper.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include "ranks.h"

namespace {

using border::guarded;
using border::list;
using namespace ranks;
using StoreRef = c10::intrusive_ptr<c10d::Store>;
using WorkRef = c10::intrusive_ptr<c10d::Work>;
// Made by nccl.cpp, which is loaded at run time.
using MakeNccl = char* (*)(c10d::Store* store, int rank, int size, double timeout_s, c10d::Backend** out);

constexpr size_t kBroadcastBytes = size_t{250} << 20;
// While the ranks connect to each other, which they do at once or not at all.
constexpr std::chrono::seconds kConnect(60);

std::chrono::milliseconds milliseconds(double s) { return std::chrono::milliseconds(static_cast<int64_t>(s * 1e3)); }

// The devices of gloo: each of the interfaces named, or the one address.
std::vector<std::shared_ptr<gloo::transport::Device>> devices(const char* const* interfaces, size_t n, const char* address) {
  std::vector<std::shared_ptr<gloo::transport::Device>> out;
  for (size_t i = 0; i < n; ++i) out.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interfaces[i]));
  if (n == 0) out.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
  return out;
}

MeshRef mesh(const StoreRef& store, const char* name, const Links& links, const std::vector<std::shared_ptr<gloo::transport::Device>>& on,
             int threads, double timeout_s) {
  const auto options = c10d::ProcessGroupGloo::Options::create(kConnect);
  options->devices = on;
  options->threads = threads;
  auto made = c10::make_intrusive<Mesh>(c10::make_intrusive<c10d::PrefixStore>(name, store), links.rank, links.size, options);
  made->setSequenceNumberForGroup();
  made->setTimeout(milliseconds(timeout_s));
  return made;
}

struct Tick {
  at::Tensor word;
  WorkRef work;
};

bool same_kind(const at::Tensor& a, const at::Tensor& b) { return a.scalar_type() == b.scalar_type() && a.device() == b.device(); }

// Bits as whole numbers of the same size.
at::ScalarType bits(const at::Tensor& t) {
  switch (t.element_size()) {
    case 1: return at::kByte;
    case 2: return at::kShort;
    case 4: return at::kInt;
    default: return at::kLong;
  }
}

}  // namespace

extern "C" {

// What all_reduce does with a tensor.
enum TrReduce { kSum = 0, kMean = 1, kMax = 2 };

[[noreturn]] void tr_exit(int code) { _exit(code); }

char* tr_host_name() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0) return nullptr;
  return border::message(name);
}

// A client of the store at host:port; with `listener` ≥ 0 the server too, which takes that listening socket over.
char* tr_store_open(const char* host, uint16_t port, int listener, double timeout_s, c10d::Store** out) {
  return guarded([&] {
    c10d::TCPStoreOptions o;
    o.port = port;
    o.waitWorkers = false;
    o.timeout = milliseconds(timeout_s);
    if (listener >= 0) {
      o.isServer = true;
      o.masterListenFd = listener;
    }
    auto store = c10::make_intrusive<c10d::TCPStore>(host, o);
    store->setTimeout(o.timeout);
    *out = StoreRef(std::move(store)).release();
  });
}

// The same store, with `prefix` before every key.
char* tr_store_prefixed(c10d::Store* store, const char* prefix, c10d::Store** out) {
  return guarded([&] {
    *out = StoreRef(c10::make_intrusive<c10d::PrefixStore>(prefix, StoreRef::unsafe_reclaim_from_nonowning(store))).release();
  });
}

void tr_store_free(c10d::Store* store) {
  // A store whose server is gone may throw; nobody can be told.
  free(guarded([&] { StoreRef::reclaim(store).reset(); }));
}

char* tr_store_set(c10d::Store* store, const char* key, const char* value, size_t n) {
  return guarded([&] { store->set(key, std::vector<uint8_t>(value, value + n)); });
}

char* tr_store_append(c10d::Store* store, const char* key, const char* value, size_t n) {
  return guarded([&] { store->append(key, std::vector<uint8_t>(value, value + n)); });
}

// *value is malloc'ed, or null where there is no such key: this does not wait for one.
char* tr_store_get(c10d::Store* store, const char* key, char** value, size_t* n) {
  return guarded([&] {
    *value = nullptr;
    if (!store->check({key})) return;
    const auto found = store->get(key);
    *n = found.size();
    *value = static_cast<char*>(malloc(std::max<size_t>(found.size(), 1)));
    if (*value == nullptr) throw std::bad_alloc();
    std::copy(found.begin(), found.end(), *value);
  });
}

// Adds to a number in the store, which begins at 0, and answers the sum.
char* tr_store_add(c10d::Store* store, const char* key, int64_t by, int64_t* sum) {
  return guarded([&] { *sum = store->add(key, by); });
}

// Connects all ranks. Every rank calls this with the same store. `cuda`: 0 without, 1 by gloo, 2 by NCCL, whose maker is `nccl` then.
char* tr_links_open(c10d::Store* s, int rank, int size, const char* const* interfaces, size_t n, const char* address, double step_s,
                    double control_s, int checked, int cuda, MakeNccl nccl, Links** out, int* peer) {
  return guarded([&] {
    const auto store = StoreRef::unsafe_reclaim_from_nonowning(s);
    auto links = std::make_unique<Links>();
    links->rank = rank;
    links->size = size;
    const auto on = devices(interfaces, n, address);
    c10::intrusive_ptr<c10d::Backend> cpu;
    among_peers(peer, [&] {
      links->control = mesh(store, "control", *links, on, 1, control_s);
      links->meshes.push_back(links->control);
      const auto plain = mesh(store, "data", *links, on, 2, step_s);
      links->meshes.push_back(plain);
      cpu = plain;
      if (checked) {
        const auto helper = mesh(store, "checked", *links, on, 1, step_s);
        links->meshes.push_back(helper);
        cpu = c10::make_intrusive<c10d::ProcessGroupWrapper>(cpu, helper);
      }
    });
    links->data = c10::make_intrusive<ProcessGroup>(c10::make_intrusive<c10d::PrefixStore>("group", store), rank, size);
    links->data->setBackend(c10::kCPU, ProcessGroup::BackendType::GLOO, cpu);
    links->data->setDefaultBackend(ProcessGroup::BackendType::GLOO);
    if (cuda == 1) links->data->setBackend(c10::kCUDA, ProcessGroup::BackendType::GLOO, cpu);
    if (cuda == 2) {
      c10d::Backend* made = nullptr;
      const StoreRef own = c10::make_intrusive<c10d::PrefixStore>("nccl", store);
      if (char* text = nccl(own.get(), rank, size, step_s, &made)) {
        const std::string copy(text);
        free(text);
        throw std::runtime_error(copy);
      }
      links->nccl = c10::intrusive_ptr<c10d::Backend>::reclaim(made);
      links->data->setBackend(c10::kCUDA, ProcessGroup::BackendType::NCCL, links->nccl);
    }
    links->data->setGroupName("ranks");
    *out = links.release();
  });
}

// Closes all connections: whatever waits on them, here and in the other ranks, fails at once. Other threads may be in calls.
void tr_links_cut(Links* links) {
  free(guarded([&] { links->cut(); }));
}

// How long this host has waited for other ranks in steps, nanoseconds.
int64_t tr_waited(Links* links) { return links->account->waited; }

void tr_links_free(Links* links) {
  free(guarded([&] { delete links; }));
}

// Sends the word, of the same length on every rank. Only CPU and network are touched.
char* tr_tick_begin(Links* links, const int64_t* word, size_t n, Tick** out, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    auto tick = std::make_unique<Tick>();
    tick->word = at::zeros({static_cast<int64_t>(n)}, at::kLong);
    std::copy(word, word + n, tick->word.mutable_data_ptr<int64_t>());
    c10d::AllreduceOptions o;
    o.reduceOp = c10d::ReduceOp::MAX;
    List one{tick->word};
    among_peers(peer, [&] { tick->work = links->control->allreduce(one, o); });
    *out = tick.release();
  });
}

int tr_tick_ready(Tick* tick) { return tick->work->isCompleted() ? 1 : 0; }

// Waits for the largest of each number.
char* tr_tick_finish(Tick* tick, int64_t* word, size_t n, int* peer) {
  return guarded([&] {
    among_peers(peer, [&] { tick->work->wait(); });
    const auto* from = tick->word.const_data_ptr<int64_t>();
    std::copy(from, from + n, word);
  });
}

void tr_tick_free(Tick* tick) {
  free(guarded([&] { delete tick; }));
}

// Each tensor becomes its sum, mean or largest over the ranks, in place; one message for those of one kind.
char* tr_all_reduce(Links* links, at::Tensor** tensors, const int* how, size_t n, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    struct Message {
      std::vector<size_t> members;
      at::Tensor flat;
      WorkRef work;
    };
    const auto all = list(tensors, n);
    std::vector<Message> messages;
    for (size_t i = 0; i < n; ++i) {
      const auto fits = [&](const Message& m) { return same_kind(all[m.members[0]], all[i]) && (how[m.members[0]] == kMax) == (how[i] == kMax); };
      auto at = std::find_if(messages.begin(), messages.end(), fits);
      if (at == messages.end()) at = messages.insert(at, Message{});
      at->members.push_back(i);
    }
    for (auto& m : messages) {
      List parts;
      for (const auto i : m.members) parts.push_back(all[i].detach().reshape({-1}));
      m.flat = at::cat(parts);
      c10d::AllreduceOptions o;
      o.reduceOp = how[m.members[0]] == kMax ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
      List one{m.flat};
      among_peers(peer, [&] { m.work = links->data->allreduce(one, o); });
    }
    for (auto& m : messages) among_peers(peer, [&] { links->account->wait(*m.work); });
    for (auto& m : messages) {
      int64_t start = 0;
      for (const auto i : m.members) {
        auto part = m.flat.narrow(0, start, all[i].numel());
        start += all[i].numel();
        if (how[i] == kMean) part.div_(links->size);
        all[i].detach().copy_(part.view(all[i].sizes()));
      }
    }
  });
}

// *out = new tensor W×…: everybody's x, in the order of ranks. x has the same shape everywhere. Over the hosts' own connections if `control`.
char* tr_all_gather(Links* links, at::Tensor* x, int control, at::Tensor** out, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    auto in = x->detach().contiguous().view({-1});
    auto all = at::empty({links->size * in.numel()}, in.options());
    among_peers(peer, [&] {
      if (control) links->control->_allgather_base(all, in)->wait();
      else links->account->wait(*links->data->_allgather_base(all, in));
    });
    auto shape = x->sizes().vec();
    shape.insert(shape.begin(), links->size);
    *out = new at::Tensor(all.view(shape));
  });
}

// *out = new tensor W×…: everybody's x, in the order of ranks, on rank 0; null elsewhere. x is on the CPU and has the same shape everywhere.
char* tr_bring(Links* links, at::Tensor* x, at::Tensor** out, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    List own{x->detach().contiguous()};
    std::vector<List> all;
    if (links->rank == 0) {
      all.emplace_back();
      for (int i = 0; i < links->size; ++i) all[0].push_back(at::empty_like(own[0]));
    }
    among_peers(peer, [&] {
      c10d::GatherOptions o;
      o.rootRank = 0;
      links->data->gather(all, own, o)->wait();
    });
    *out = links->rank == 0 ? new at::Tensor(at::stack(all[0])) : nullptr;
  });
}

// *out = new tensor like x: what rank `with` sends, which gets x. Both call it, with tensors of one shape and kind.
char* tr_exchange(Links* links, at::Tensor* x, int with, at::Tensor** out, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    List own{x->detach().contiguous()};
    List theirs{at::empty_like(own[0])};
    among_peers(peer, [&] {
      WorkRef send, receive;
      // NCCL takes the two in the order of the calls, so one sends while the other receives.
      if (links->rank < with) send = links->data->send(own, with, 0);
      receive = links->data->recv(theirs, with, 0);
      if (links->rank > with) send = links->data->send(own, with, 0);
      links->account->wait(*send);
      links->account->wait(*receive);
    });
    *out = new at::Tensor(theirs[0]);
  });
}

// Rank 0's values everywhere, in place.
char* tr_broadcast(Links* links, at::Tensor** tensors, size_t n, int* peer) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    List to;
    for (const auto& t : list(tensors, n)) to.push_back(t.detach());
    among_peers(peer, [&] {
      if (n > 0) c10d::broadcast_coalesced(links->data, to, kBroadcastBytes, 0);
    });
  });
}

// *out = new i64 tensor n on the CPU: a checksum of the bits of each tensor.
char* tr_checksums(at::Tensor** tensors, size_t n, at::Tensor** out) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    List sums;
    for (const auto& t : list(tensors, n)) {
      // Whole numbers wrap around, so the order of the sum does not matter. The weights 1 to 127 tell where in the tensor a bit lies.
      const auto flat = t.detach().contiguous().view({-1}).view(bits(t)).to(at::kLong);
      const auto weights = at::arange(flat.numel(), flat.options()).remainder_(127).add_(1);
      sums.push_back(flat.mul(weights).sum());
    }
    *out = new at::Tensor(sums.empty() ? at::empty({0}, at::kLong) : at::stack(sums).to(at::kCPU));
  });
}
}
