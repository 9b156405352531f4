// What the C++ files of ranks share: the connections, and whose failure an exception is.
#pragma once
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "border.h"

namespace ranks {

using border::List;
using c10d::ProcessGroup;
using Clock = std::chrono::steady_clock;

// Gloo whose connections can be closed while other threads wait on them.
class Mesh : public c10d::ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;
  void cut() {
    for (auto& context : contexts_) context->closeConnections();
  }
};
using MeshRef = c10::intrusive_ptr<Mesh>;

// What collectives leave behind whose callers cannot be told: some lie inside of a backward.
struct Account {
  // Whether one inside of a backward failed because of another rank; whoever ran that backward asks.
  std::atomic<bool> lost{false};
  // How long the host has waited for other ranks in steps, nanoseconds.
  std::atomic<int64_t> waited{0};

  void wait(c10d::Work& work) {
    const auto since = Clock::now();
    work.wait();
    waited += std::chrono::nanoseconds(Clock::now() - since).count();
  }
};

struct Links {
  int rank, size;
  MeshRef control;
  // For tensors: one backend for each kind of device.
  c10::intrusive_ptr<ProcessGroup> data;
  c10::intrusive_ptr<c10d::Backend> nccl;
  std::vector<MeshRef> meshes;
  std::shared_ptr<Account> account = std::make_shared<Account>();

  void cut() {
    for (auto& mesh : meshes) mesh->cut();
    if (nccl) nccl->abort();
  }
};

// Whether an exception came from the connections. Gloo throws plain exceptions, NCCL and the store throw DistError; any other error of libtorch, and a
// lack of memory, is this rank's own.
inline bool of_a_peer(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const c10::DistError&) {
    return true;
  } catch (const c10::Error&) {
    return false;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (...) {
    return true;
  }
}

// Runs what waits for other ranks; *peer: whether it failed because of one.
template <class F>
void among_peers(int* peer, F f) {
  try {
    f();
  } catch (...) {
    *peer = of_a_peer(std::current_exception()) ? 1 : 0;
    throw;
  }
}

}  // namespace ranks
