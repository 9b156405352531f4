// One function: a ProcessGroupNCCL for ranks.cpp. A library of its own, because it needs symbols of libtorch_cuda, which programs without a GPU do not
// load. build.rs compiles it where NVIDIA's headers are; src/ranks/nccl.rs opens it.
#include <cstring>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

// *out = a backend that the caller owns. Collectives fail after timeout_s.
extern "C" char* tr_nccl_backend(c10d::Store* store, int rank, int size, double timeout_s, c10d::Backend** out) {
  try {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1e3));
    auto made = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(store), rank,
                                                           size, options);
    *out = c10::intrusive_ptr<c10d::Backend>(made).release();
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}
