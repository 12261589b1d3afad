// One application of a transformer block, and its gradient. A few examples at a time pass through the whole block, so
// all values in between stay in the cache. The forward pass keeps x, queries, keys and values, and the hidden layer
// before its activation. The backward pass computes the rest again, which is cheap: norms, softmax, activation, and one
// product of (d_model, d_model). looped/nn/native/block.py calls this file.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "functions.h"
#include "products.h"

extern "C" struct Sizes {
    int64_t batch, seq, width, heads, head_dim, hidden;
    int64_t norm_before_attention, norm_before_feedforward;  // 0 none, 1 rms, 2 layer
    int64_t activation, threads;
    int64_t mask_batch, mask_query;      // strides of the mask; 0 repeats it
    int64_t rotary_batch;                // stride of the cosines and sines
    double epsilon;
};

namespace {

template <class T> struct Weights {
    const T *qkv, *project, *up, *down;                          // (out, in)
    const T *qkv_t, *project_t, *up_t, *down_t;                  // (in, out); forward only, but project_t
    const T *qkv_bias, *project_bias, *up_bias, *down_bias;      // or null
};
template <class T> struct Gradients {
    T *qkv, *project, *up, *down, *qkv_bias, *project_bias, *up_bias, *down_bias;
};
// The weights in bfloat16, in pairs of rows.
struct Packed {
    const uint16_t *qkv = nullptr, *project = nullptr, *up = nullptr, *down = nullptr, *qkv_t = nullptr,
                   *project_t = nullptr, *up_t = nullptr, *down_t = nullptr;
    std::vector<std::vector<uint16_t>> memory;

    template <class T> Packed(const Sizes& s, const Weights<T>& w, bool half) {
        if (!half) return;
        const long d = s.width, inner = s.heads * s.head_dim, f = s.hidden, up = s.activation == SWIGLU ? 2 * f : f;
        pack(w.qkv, 3 * inner, d, qkv), pack(w.project, d, inner, project), pack(w.up, up, d, this->up);
        pack(w.down, d, f, down), pack(w.qkv_t, d, 3 * inner, qkv_t), pack(w.project_t, inner, d, project_t);
        pack(w.up_t, d, up, up_t), pack(w.down_t, f, d, down_t);
    }
    template <class T> void pack(const T* weight, long rows, long columns, const uint16_t*& to) {
#ifdef __AVX512BF16__
        if constexpr (sizeof(T) == 4)
            if (weight) {
                memory.emplace_back(rows * columns);
                pack_rows(rows, columns, weight, columns, memory.back().data());
                to = memory.back().data();
            }
#endif
    }
};
struct Inputs {
    const uint8_t* mask;  // or null
    const void *cos, *sin;  // or null
};

template <class T, bool HALF> class Worker {
    const Sizes& s;
    const Weights<T>& w;
    const Packed& p;
    const Inputs& in;
    static constexpr long L = Lanes<T>::count;
    using Vector = typename Lanes<T>::type;
    const long inner, gated_hidden, head, keys;  // head and keys are padded to whole vectors
    std::vector<T> memory;
    std::vector<uint16_t> left, right;
    long used = 0;

    T* take(long count) {
        T* found = memory.data() + used;
        used += (count + L - 1) / L * L;
        return found;
    }

  public:
    const long examples;  // in one tile
    T *normed, *second, *mixed, *active, *inverse, *inverse2, *change, *change2, *hidden_change, *qkv_change, *weights;
    T *q, *k, *v, *transposed, *scores, *out, *qkv, *hidden;

    Worker(const Sizes& s, const Weights<T>& w, const Packed& p, const Inputs& in)
        : s(s), w(w), p(p), in(in), inner(s.heads * s.head_dim), gated_hidden(s.activation == SWIGLU ? 2 * s.hidden : s.hidden),
          head((s.head_dim + L - 1) / L * L), keys((s.seq + L - 1) / L * L),
          examples(std::max<int64_t>(1, std::min<int64_t>(s.batch, TOKENS / s.seq))) {
        const long n = examples * s.seq;
        memory.resize(n * (5 * s.width + inner + 3 * s.hidden + 2 + 6 * inner + 2 * gated_hidden + s.heads * keys) +
                      7 * keys * head + 2 * keys * keys + 64 * L);
        normed = take(n * s.width), second = take(n * s.width), change = take(n * s.width);
        change2 = take(n * s.width), mixed = take(n * inner), active = take(n * s.hidden);
        inverse = take(n), inverse2 = take(n), hidden_change = take(n * gated_hidden), qkv_change = take(n * 3 * inner);
        weights = take(n * s.heads * keys), qkv = take(n * 3 * inner), hidden = take(n * gated_hidden);
        q = take(keys * head), k = take(keys * head), v = take(keys * head), out = take(keys * head);
        if (HALF) left.resize((n + 1) * widest()), right.resize((n + 1) * widest());
        transposed = take(head * keys), scores = take(keys * keys);
    }
    static constexpr long TOKENS = 64;
    long widest() const { return std::max({3 * inner, gated_hidden, (long)s.width}); }

    // c = init + a b, in bfloat16 if HALF. `packed` is b in pairs of rows, if somebody has packed it already.
    void multiply(long rows, long columns, long between, const T* a, long a_row, long a_column, const T* b,
                  const uint16_t* packed, const T* init, long init_row, T* c, long c_row) {
        if constexpr (HALF) {
#ifdef __AVX512BF16__
            const bool straight = a_column == 1;
            straight ? pack_columns(rows, between, a, a_row, left.data()) : pack_rows(between, rows, a, a_column, left.data());
            if (!packed) pack_rows(between, columns, b, columns, right.data());
            half_product(rows, columns, (between + 1) / 2, (const int32_t*)left.data(), straight ? between / 2 : 1,
                         straight ? 1 : rows, packed ? packed : right.data(), init, init_row, c, c_row);
#endif
        } else {
            product<T>(rows, columns, between, a, a_row, a_column, b, columns, init, init_row, c, c_row);
        }
    }

    void norm(long kind, long tokens, const T* x, T* normed, T* inverse) const {
        const long d = s.width;
        for (long i = 0; i < tokens; ++i, x += d, normed += d) {
            T mean = 0, square = 0;
            if (kind == 2) {
                for (long j = 0; j < d; ++j) mean += x[j];
                mean /= d;
            }
            for (long j = 0; j < d; ++j) square += (x[j] - mean) * (x[j] - mean);
            inverse[i] = kind ? T(1) / std::sqrt(square / d + T(s.epsilon)) : T(1);
            for (long j = 0; j < d; ++j) normed[j] = (x[j] - mean) * inverse[i];
        }
    }
    // out = base + gradient of x, for the gradient `change` of the normalised x.
    void norm_gradient(long kind, long tokens, const T* change, const T* normed, const T* inverse, const T* base,
                       T* out) const {
        const long d = s.width;
        for (long i = 0; i < tokens; ++i, change += d, normed += d, base += d, out += d) {
            T mean = 0, along = 0;
            for (long j = 0; j < d; ++j) mean += change[j], along += change[j] * normed[j];
            mean = kind == 2 ? mean / d : 0;
            along = kind ? along / d : 0;
            for (long j = 0; j < d; ++j) out[j] = base[j] + inverse[i] * (change[j] - mean - along * normed[j]);
        }
    }
    template <int A> void activation(long tokens, const T* hidden, T* active) const {
        const long f = s.hidden;
        for (long i = 0; i < tokens; ++i, hidden += gated_hidden, active += f)
            for (long j = 0; j < f; ++j) active[j] = activate<A>(hidden[j]) * (A == SWIGLU ? hidden[f + j] : T(1));
    }
    // act(hidden), and the derivative of it by each hidden number.
    template <int A> void slopes(long tokens, const T* hidden, T* active, T* out) const {
        const long f = s.hidden;
        for (long i = 0; i < tokens; ++i, hidden += gated_hidden, out += gated_hidden, active += f) {
            for (long j = 0; j < f; ++j) out[j] = slope<A>(hidden[j], active[j]);
            if constexpr (A == SWIGLU)
                for (long j = 0; j < f; ++j) {
                    out[f + j] = active[j];
                    active[j] *= hidden[f + j];
                    out[j] *= hidden[f + j];
                }
        }
    }
    // slopes *= change, for both halves of a gated layer.
    void times(long tokens, const T* change, T* slopes) const {
        for (long i = 0; i < tokens; ++i, change += s.hidden)
            for (long part = 0; part < gated_hidden / s.hidden; ++part, slopes += s.hidden)
                for (long j = 0; j < s.hidden; ++j) slopes[j] *= change[j];
    }
    template <class F> void with_activation(F f) const {
        switch (s.activation) {
            case GELU: return f(std::integral_constant<int, GELU>{});
            case GELU_TANH: return f(std::integral_constant<int, GELU_TANH>{});
            case SILU: return f(std::integral_constant<int, SILU>{});
            case RELU: return f(std::integral_constant<int, RELU>{});
            default: return f(std::integral_constant<int, SWIGLU>{});
        }
    }
    void add_bias(long tokens, long columns, const T* bias, T* x) const {
        if (bias)
            for (long i = 0; i < tokens; ++i, x += columns)
                for (long j = 0; j < columns; ++j) x[j] += bias[j];
    }
    void sum_rows(long tokens, long columns, const T* x, T* sum) const {
        if (sum)
            for (long i = 0; i < tokens; ++i, x += columns)
                for (long j = 0; j < columns; ++j) sum[j] += x[j];
    }

    // Queries, keys, values or their gradients of one head: (seq, head_dim) with a distance between rows.
    struct Rows {
        T* at;
        long row;
    };
    bool straight(bool turn) const { return s.head_dim % L == 0 && !(turn && in.cos); }

    // Rows that products can read: those of x itself, or a copy that is padded with zeros and turned by rotary angles.
    Rows read(const T* x, long row, T* copy, long example, bool turn) const {
        if (straight(turn)) return {const_cast<T*>(x), row};
        const long size = s.head_dim, half = size / 2;
        for (long i = 0; i < s.seq; ++i, x += row) {
            T* to = copy + i * head;
            if (turn && in.cos) {
                const T *cos = angles(in.cos, example, i), *sin = angles(in.sin, example, i);
                for (long j = 0; j < half; ++j) {
                    to[j] = x[j] * cos[j] - x[half + j] * sin[j];
                    to[half + j] = x[j] * sin[j] + x[half + j] * cos[j];
                }
            } else {
                for (long j = 0; j < size; ++j) to[j] = x[j];
            }
        }
        return {copy, head};
    }
    // Rows that products can write; `written` then brings a copy to x, turned back by the rotary angles.
    Rows target(T* x, long row, bool turn) const { return straight(turn) ? Rows{x, row} : Rows{out, head}; }
    void written(T* x, long row, long example, bool turn) const {
        if (straight(turn)) return;
        const long size = s.head_dim, half = size / 2;
        for (long i = 0; i < s.seq; ++i, x += row) {
            const T* from = out + i * head;
            if (turn && in.cos) {
                const T *cos = angles(in.cos, example, i), *sin = angles(in.sin, example, i);
                for (long j = 0; j < half; ++j) {
                    x[j] = from[j] * cos[j] + from[half + j] * sin[j];
                    x[half + j] = from[half + j] * cos[j] - from[j] * sin[j];
                }
            } else {
                for (long j = 0; j < size; ++j) x[j] = from[j];
            }
        }
    }
    const T* angles(const void* of, long example, long i) const {
        return (const T*)of + example * s.rotary_batch + i * (s.head_dim / 2);
    }
    // (head_dim, keys), with zeros after `seq` columns.
    const T* transpose(Rows x) const {
        for (long j = 0; j < s.head_dim; ++j)
            for (long i = 0; i < s.seq; ++i) transposed[j * keys + i] = x.at[i * x.row + j];
        return transposed;
    }

    // mixed of one example, and its attention weights: (heads, seq of keys, queries), so that a softmax runs over rows
    // and all queries share one vector.
    void attention(long example, const T* qkv, T* mixed, T* weights) {
        const long n = s.seq, size = s.head_dim;
        const T factor = T(1) / std::sqrt(T(size));
        for (long h = 0; h < s.heads; ++h, weights += n * keys) {
            const Rows queries = read(qkv + h * size, 3 * inner, q, example, true);
            const Rows them = read(qkv + inner + h * size, 3 * inner, k, example, true);
            const Rows values = read(qkv + 2 * inner + h * size, 3 * inner, v, example, false);
            product<T>(n, keys, size, them.at, them.row, 1, transpose(queries), keys, nullptr, 0, weights, keys);
            if (in.mask) {
                const uint8_t* allowed = in.mask + example * s.mask_batch;
                for (long j = 0; j < n; ++j)
                    for (long i = 0; i < n; ++i)
                        if (!allowed[i * s.mask_query + j]) weights[j * keys + i] = T(-1e30);
            }
            for (long part = 0; part < keys; part += L) {
                Vector most = *(const Vector*)(weights + part), sum = Vector{};
                for (long j = 1; j < n; ++j) {
                    const Vector row = *(const Vector*)(weights + j * keys + part);
                    most = row > most ? row : most;
                }
                for (long j = 0; j < n; ++j) {
                    T* row = weights + j * keys + part;
                    for (long i = 0; i < L; ++i) row[i] = exponential(factor * (row[i] - most[i]));
                    sum += *(const Vector*)row;
                }
                sum = T(1) / sum;
                for (long j = 0; j < n; ++j) *(Vector*)(weights + j * keys + part) *= sum;
            }
            const Rows to = target(mixed + h * size, inner, false);
            product<T>(n, head, n, weights, 1, keys, values.at, values.row, nullptr, 0, to.at, to.row);
            written(mixed + h * size, inner, example, false);
        }
    }
    // The gradient of queries, keys and values of one example, for the gradient `change` of its mixed values.
    void attention_gradient(long example, const T* qkv, const T* change, const T* weights, T* qkv_change) {
        const long n = s.seq, size = s.head_dim;
        const T factor = T(1) / std::sqrt(T(size));
        for (long h = 0; h < s.heads; ++h, weights += n * keys) {
            T* to = qkv_change + h * size;
            const Rows mixed = read(change + h * size, inner, q, example, false);
            const Rows values = read(qkv + 2 * inner + h * size, 3 * inner, v, example, false);
            Rows into = target(to + 2 * inner, 3 * inner, false);
            product<T>(n, head, n, weights, keys, 1, mixed.at, mixed.row, nullptr, 0, into.at, into.row);
            written(to + 2 * inner, 3 * inner, example, false);
            product<T>(n, keys, size, values.at, values.row, 1, transpose(mixed), keys, nullptr, 0, scores, keys);
            for (long part = 0; part < keys; part += L) {
                Vector along = Vector{};
                for (long j = 0; j < n; ++j)
                    along += *(const Vector*)(scores + j * keys + part) * *(const Vector*)(weights + j * keys + part);
                for (long j = 0; j < n; ++j) {
                    Vector& row = *(Vector*)(scores + j * keys + part);
                    row = factor * *(const Vector*)(weights + j * keys + part) * (row - along);
                }
            }
            const Rows queries = read(qkv + h * size, 3 * inner, q, example, true);
            const Rows them = read(qkv + inner + h * size, 3 * inner, k, example, true);
            into = target(to, 3 * inner, true);
            product<T>(n, head, n, scores, 1, keys, them.at, them.row, nullptr, 0, into.at, into.row);
            written(to, 3 * inner, example, true);
            into = target(to + inner, 3 * inner, true);
            product<T>(n, head, n, scores, keys, 1, queries.at, queries.row, nullptr, 0, into.at, into.row);
            written(to + inner, 3 * inner, example, true);
        }
    }
    void all_attention(long first, long count, const T* qkv, T* mixed) {
        for (long e = 0; e < count; ++e)
            attention(first + e, qkv + e * s.seq * 3 * inner, mixed + e * s.seq * inner,
                      weights + e * s.heads * s.seq * keys);
    }

    // y of `count` examples; stores qkv and hidden, if they are not null, for the backward pass.
    void forward(long first, long count, const T* x, T* y, T* qkv_kept, T* hidden_kept) {
        const long n = count * s.seq, d = s.width;
        T* qkv = qkv_kept ? qkv_kept : this->qkv;
        T* hidden = hidden_kept ? hidden_kept : this->hidden;
        norm(s.norm_before_attention, n, x, normed, inverse);
        multiply(n, 3 * inner, d, normed, d, 1, w.qkv_t, p.qkv_t, w.qkv_bias, 0, qkv, 3 * inner);
        all_attention(first, count, qkv, mixed);
        multiply(n, d, inner, mixed, inner, 1, w.project_t, p.project_t, x, d, second, d);
        add_bias(n, d, w.project_bias, second);
        norm(s.norm_before_feedforward, n, second, normed, inverse);
        multiply(n, gated_hidden, d, normed, d, 1, w.up_t, p.up_t, w.up_bias, 0, hidden, gated_hidden);
        with_activation([&](auto a) { activation<a.value>(n, hidden, active); });
        multiply(n, d, s.hidden, active, s.hidden, 1, w.down_t, p.down_t, second, d, y, d);
        add_bias(n, d, w.down_bias, y);
    }
    // Gradients of `count` examples: dx, and those of the weights, which are added to g.
    void backward(long first, long count, const T* dy, const T* x, const T* qkv, const T* hidden, T* dx,
                  const Gradients<T>& g) {
        const long n = count * s.seq, d = s.width, f = s.hidden;
        // What the forward pass did not keep.
        all_attention(first, count, qkv, mixed);
        multiply(n, d, inner, mixed, inner, 1, w.project_t, p.project_t, x, d, second, d);
        add_bias(n, d, w.project_bias, second);
        norm(s.norm_before_feedforward, n, second, normed, inverse2);
        with_activation([&](auto a) { slopes<a.value>(n, hidden, active, hidden_change); });
        // The feed-forward layer.
        multiply(d, f, n, dy, 1, d, active, nullptr, g.down, f, g.down, f);
        sum_rows(n, d, dy, g.down_bias);
        multiply(n, f, d, dy, d, 1, w.down, p.down, nullptr, 0, active, f);
        times(n, active, hidden_change);
        multiply(gated_hidden, d, n, hidden_change, 1, gated_hidden, normed, nullptr, g.up, d, g.up, d);
        sum_rows(n, gated_hidden, hidden_change, g.up_bias);
        multiply(n, d, gated_hidden, hidden_change, gated_hidden, 1, w.up, p.up, nullptr, 0, change, d);
        norm_gradient(s.norm_before_feedforward, n, change, normed, inverse2, dy, change2);
        // Attention.
        multiply(d, inner, n, change2, 1, d, mixed, nullptr, g.project, inner, g.project, inner);
        sum_rows(n, d, change2, g.project_bias);
        multiply(n, inner, d, change2, d, 1, w.project, p.project, nullptr, 0, mixed, inner);
        for (long e = 0; e < count; ++e)
            attention_gradient(first + e, qkv + e * s.seq * 3 * inner, mixed + e * s.seq * inner,
                               weights + e * s.heads * s.seq * keys, qkv_change + e * s.seq * 3 * inner);
        norm(s.norm_before_attention, n, x, normed, inverse);
        multiply(3 * inner, d, n, qkv_change, 1, 3 * inner, normed, nullptr, g.qkv, d, g.qkv, d);
        sum_rows(n, 3 * inner, qkv_change, g.qkv_bias);
        multiply(n, d, 3 * inner, qkv_change, 3 * inner, 1, w.qkv, p.qkv, nullptr, 0, change, d);
        norm_gradient(s.norm_before_attention, n, change, normed, inverse, change2, dx);
    }
    long inner_width() const { return inner; }
    long hidden_width() const { return gated_hidden; }
};

template <class T, bool HALF>
void forward(const Sizes& s, const Weights<T>& w, const Inputs& in, const T* x, T* y, T* qkv, T* hidden) {
    const Packed packed(s, w, HALF);
#pragma omp parallel num_threads(s.threads)
    {
        Worker<T, HALF> worker(s, w, packed, in);
        const long step = worker.examples, size = s.seq * s.width;
        const long q = 3 * worker.inner_width() * s.seq, h = worker.hidden_width() * s.seq;
#pragma omp for schedule(static)
        for (long i = 0; i < s.batch; i += step)
            worker.forward(i, std::min<long>(step, s.batch - i), x + i * size, y + i * size, qkv ? qkv + i * q : nullptr,
                           hidden ? hidden + i * h : nullptr);
    }
}

template <class T, bool HALF>
void backward(const Sizes& s, const Weights<T>& w, const Inputs& in, const T* dy, const T* x, const T* qkv,
              const T* hidden, T* dx, const Gradients<T>& g, int64_t total) {
    // g.qkv is the start of one tensor of `total` numbers that holds all gradients. Each further thread has its own.
    std::vector<std::vector<T>> own(s.threads);
    const Packed packed(s, w, HALF);
#pragma omp parallel num_threads(s.threads)
    {
#ifdef _OPENMP
        const int number = omp_get_thread_num();
#else
        const int number = 0;
#endif
        Gradients<T> mine = g;
        if (number) {
            own[number].assign(total, T(0));
            for (T** part : {&mine.qkv, &mine.project, &mine.up, &mine.down, &mine.qkv_bias, &mine.project_bias,
                             &mine.up_bias, &mine.down_bias})
                if (*part) *part = own[number].data() + (*part - g.qkv);
        }
        Worker<T, HALF> worker(s, w, packed, in);
        const long step = worker.examples, size = s.seq * s.width;
        const long q = 3 * worker.inner_width() * s.seq, h = worker.hidden_width() * s.seq;
#pragma omp for schedule(static)
        for (long i = 0; i < s.batch; i += step)
            worker.backward(i, std::min<long>(step, s.batch - i), dy + i * size, x + i * size, qkv + i * q,
                            hidden + i * h, dx + i * size, mine);
    }
    for (auto& other : own)
        for (size_t j = 0; j < other.size(); ++j) g.qkv[j] += other[j];
}

}  // namespace

#define EXPORT(NAME, T, HALF)                                                                                          \
    void forward_##NAME(const Sizes* s, const Weights<T>* w, const Inputs* in, const T* x, T* y, T* qkv, T* hidden) {   \
        forward<T, HALF>(*s, *w, *in, x, y, qkv, hidden);                                                              \
    }                                                                                                                  \
    void backward_##NAME(const Sizes* s, const Weights<T>* w, const Inputs* in, const T* dy, const T* x, const T* qkv,  \
                         const T* hidden, T* dx, const Gradients<T>* g, int64_t total) {                               \
        backward<T, HALF>(*s, *w, *in, dy, x, qkv, hidden, dx, *g, total);                                             \
    }
extern "C" {
EXPORT(float, float, false)
EXPORT(double, double, false)
#ifdef __AVX512BF16__
EXPORT(bfloat16, float, true)
#endif
}
