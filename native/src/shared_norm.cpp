// Rows normalised by mean and variance over all ranks: libtorch's own is for GPUs only.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/var_mean.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ranks.h"

namespace {

using border::guarded;
using namespace ranks;

// What a graph keeps of the connections, however long it lives.
struct Across : torch::CustomClassHolder {
  explicit Across(const Links& links) : group(links.data), size(links.size), account(links.account) {}
  c10::intrusive_ptr<ProcessGroup> group;
  int64_t size;
  std::shared_ptr<Account> account;
};

// x G·M×D, groups behind each other, of which every rank has M rows each: y = (x − mean) ÷ √(var + eps), with mean and (biased) variance of a group over
// the rows of all ranks. Answers y and 2×G×D. The gradient is that of the sum of all ranks' losses.
struct Normalised : torch::autograd::Function<Normalised> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, int64_t groups, double eps,
                                                const c10::intrusive_ptr<Across>& across) {
    const auto rows = x.contiguous().view({groups, -1, x.size(1)});
    const auto [var, mean] = at::var_mean(rows, at::IntArrayRef{1}, /*unbiased=*/false);
    auto own = at::stack({mean, var});
    auto all = at::empty({across->size * own.numel()}, own.options());
    auto flat = own.view({-1});
    across->account->wait(*across->group->_allgather_base(all, flat));
    all = all.view({across->size, 2, groups, x.size(1)});
    // As many rows on each rank, so means of means are means; what the ranks' means differ by is variance too.
    const auto means = all.select(1, 0);
    const auto whole_mean = means.mean(0);
    const auto whole_var = all.select(1, 1).mean(0) + (means - whole_mean).square().mean(0);
    const auto factor = at::rsqrt(whole_var + eps).unsqueeze(1);
    const auto y = (rows - whole_mean.unsqueeze(1)) * factor;
    ctx->save_for_backward({y, factor});
    ctx->saved_data["across"] = c10::IValue::make_capsule(across);
    const auto statistics = at::stack({whole_mean, whole_var});
    ctx->mark_non_differentiable({statistics});
    return {y.view(x.sizes()), statistics};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &y = saved[0], &factor = saved[1];
    const auto across = c10::static_intrusive_pointer_cast<Across>(ctx->saved_data["across"].toCapsule());
    const auto g = grads[0].contiguous().view(y.sizes());
    auto sums = at::stack({g.sum(1), (g * y).sum(1)});
    List one{sums};
    try {
      across->account->wait(*across->group->allreduce(one));
    } catch (...) {
      if (of_a_peer(std::current_exception())) across->account->lost = true;
      throw;
    }
    sums.div_(across->size * y.size(1));
    const auto dx = (g - sums.select(0, 0).unsqueeze(1) - y * sums.select(0, 1).unsqueeze(1)) * factor;
    return {dx.view(grads[0].sizes()), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

extern "C" {

// *rows: x G·M×D normalised, group by group, over all ranks, with a gradient; *statistics: 2×G×D, mean and biased variance, without.
char* tr_normalised(Links* links, at::Tensor* x, int64_t groups, double eps, at::Tensor** rows, at::Tensor** statistics, int* peer) {
  return guarded([&] {
    among_peers(peer, [&] {
      const auto out = Normalised::apply(*x, groups, eps, c10::make_intrusive<Across>(*links));
      *rows = new at::Tensor(out[0]);
      *statistics = new at::Tensor(out[1]);
    });
  });
}
}
