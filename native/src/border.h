// What the C++ files need at the border to Rust. Tensors come in as at::Tensor* (what tch's `Tensor::as_ptr` answers) and go out as
// `new at::Tensor`. No exception crosses: each function answers null or a malloc'ed message.
#pragma once
#include <cstring>
#include <exception>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace border {

using List = std::vector<at::Tensor>;

inline List list(at::Tensor** from, size_t n) {
  List out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*from[i]);
  return out;
}

// Whether this thread records a CUDA graph (graph.cpp).
bool is_recording();

inline char* message(const char* text) { return strdup(text); }

template <class F>
char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return message(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return message(e.what());
  } catch (...) {
    return message("unknown C++ exception");
  }
}

}  // namespace border
