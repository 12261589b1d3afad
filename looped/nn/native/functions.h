#pragma once
// The exponential and the activations, without branches, so that compilers vectorise loops over them. The functions of
// double are exact to rounding; tests compare gradients with them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float n = std::nearbyint(x * 1.44269504f);
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}
inline double exponential(double x) { return std::exp(x); }

// Share of a standard normal distribution below x, and its density at x.
inline float normal_below(float x, float& density) {  // Abramowitz and Stegun 7.1.26, absolute error 1e-7
    const float power = exponential(-0.5f * x * x), t = 1.0f / (1.0f + 0.23164189f * std::fabs(x));
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    density = 0.39894228f * power;
    return 0.5f + std::copysign(0.5f - 0.5f * p * t * power, x);
}
inline double normal_below(double x, double& density) {
    density = 0.3989422804014327 * std::exp(-0.5 * x * x);
    return 0.5 * std::erfc(-0.7071067811865476 * x);
}

template <class T> inline T sigmoid(T x) { return T(1) / (T(1) + exponential(-x)); }

enum Activation { GELU, GELU_TANH, SILU, RELU, SWIGLU };

template <int A, class T> inline T activate(T x) {
    T density;
    if constexpr (A == GELU) return x * normal_below(x, density);
    if constexpr (A == GELU_TANH) {  // 0.5 (1 + tanh u) = sigmoid(2u)
        return x * sigmoid(T(1.5957691216057308) * (x + T(0.044715) * x * x * x));
    }
    if constexpr (A == RELU) return x > 0 ? x : T(0);
    return x * sigmoid(x);
}
// act(x) in `value`; returns its derivative.
template <int A, class T> inline T slope(T x, T& value) {
    if constexpr (A == GELU) {
        T density;
        const T below = normal_below(x, density);
        value = x * below;
        return below + x * density;
    }
    if constexpr (A == GELU_TANH) {
        const T s = sigmoid(T(1.5957691216057308) * (x + T(0.044715) * x * x * x));
        value = x * s;
        return s + value * (T(1) - s) * T(1.5957691216057308) * (T(1) + T(0.134145) * x * x);
    }
    if constexpr (A == RELU) {
        value = x > 0 ? x : T(0);
        return x > 0 ? T(1) : T(0);
    }
    const T s = sigmoid(x);
    value = x * s;
    return s + value * (T(1) - s);
}

}  // namespace
