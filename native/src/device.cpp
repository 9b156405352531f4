// What a device is told and asked beside operators: copies, a second stream, arithmetic, generators, memory; and how often libtorch is called.
#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/from_blob.h>
#include <ATen/record_function.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "border.h"

namespace {

using border::guarded;

at::Generator generator(int cuda_index) {
  if (cuda_index < 0) return at::detail::getDefaultCPUGenerator();
  return at::globalContext().defaultGenerator(at::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index)));
}

// The stream that was current, and the one that is beside it.
struct Aside {
  c10::Stream before;
  c10::Stream beside;
};

// Calls of libtorch's operators, and those of them for whose result a host waits on CUDA, since counting began.
std::atomic<int64_t> calls{0}, waits{0};

// Fused AdamW on a CPU reads the step of each weight as a number; on CUDA it does not.
thread_local int in_fused_adamw = 0;
struct InFusedAdamw : at::ObserverContext {};

std::unique_ptr<at::ObserverContext> count_call(const at::RecordFunction& call) {
  static constexpr std::string_view waited[] = {"aten::_local_scalar_dense", "aten::nonzero",    "aten::masked_select", "aten::equal",
                                                "aten::_unique2",            "aten::unique_dim", "aten::bincount"};
  const std::string_view name = call.name();
  calls++;
  if (!in_fused_adamw && std::find(std::begin(waited), std::end(waited), name) != std::end(waited)) waits++;
  if (name != "aten::_fused_adamw_") return nullptr;
  in_fused_adamw++;
  return std::make_unique<InFusedAdamw>();
}

void leave_call(const at::RecordFunction&, at::ObserverContext* context) {
  if (context) in_fused_adamw--;
}

}  // namespace

extern "C" {
// A copy of host memory on a device. To CUDA it goes through page-locked memory, so that the host does not wait for it: libtorch keeps that memory
// until the copy is done.
char* te_send(const void* data, int kind, const int64_t* shape, size_t dims, int cuda_index, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(!border::is_recording(), "values of the host cannot be sent within a recorded graph");
    const auto type = static_cast<at::ScalarType>(kind);
    const auto host = at::from_blob(const_cast<void*>(data), at::IntArrayRef(shape, dims), at::TensorOptions().dtype(type));
    if (cuda_index < 0) {
      *out = new at::Tensor(host.clone());
    } else {
      const at::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index));
      *out = new at::Tensor(host.pin_memory().to(device, type, /*non_blocking=*/true));
    }
  });
}

// Makes a second stream of a CUDA device current for this thread: one for each device, for the life of the process.
char* te_aside_enter(int cuda_index, Aside** out) {
  return guarded([&] {
    static std::mutex turn;
    static std::map<int, c10::Stream> streams;
    const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
    const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index));
    const std::lock_guard<std::mutex> lock(turn);
    auto found = streams.find(cuda_index);
    if (found == streams.end()) found = streams.emplace(cuda_index, cuda.getStreamFromGlobalPool(device, /*isHighPriority=*/false)).first;
    *out = new Aside{cuda.exchangeStream(found->second), found->second};
  });
}

// Makes the first stream current again. What is launched there from now on begins after what was launched beside it, and the memory of `tensors` is not
// used for others before it has ended there.
char* te_aside_leave(Aside* aside, at::Tensor** tensors, size_t n) {
  return guarded([&] {
    const std::unique_ptr<Aside> streams(aside);
    const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
    cuda.exchangeStream(streams->before);
    c10::Event launched(c10::kCUDA);
    launched.record(streams->beside);
    launched.block(streams->before);
    for (size_t i = 0; i < n; i++) tensors[i]->record_stream(streams->before);
  });
}

// How f32 products are multiplied and sums are ordered on CUDA, for the whole process.
char* te_set_arithmetic(int tf32, int deterministic) {
  return guarded([&] {
    auto& context = at::globalContext();
    context.setAllowTF32CuBLAS(tf32);
    context.setAllowTF32CuDNN(tf32);
    context.setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
    context.setDeterministicCuDNN(deterministic);
    // Only there to find reads of memory that nobody wrote.
    context.setDeterministicFillUninitializedMemory(false);
  });
}

// Whether f32 products may be TF32 on CUDA; the answer is what it was before.
char* te_allow_tf32(int allow, int* before) {
  return guarded([&] {
    auto& context = at::globalContext();
    *before = context.allowTF32CuBLAS();
    context.setAllowTF32CuBLAS(allow);
    context.setAllowTF32CuDNN(allow);
  });
}

// Begins to count calls in all threads; the answer is for te_count_end.
char* te_count_begin(uint64_t* handle) {
  return guarded([&] {
    calls = waits = 0;
    *handle = at::addGlobalCallback(at::RecordFunctionCallback(count_call, leave_call).scopes({at::RecordScope::FUNCTION}));
  });
}

// Calls and waits so far; stops counting.
char* te_count_end(uint64_t handle, int64_t* out) {
  return guarded([&] {
    at::removeCallback(handle);
    out[0] = calls;
    out[1] = waits;
  });
}

// Begins to record what this process asks of CUDA, by libtorch's profiler; with `operators` also which operators this thread calls.
char* te_launches_begin(int operators) {
  return guarded([&] {
    namespace profiler = torch::profiler::impl;
    std::set<profiler::ActivityType> activities{profiler::ActivityType::CUDA};
    if (operators) activities.insert(profiler::ActivityType::CPU);
    const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION});
  });
}

// Ends that, on the thread that began it: kernels that ran, launches (of kernels and graphs), waits of a host for a device, operators.
char* te_launches_end(int64_t* out) {
  return guarded([&] {
    // Numbers of libkineto::ActivityType, which KinetoEvent tells as they are.
    constexpr uint8_t operators = 0, kernel = 5, runtime = 7, driver = 8;
    std::fill_n(out, 4, 0);
    const auto result = torch::autograd::profiler::disableProfiler();
    for (const auto& event : result->events()) {
      const std::string name = event.name();
      const auto kind = event.activityType();
      const auto says = [&](const char* part) { return name.find(part) != std::string::npos; };
      if (kind == kernel) out[0]++;
      if (kind == runtime || kind == driver) {
        if (says("Launch")) out[1]++;
        if (says("Synchronize") || name == "cudaMemcpy") out[2]++;
      }
      if (kind == operators) out[3]++;
    }
  });
}

// Gives memory that no tensor uses back to the driver.
char* te_cuda_empty_cache() {
  return guarded([&] { c10::getDeviceAllocator(c10::kCUDA)->emptyCache(); });
}

char* te_rng_state(int cuda_index, at::Tensor** out) {
  return guarded([&] {
    auto g = generator(cuda_index);
    std::lock_guard<std::mutex> lock(g.mutex());
    *out = new at::Tensor(g.get_state());
  });
}

char* te_set_rng_state(int cuda_index, at::Tensor* state) {
  return guarded([&] {
    auto g = generator(cuda_index);
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_state(*state);
  });
}

// Bytes of CUDA memory: now allocated, peak allocated, now reserved from the driver.
char* te_cuda_memory(int index, int64_t* out) {
  return guarded([&] {
    const auto stats = c10::getDeviceAllocator(c10::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    const auto whole = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    out[0] = stats.allocated_bytes[whole].current;
    out[1] = stats.allocated_bytes[whole].peak;
    out[2] = stats.reserved_bytes[whole].current;
  });
}
}
