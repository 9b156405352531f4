// CUDA graphs: work of a device is recorded once and launched again as one. libtorch's class `at::cuda::CUDAGraph` does it. It lives in libtorch_cuda.so, which
// is opened at run time, and its header needs NVIDIA's, which a build against the CPU part lacks; so its functions are found by their names.
#include <dlfcn.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <ATen/Context.h>
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
  Object object;
  c10::Stream stream;
  at::Generator generator;
  at::Generator before;
};

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
    const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
    const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index));
    auto graph = std::make_unique<Graph>(cuda.getStream(device), at::globalContext().defaultGenerator(device));
    cuda.synchronizeDevice(device.index());
    cuda.exchangeStream(cuda.getStreamFromGlobalPool(device, /*isHighPriority=*/false));
    try {
      functions().capture_begin(graph->object.get(), Pool{0, 0}, kThreadLocal);
    } catch (...) {
      cuda.exchangeStream(graph->stream);
      throw;
    }
    recording = true;
    *out = graph.release();
  });
}

// Ends that. Without success the graph must be dropped; libtorch then leaves the generator in its recording state, and its allocator too (see aside.rs).
char* te_graph_end(Graph* graph) {
  return guarded([&] {
    recording = false;
    const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
    try {
      functions().capture_end(graph->object.get());
    } catch (...) {
      cuda.exchangeStream(graph->stream);
      const std::lock_guard<std::mutex> lock(graph->generator.mutex());
      graph->generator.graphsafe_set_state(graph->before);
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
