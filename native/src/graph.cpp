// CUDA graphs: work of a device is recorded once and launched again as one. libtorch's class `at::cuda::CUDAGraph` does it. It lives in libtorch_cuda.so, which
// is opened at run time, and its header needs NVIDIA's, which a build against the CPU part lacks; so its functions are found by their names.
#include <dlfcn.h>

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "border.h"

namespace {

using border::guarded;

// Which memory a recording uses: none of another recording.
using Pool = std::pair<unsigned long long, unsigned long long>;

// cudaStreamCaptureModeThreadLocal: what other threads ask of CUDA meanwhile (the next batch is on its way) neither fails nor is recorded.
constexpr int kThreadLocal = 1;

// The class's functions with the arguments that its header gives them in libtorch 2.11; an enum is passed as its int.
struct Functions {
  void (*construct)(void*, bool);
  void (*destroy)(void*);
  void (*capture_begin)(void*, Pool, int);
  void (*capture_end)(void*);
  void (*replay)(void*);
};

template <class F>
void find(F& function, const char* name) {
  function = reinterpret_cast<F>(dlsym(RTLD_DEFAULT, name));
  TORCH_CHECK(function, "libtorch's CUDA half is not loaded or is another version: it has no ", name);
}

const Functions& functions() {
  static const Functions found = [] {
    Functions f{};
    find(f.construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(f.destroy, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(f.capture_begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(f.capture_end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(f.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    return f;
  }();
  return found;
}

// The object itself: 104 bytes in 2.11, by its header.
class Object {
 public:
  Object() { functions().construct(place_, /*keep_graph=*/false); }
  ~Object() { functions().destroy(place_); }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  void* get() { return place_; }

 private:
  alignas(std::max_align_t) std::byte place_[1024];
};

// A graph, and what its recording changes: the current stream, because a default one cannot be recorded, and the device's generator of random numbers.
struct Graph {
  Graph(c10::Stream stream, const at::Generator& generator) : stream(stream), generator(generator), before(generator.clone()) {}

  // Puts a copy of the generator in the place of one that libtorch has left in its recording state.
  void restore_generator() {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.graphsafe_set_state(before);
  }

  Object object;
  c10::Stream stream;
  at::Generator generator;
  at::Generator before;
};

using Guard = c10::impl::VirtualGuardImpl;

// One stream of each device for all its recordings: libtorch keeps a workspace of cuBLAS's for every stream that it has seen.
c10::Stream recording_stream(const Guard& cuda, c10::Device device) {
  static std::mutex turn;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard<std::mutex> lock(turn);
  auto found = streams.find(device.index());
  if (found == streams.end()) found = streams.emplace(device.index(), cuda.getStreamFromGlobalPool(device, /*isHighPriority=*/false)).first;
  return found->second;
}

// Ends a recording whose stream was given up by CUDA. libtorch throws then before its allocator and its generator have heard of the end, and both would wait for
// it for ever; a second, empty recording on the same stream ends well and tells them.
bool end_empty(const Guard& cuda, Graph& graph) {
  const auto begin = reinterpret_cast<int (*)(void*, int)>(dlsym(RTLD_DEFAULT, "cudaStreamBeginCapture"));
  const c10::Stream stream = cuda.getStream(graph.stream.device());
  if (!begin || begin(cuda.getStreamNativeHandle(stream), kThreadLocal) != 0) return false;
  try {
    functions().capture_end(graph.object.get());
    return true;
  } catch (...) {
    return false;
  }
}

// Host memory that is sent while a graph is recorded would be read again at each launch, when it holds something else.
thread_local bool recording = false;

}  // namespace

namespace border {
bool is_recording() { return recording; }
}  // namespace border

extern "C" {
// Whether this libtorch has what the others need; the message says what is missing.
char* te_graph_available() {
  return guarded([] { functions(); });
}

// Begins to record what this thread and its backward passes launch on a device: nothing of it runs yet.
char* te_graph_begin(int cuda_index, Graph** out) {
  return guarded([&] {
    functions();
    const Guard cuda(c10::kCUDA);
    const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index));
    const c10::OptionalDeviceGuard here(device);
    auto graph = std::make_unique<Graph>(cuda.getStream(device), at::globalContext().defaultGenerator(device));
    cuda.synchronizeDevice(device.index());
    // A recording has memory of its own; what steps have left behind would be missing for it.
    c10::getDeviceAllocator(c10::kCUDA)->emptyCache();
    cuda.exchangeStream(recording_stream(cuda, device));
    try {
      functions().capture_begin(graph->object.get(), Pool{0, 0}, kThreadLocal);
    } catch (...) {
      cuda.exchangeStream(graph->stream);
      graph->restore_generator();
      throw;
    }
    recording = true;
    *out = graph.release();
  });
}

// Ends that. Without success the graph must be dropped, and `clean` says whether libtorch's allocator and generator are as if nothing had been recorded.
char* te_graph_end(Graph* graph, int* clean) {
  return guarded([&] {
    recording = false;
    *clean = 1;
    const Guard cuda(c10::kCUDA);
    const c10::OptionalDeviceGuard here(graph->stream.device());
    try {
      functions().capture_end(graph->object.get());
    } catch (...) {
      *clean = end_empty(cuda, *graph);
      cuda.exchangeStream(graph->stream);
      if (!*clean) graph->restore_generator();
      throw;
    }
    cuda.exchangeStream(graph->stream);
  });
}

// Launches what was recorded, on the current stream.
char* te_graph_replay(Graph* graph) {
  return guarded([&] { functions().replay(graph->object.get()); });
}

char* te_graph_drop(Graph* graph) {
  return guarded([&] { delete graph; });
}

// Makes `grads` the gradients of `params`.
char* te_set_grads(at::Tensor** params, at::Tensor** grads, size_t n) {
  return guarded([&] {
    for (size_t i = 0; i < n; i++) {
      TORCH_CHECK(grads[i]->sizes() == params[i]->sizes(), "gradient ", i, " has the shape ", grads[i]->sizes(), ", not ", params[i]->sizes());
    }
    for (size_t i = 0; i < n; i++) params[i]->mutable_grad() = *grads[i];
  });
}
}
