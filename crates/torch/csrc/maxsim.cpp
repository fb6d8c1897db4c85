// MaxSim (Khattab & Zaharia, 2020, arXiv 2004.12832): s(q, d) = sum over q's rows of the largest product with d's rows.
//
// Never more than a block of products exists: of the products only each query row's best passage row is kept, 4 bytes a
// (query row, passage), and the backward pass goes to those rows alone. The plain form keeps every product, and in
// training their gradient as well.
//
// Rows of queries and of passages lie one after another, as in attention.cpp. Sums are in the rows' dtype (f32; f64 in
// tests).
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace ragduet {
namespace {

// Query rows whose products with a passage exist at a time: with 180 passage rows of f32 about 370 KB a thread.
constexpr int64_t ROWS = 512;

// Runs of queries that are compared with each passage: all of them, or those that a table names.
struct Wanted {
  const uint8_t* table;  // [queries, passages], or null for all
  int64_t queries, passages;
  bool has(int64_t q, int64_t d) const { return !table || table[q * passages + d]; }
};

// best[i] = the largest of column i of tile [n, rows], at[i] = its row.
#define RD_COLUMN_MAX(SUFFIX, T)                                                                              \
  RD_CLONES void column_max_##SUFFIX(const T* __restrict tile, int64_t n, int64_t rows, T* __restrict best,   \
                                     int32_t* __restrict at) {                                                \
    for (int64_t i = 0; i < rows; ++i) {                                                                      \
      best[i] = tile[i];                                                                                      \
      at[i] = 0;                                                                                              \
    }                                                                                                         \
    for (int64_t t = 1; t < n; ++t) {                                                                         \
      const T* __restrict row = tile + t * rows;                                                              \
      const int32_t number = static_cast<int32_t>(t);                                                         \
      for (int64_t i = 0; i < rows; ++i) {                                                                    \
        const bool more = row[i] > best[i];                                                                   \
        best[i] = more ? row[i] : best[i];                                                                    \
        at[i] = more ? number : at[i];                                                                        \
      }                                                                                                       \
    }                                                                                                         \
  }                                                                                                           \
  RD_CLONES void add_scaled_##SUFFIX(T* __restrict to, const T* __restrict x, T by, int64_t n) {              \
    for (int64_t i = 0; i < n; ++i) to[i] += x[i] * by;                                                       \
  }
RD_COLUMN_MAX(f32, float)
RD_COLUMN_MAX(f64, double)

void column_max(const float* tile, int64_t n, int64_t rows, float* best, int32_t* at) {
  column_max_f32(tile, n, rows, best, at);
}
void column_max(const double* tile, int64_t n, int64_t rows, double* best, int32_t* at) {
  column_max_f64(tile, n, rows, best, at);
}
void add_scaled(float* to, const float* x, float by, int64_t n) { add_scaled_f32(to, x, by, n); }
void add_scaled(double* to, const double* x, double by, int64_t n) { add_scaled_f64(to, x, by, n); }

// Handed out one by one: passages differ in length.
template <typename F>
void each(int64_t n, F&& f) {
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), n);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::max<int64_t>(threads, 1), 1, [&](int64_t, int64_t) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (int64_t i = next++; i < n; i = next++) f(i);
  });
}

// scores [queries, passages] (0 where not wanted or where a side has no row), at [passages, query rows] (-1 likewise).
template <typename T>
void forward_cpu(const Tensor& q, const std::vector<int64_t>& qo, const Tensor& d, const std::vector<int64_t>& dof,
                 const Wanted& wanted, Tensor& scores, Tensor& at) {
  const int64_t queries = wanted.queries, passages = wanted.passages, total = q.size(0);
  auto* out = scores.mutable_data_ptr<T>();
  auto* places = at.mutable_data_ptr<int32_t>();
  each(passages, [&](int64_t j) {
    const int64_t n = dof[j + 1] - dof[j];
    if (n == 0) return;
    const Tensor rows = d.narrow(0, dof[j], n);
    std::vector<T> best(ROWS);
    for (int64_t from = 0; from < queries;) {
      if (!wanted.has(from, j)) {
        ++from;
        continue;
      }
      // As many queries in a row as fit a block (a longer one is a block of its own).
      int64_t to = from + 1;
      while (to < queries && wanted.has(to, j) && qo[to + 1] - qo[from] <= ROWS) ++to;
      const int64_t first = qo[from], count = qo[to] - first;
      if (count > 0) {
        if (count > static_cast<int64_t>(best.size())) best.resize(count);
        const Tensor tile = at::mm(rows, q.narrow(0, first, count).t());
        column_max(tile.const_data_ptr<T>(), n, count, best.data(), places + j * total + first);
        for (int64_t i = from; i < to; ++i) {
          T sum = 0;
          for (int64_t r = qo[i]; r < qo[i + 1]; ++r) sum += best[r - first];
          out[i * passages + j] = sum;
        }
      }
      from = to;
    }
  });
}

template <typename T>
void backward_cpu(const Tensor& q, const std::vector<int64_t>& qo, const Tensor& d, const std::vector<int64_t>& dof,
                  const Tensor& at, const Tensor& g, Tensor& dq, Tensor& dd) {
  const int64_t queries = static_cast<int64_t>(qo.size()) - 1, passages = static_cast<int64_t>(dof.size()) - 1;
  const int64_t total = q.size(0), dim = q.size(1);
  const auto* qs = q.const_data_ptr<T>();
  const auto* ds = d.const_data_ptr<T>();
  const auto* places = at.const_data_ptr<int32_t>();
  const auto* grad = g.const_data_ptr<T>();
  if (dq.defined()) {
    auto* to = dq.mutable_data_ptr<T>();
    each(queries, [&](int64_t i) {
      for (int64_t r = qo[i]; r < qo[i + 1]; ++r)
        for (int64_t j = 0; j < passages; ++j) {
          const int32_t place = places[j * total + r];
          const T by = grad[i * passages + j];
          if (place >= 0 && by != 0) add_scaled(to + r * dim, ds + (dof[j] + place) * dim, by, dim);
        }
    });
  }
  if (dd.defined()) {
    auto* to = dd.mutable_data_ptr<T>();
    each(passages, [&](int64_t j) {
      for (int64_t i = 0; i < queries; ++i) {
        const T by = grad[i * passages + j];
        if (by == 0) continue;
        for (int64_t r = qo[i]; r < qo[i + 1]; ++r) {
          const int32_t place = places[j * total + r];
          if (place >= 0) add_scaled(to + (dof[j] + place) * dim, qs + r * dim, by, dim);
        }
      }
    });
  }
}

// The number of the text that each row belongs to.
Tensor owners(const std::vector<int64_t>& offsets, const at::Device& device) {
  auto out = at::empty({offsets.back()}, at::kLong);
  auto* o = out.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i + 1 < offsets.size(); ++i) std::fill(o + offsets[i], o + offsets[i + 1], static_cast<int64_t>(i));
  return out.to(device);
}

// Other devices: passage by passage through ATen's operators.
void forward_aten(const Tensor& q, const std::vector<int64_t>& qo, const Tensor& d, const std::vector<int64_t>& dof,
                  const uint8_t* wanted, Tensor& scores, Tensor& at) {
  const auto owner = owners(qo, q.device());
  const int64_t passages = static_cast<int64_t>(dof.size()) - 1;
  for (int64_t j = 0; j < passages; ++j) {
    const int64_t n = dof[j + 1] - dof[j];
    if (n == 0 || q.size(0) == 0) continue;
    auto [best, place] = at::mm(d.narrow(0, dof[j], n), q.t()).max(0);
    scores.select(1, j).index_add_(0, owner, best);
    at.select(0, j).copy_(place);
  }
  if (wanted) {
    auto unwanted = at::empty(scores.sizes(), at::kBool);
    auto* u = unwanted.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < unwanted.numel(); ++i) u[i] = !wanted[i];
    unwanted = unwanted.to(q.device());
    scores.masked_fill_(unwanted, 0);
    at.masked_fill_(unwanted.index_select(0, owner).t(), -1);
  }
}

void backward_aten(const Tensor& q, const std::vector<int64_t>& qo, const Tensor& d, const std::vector<int64_t>& dof,
                   const Tensor& at, const Tensor& g, Tensor& dq, Tensor& dd) {
  const auto by_row = g.index_select(0, owners(qo, q.device()));  // [query rows, passages]
  const int64_t passages = static_cast<int64_t>(dof.size()) - 1;
  for (int64_t j = 0; j < passages; ++j) {
    if (dof[j + 1] == dof[j]) continue;
    const auto place = at.select(0, j).to(at::kLong);
    const auto by = (by_row.select(1, j) * place.ge(0)).unsqueeze(1);
    const auto row = place.clamp_min(0) + dof[j];
    if (dq.defined()) dq.add_(d.index_select(0, row) * by);
    if (dd.defined()) dd.index_add_(0, row, q * by);
  }
}

struct MaxSim : torch::autograd::Function<MaxSim> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q_in, const Tensor& d_in, std::vector<int64_t> qo,
                        std::vector<int64_t> dof, const uint8_t* wanted) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto q = q_in.contiguous(), d = d_in.contiguous();
    const int64_t queries = static_cast<int64_t>(qo.size()) - 1, passages = static_cast<int64_t>(dof.size()) - 1;
    auto scores = at::zeros({queries, passages}, q.options());
    auto at = at::full({passages, q.size(0)}, -1, q.options().dtype(at::kInt));
    if (q.is_cpu()) {
      const Wanted w{wanted, queries, passages};
      if (q.scalar_type() == at::kDouble)
        forward_cpu<double>(q, qo, d, dof, w, scores, at);
      else
        forward_cpu<float>(q, qo, d, dof, w, scores, at);
    } else {
      forward_aten(q, qo, d, dof, wanted, scores, at);
    }
    ctx->save_for_backward({q, d, at});
    ctx->saved_data["q"] = qo;
    ctx->saved_data["d"] = dof;
    return scores;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &d = saved[1], &at = saved[2];
    const auto qo = ctx->saved_data["q"].toIntVector(), dof = ctx->saved_data["d"].toIntVector();
    const auto g = grads[0].contiguous();
    Tensor dq = ctx->needs_input_grad(0) ? at::zeros_like(q) : Tensor();
    Tensor dd = ctx->needs_input_grad(1) ? at::zeros_like(d) : Tensor();
    if (!q.is_cpu())
      backward_aten(q, qo, d, dof, at, g, dq, dd);
    else if (q.scalar_type() == at::kDouble)
      backward_cpu<double>(q, qo, d, dof, at, g, dq, dd);
    else
      backward_cpu<float>(q, qo, d, dof, at, g, dq, dd);
    return {dq, dd, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace ragduet

extern "C" int rd_maxsim(Tensor* q, const int64_t* q_offsets, size_t n_q, Tensor* d, const int64_t* d_offsets, size_t n_d,
                         Tensor* wanted, Tensor** out) {
  return ragduet::guarded([&] {
    TORCH_CHECK(q->dim() == 2 && d->dim() == 2 && q->size(1) == d->size(1), "maxsim: rows of ", q->sizes(), " and ",
                d->sizes(), " cannot be compared");
    const auto type = q->scalar_type();
    TORCH_CHECK(type == d->scalar_type() && (type == at::kFloat || type == at::kDouble), "maxsim: f32 or f64 rows");
    std::vector<int64_t> qo(q_offsets, q_offsets + n_q), dof(d_offsets, d_offsets + n_d);
    TORCH_CHECK(!qo.empty() && !dof.empty() && qo.back() == q->size(0) && dof.back() == d->size(0),
                "maxsim: borders that do not end with the rows");
    const Tensor table = wanted ? wanted->contiguous() : Tensor();
    TORCH_CHECK(!table.defined() || (table.is_cpu() && table.scalar_type() == at::kByte &&
                                     table.numel() == static_cast<int64_t>((n_q - 1) * (n_d - 1))),
                "maxsim: a byte for each query and passage");
    // A pointer, for a function's tensor arguments must be defined; the table outlives the call.
    const uint8_t* named = table.defined() ? table.const_data_ptr<uint8_t>() : nullptr;
    *out = new Tensor(ragduet::MaxSim::apply(*q, *d, std::move(qo), std::move(dof), named));
  });
}
