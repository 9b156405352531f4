// The libtorch operators that tch lacks: autocast, optimizer, products, recomputing. What concerns a device is in device.cpp.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

#include "border.h"

namespace {

using border::guarded;
using border::List;
using border::list;
using border::message;

c10::DeviceType device_type(int cuda) { return cuda ? c10::kCUDA : c10::kCPU; }

// A function of the caller's: answers null and stores a `new at::Tensor`, or a malloc'ed message. `y` of (x, extra); extra may be null.
using Body = char* (*)(void* data, at::Tensor* x, at::Tensor* extra, at::Tensor** y);

struct Closure : torch::CustomClassHolder {
  Closure(void* data, Body body, void (*drop)(void*)) : data(data), body(body), drop(drop) {}
  ~Closure() override { drop(data); }
  at::Tensor operator()(at::Tensor x, at::Tensor extra) const {
    at::Tensor* y = nullptr;
    if (char* text = body(data, &x, extra.defined() ? &extra : nullptr, &y)) {
      const std::string copy(text);
      free(text);
      throw std::runtime_error(copy);
    }
    at::Tensor owned = *y;
    delete y;
    return owned;
  }
  void* data;
  Body body;
  void (*drop)(void*);
};

// y = body(x, extra) without keeping what is inside; backward runs the body again.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& extra,
                            const c10::intrusive_ptr<Closure>& closure) {
    const auto second = extra.value_or(at::Tensor());
    ctx->save_for_backward({x, second});
    ctx->saved_data["body"] = c10::IValue::make_capsule(closure);
    return (*closure)(x, second);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto leaf = [](const at::Tensor& t) { return t.defined() ? t.detach().requires_grad_(t.requires_grad()) : at::Tensor(); };
    const auto x = leaf(saved[0]), extra = leaf(saved[1]);
    const auto body = c10::static_intrusive_pointer_cast<Closure>(ctx->saved_data["body"].toCapsule());
    {
      at::AutoGradMode on(true);
      const auto y = (*body)(x, extra);
      torch::autograd::backward({y}, {grads[0]});
    }
    return {x.grad(), extra.defined() ? extra.grad() : at::Tensor(), at::Tensor()};
  }
};

// x·wᵀ + b through oneDNN.
at::Tensor product(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& b) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
  return op.call(x, w, b, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

// A linear layer whose products of rows with a matrix (output, gradient of x) are oneDNN's, and whose sum over rows (gradient of w) is
// the BLAS's: whichever is the faster one in f32 on the CPU.
struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w,
                            const std::optional<at::Tensor>& b) {
    ctx->save_for_backward({x, w});
    ctx->saved_data["biased"] = b.has_value();
    return product(x, w, b);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &w = saved[1];
    const auto g = grads[0].reshape({-1, w.size(0)});
    at::Tensor dx, dw, db;
    if (ctx->needs_input_grad(0)) dx = product(g, w.t(), std::nullopt).view(x.sizes());
    if (ctx->needs_input_grad(1)) dw = g.t().mm(x.reshape({-1, w.size(1)}));
    // An absent bias is no input at all.
    if (ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2)) db = g.sum(0);
    return {dx, dw, db};
  }
};

bool suits_onednn(const at::Tensor& x, const at::Tensor& w);

// Logits of so many numbers at a time: on the CPU few enough to stay in its caches and in the allocator's hands, on a device enough to fill it.
constexpr int64_t kLogitsCpu = int64_t{1} << 22, kLogitsDevice = int64_t{1} << 26;

// Mean cross-entropy of a linear layer's logits and the place of each row's largest, some rows after the other: the logits of all rows, their
// logarithms and their gradients never exist together. Gradients are made on the way, while the logits are at hand, if `wanted`.
struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w,
                                                const at::Tensor& b, const at::Tensor& targets, bool wanted) {
    const auto device = x.device().type();
    const bool cast = at::autocast::is_autocast_enabled(device);
    const auto kind = cast ? at::autocast::get_autocast_dtype(device) : x.scalar_type();
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(at::autocast::get_autocast_dispatch_key_from_device_type(device));
    const auto xs = x.to(kind), ws = w.to(kind), bs = b.to(kind);
    const int64_t m = x.size(0), v = w.size(0);
    const int64_t rows = std::max<int64_t>(1, (x.is_cpu() ? kLogitsCpu : kLogitsDevice) / v);
    const auto f32 = x.options().dtype(at::kFloat);
    at::Tensor sum = at::zeros({}, f32), dx, dw, db;
    const auto largest = at::empty({m}, targets.options());
    if (wanted) {
      dx = at::empty(x.sizes(), x.options());
      dw = at::zeros(w.sizes(), f32);
      db = at::zeros(b.sizes(), f32);
    }
    for (int64_t start = 0; start < m; start += rows) {
      const int64_t n = std::min(rows, m - start);
      const auto part = xs.narrow(0, start, n), target = targets.narrow(0, start, n).unsqueeze(1);
      auto logits = suits_onednn(part, ws) ? product(part, ws, bs) : at::linear(part, ws, bs);
      largest.narrow(0, start, n).copy_(logits.argmax(1));
      auto g = at::log_softmax(logits, 1, at::kFloat);
      logits.reset();
      sum.sub_(g.gather(1, target).sum());
      if (!wanted) continue;
      g.exp_().scatter_add_(1, target, at::full({1, 1}, -1.0, f32).expand_as(target));
      db.add_(g.sum(0));
      g = g.to(kind);
      dx.narrow(0, start, n).copy_(suits_onednn(part, ws) ? product(g, ws.t(), std::nullopt) : g.mm(ws));
      if (kind == at::kFloat) dw.addmm_(g.t(), part);
      else dw.add_(g.t().mm(part));
    }
    if (wanted) ctx->save_for_backward({dx, dw.to(w.scalar_type()), db.to(b.scalar_type())});
    ctx->saved_data["rows"] = m;
    ctx->mark_non_differentiable({largest});
    return {sum.div_(static_cast<double>(m)), largest};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto factor = grads[0] / static_cast<double>(ctx->saved_data["rows"].toInt());
    return {saved[0] * factor, saved[1] * factor, saved[2] * factor, at::Tensor(), at::Tensor()};
  }
};

// Below so many rows nothing is won.
constexpr int64_t kFewRows = 256;

bool suits_onednn(const at::Tensor& x, const at::Tensor& w) {
  const auto plain = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
  return plain(x) && plain(w) && x.dim() >= 2 && x.numel() >= kFewRows * w.size(1) && !at::autocast::is_autocast_enabled(at::kCPU) &&
         at::globalContext().userEnabledMkldnn() && at::Context::hasMKLDNN();
}

}  // namespace

extern "C" {

void te_free(char* text) { free(text); }

const char* te_version() { return TORCH_VERSION; }

// Path of the shared object that holds libtorch's CPU kernels.
char* te_library_path() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&at::detail::getDefaultCPUGenerator), &info) == 0 || info.dli_fname == nullptr) return nullptr;
  return message(info.dli_fname);
}

// State before the change, to be given back to te_autocast_leave.
struct TeAutocast {
  int enabled;
  int dtype;
};

char* te_autocast_enter(int cuda, int enable, TeAutocast* before) {
  return guarded([&] {
    const auto type = device_type(cuda);
    before->enabled = at::autocast::is_autocast_enabled(type);
    before->dtype = static_cast<int>(at::autocast::get_autocast_dtype(type));
    at::autocast::set_autocast_enabled(type, enable != 0);
    if (enable) at::autocast::set_autocast_dtype(type, at::kBFloat16);
    at::autocast::increment_nesting();
  });
}

char* te_autocast_leave(int cuda, const TeAutocast* before) {
  return guarded([&] {
    const auto type = device_type(cuda);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, before->enabled != 0);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(before->dtype));
  });
}

int te_autocast_enabled(int cuda) { return at::autocast::is_autocast_enabled(device_type(cuda)) ? 1 : 0; }

char* te_has_grad(at::Tensor* t, int* out) {
  return guarded([&] { *out = t->grad().defined() ? 1 : 0; });
}

char* te_clear_grads(at::Tensor** tensors, size_t n) {
  return guarded([&] {
    for (size_t i = 0; i < n; ++i) tensors[i]->mutable_grad().reset();
  });
}

// *each = new 2-norms of the n tensors, *all = new 2-norm of all of them together, on their device.
char* te_norms(at::Tensor** tensors, size_t n, at::Tensor** each, at::Tensor** all) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto norms = at::stack(at::_foreach_norm(list(tensors, n)));
    const auto global = at::linalg_vector_norm(norms);
    *each = new at::Tensor(norms);
    *all = new at::Tensor(global);
  });
}

char* te_scale(at::Tensor** tensors, size_t n, at::Tensor* factor) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, n), *factor);
  });
}

// Each of the n tensors by its own of the n numbers in `factors`.
char* te_scale_each(at::Tensor** tensors, size_t n, at::Tensor* factors) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, n), factors->unbind());
  });
}

// One AdamW step of one group. `scale` (may be null): the gradients are divided by it. `skip` (may be null): where it is 1 nothing changes.
char* te_fused_adamw(at::Tensor** params, at::Tensor** grads, at::Tensor** exp_avgs, at::Tensor** exp_avg_sqs, at::Tensor** steps,
                     size_t n, double lr, double beta1, double beta2, double weight_decay, double eps, at::Tensor* scale,
                     at::Tensor* skip) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto step_list = list(steps, n);
    if (skip) {
      at::_foreach_add_(step_list, 1 - *skip);
    } else {
      at::_foreach_add_(step_list, 1);
    }
    const auto optional = [](at::Tensor* t) { return t ? std::optional<at::Tensor>(*t) : std::nullopt; };
    at::_fused_adamw_(list(params, n), list(grads, n), list(exp_avgs, n), list(exp_avg_sqs, n), {}, step_list, lr, beta1, beta2,
                      weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, optional(scale), optional(skip));
  });
}

// *y = new x·wᵀ + b; b may be null.
char* te_linear(at::Tensor* x, at::Tensor* w, at::Tensor* b, at::Tensor** y) {
  return guarded([&] {
    const auto bias = b ? std::optional<at::Tensor>(*b) : std::nullopt;
    *y = new at::Tensor(suits_onednn(*x, *w) ? Linear::apply(*x, *w, bias) : at::linear(*x, *w, bias));
  });
}

// *loss = new mean cross-entropy in nats of x·wᵀ + b against targets (i64), *largest = new place of the largest of each row.
char* te_linear_cross_entropy(at::Tensor* x, at::Tensor* w, at::Tensor* b, at::Tensor* targets, at::Tensor** loss, at::Tensor** largest) {
  return guarded([&] {
    const bool wanted = at::GradMode::is_enabled() && (x->requires_grad() || w->requires_grad() || b->requires_grad());
    const auto both = LinearCrossEntropy::apply(*x, *w, *b, *targets, wanted);
    *loss = new at::Tensor(both[0]);
    *largest = new at::Tensor(both[1]);
  });
}

// averages += weight * (values - averages); `weight` is a scalar tensor on their device.
char* te_lerp(at::Tensor** averages, at::Tensor** values, size_t n, at::Tensor* weight) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto to = list(averages, n);
    auto difference = at::_foreach_sub(list(values, n), to);
    at::_foreach_mul_(difference, *weight);
    at::_foreach_add_(to, difference);
  });
}

// A malloc'ed copy of a text that is not NUL-terminated.
char* te_text(const char* text, size_t n) { return strndup(text, n); }

// Takes `data` over and drops it when no graph needs it any more, also on failure.
char* te_recompute(at::Tensor* x, at::Tensor* extra, void* data, Body body, void (*drop)(void*), at::Tensor** out) {
  const auto closure = c10::make_intrusive<Closure>(data, body, drop);
  return guarded([&] {
    const auto second = extra ? std::optional<at::Tensor>(*extra) : std::nullopt;
    *out = new at::Tensor(Recompute::apply(*x, second, closure));
  });
}
}
