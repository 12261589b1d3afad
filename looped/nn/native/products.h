#pragma once
// Small matrix products, in the precision of their inputs or in bfloat16, on blocks of rows that stay in registers.
#include <algorithm>
#include <cstdint>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 8;
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 6;
#else
constexpr int BYTES = 16, ROWS = 8;
#endif

template <class T> struct Lanes {
    static constexpr long count = BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
};

// R rows and V vectors of columns of c = init + a b. Strides are in elements; init may be null (zero).
template <class T, int R, int V>
inline void tile(long inner, const T* a, long a_row, long a_column, const T* b, long b_row, const T* init, long init_row,
                 T* c, long c_row) {
    using Vector = typename Lanes<T>::type;
    constexpr long W = Lanes<T>::count;
    Vector sum[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) sum[r][v] = init ? *(const Vector*)(init + r * init_row + v * W) : Vector{};
    for (long k = 0; k < inner; ++k) {
        Vector right[V];
        for (int v = 0; v < V; ++v) right[v] = *(const Vector*)(b + k * b_row + v * W);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) sum[r][v] += a[r * a_row + k * a_column] * right[v];
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) *(Vector*)(c + r * c_row + v * W) = sum[r][v];
}

template <class T, int R, int V, class... Rest>
inline void last_rows(long rows, long inner, const T* a, long a_row, Rest... rest) {
    if constexpr (R > 0) {
        if (rows == R) return tile<T, R, V>(inner, a, a_row, rest...);
        last_rows<T, R - 1, V>(rows, inner, a, a_row, rest...);
    }
}

// c = init + a b for `columns` that are a multiple of the vector length.
template <class T>
void product(long rows, long columns, long inner, const T* a, long a_row, long a_column, const T* b, long b_row,
             const T* init, long init_row, T* c, long c_row) {
    constexpr long W = Lanes<T>::count;
    for (long n = 0; n < columns;) {
        const bool two = columns - n >= 2 * W;
        for (long m = 0; m < rows; m += ROWS) {
            const T* left = a + m * a_row;
            const T* start = init ? init + m * init_row + n : nullptr;
            T* out = c + m * c_row + n;
            const long some = std::min<long>(ROWS, rows - m);
            if (two)
                last_rows<T, ROWS, 2>(some, inner, left, a_row, a_column, b + n, b_row, start, init_row, out, c_row);
            else
                last_rows<T, ROWS, 1>(some, inner, left, a_row, a_column, b + n, b_row, start, init_row, out, c_row);
        }
        n += two ? 2 * W : W;
    }
}

#ifdef __AVX512BF16__
// The same in bfloat16 with sums in float. Pairs of numbers that are neighbours along `inner` lie side by side: a pair of
// a is repeated to all lanes, 16 pairs of b fill a vector.

// Pairs (i, i + 1) of the rows of x, which has `rows` rows: (rows / 2, columns, 2). An odd last row pairs with zeros.
void pack_rows(long rows, long columns, const float* x, long x_row, uint16_t* to) {
    for (long i = 0; i < rows; i += 2, to += 2 * columns)
        for (long j = 0; j < columns; j += 16) {
            const __m512 first = _mm512_loadu_ps(x + i * x_row + j);
            const __m512 next = i + 1 < rows ? _mm512_loadu_ps(x + (i + 1) * x_row + j) : _mm512_setzero_ps();
            const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
            const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(next));
            _mm512_storeu_si512(to + 2 * j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}
void pack_columns(long rows, long columns, const float* x, long x_row, uint16_t* to) {
    for (long i = 0; i < rows; ++i, x += x_row)
        for (long j = 0; j < columns; j += 16, to += 16)
            _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + j)));
}

template <int R, int V>
inline void half_tile(long pairs, const int32_t* a, long a_row, long a_pair, const uint16_t* b, long b_row,
                      const float* init, long init_row, float* c, long c_row) {
    __m512 sum[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
            sum[r][v] = init ? _mm512_loadu_ps(init + r * init_row + v * 16) : _mm512_setzero_ps();
    for (long k = 0; k < pairs; ++k) {
        __m512bh right[V];
        for (int v = 0; v < V; ++v) right[v] = (__m512bh)_mm512_loadu_si512(b + 2 * (k * b_row + v * 16));
        for (int r = 0; r < R; ++r) {
            const __m512bh left = (__m512bh)_mm512_set1_epi32(a[r * a_row + k * a_pair]);
            for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, right[v]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + r * c_row + v * 16, sum[r][v]);
}
template <int R, int V, class... Rest>
inline void half_rows(long rows, Rest... rest) {
    if constexpr (R > 0) {
        if (rows == R) return half_tile<R, V>(rest...);
        half_rows<R - 1, V>(rows, rest...);
    }
}
void half_product(long rows, long columns, long pairs, const int32_t* a, long a_row, long a_pair, const uint16_t* b,
                  const float* init, long init_row, float* c, long c_row) {
    for (long n = 0; n < columns;) {
        const bool two = columns - n >= 32;
        for (long m = 0; m < rows; m += 8) {
            const float* start = init ? init + m * init_row + n : nullptr;
            const long some = std::min<long>(8, rows - m);
            const int32_t* left = a + m * a_row;
            if (two)
                half_rows<8, 2>(some, pairs, left, a_row, a_pair, b + 2 * n, columns, start, init_row,
                                c + m * c_row + n, c_row);
            else
                half_rows<8, 1>(some, pairs, left, a_row, a_pair, b + 2 * n, columns, start, init_row,
                                c + m * c_row + n, c_row);
        }
        n += two ? 32 : 16;
    }
}
#endif

}  // namespace
