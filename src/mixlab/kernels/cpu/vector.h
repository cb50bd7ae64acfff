// Vectors of floats as wide as the machine has them; bfloat16 lies in memory only, all arithmetic is float32.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

namespace {

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

struct BFloat16 {
    uint16_t bits;
};

inline Vector spread(float value) { return value - Vector{}; }

inline Vector load(const float* from) {
    Vector found;
    memcpy(&found, from, sizeof found);
    return found;
}

inline Vector load(const BFloat16* from) {
    Halves found;
    memcpy(&found, from, sizeof found);
    return (Vector)(__builtin_convertvector(found, Bits) << 16);
}

inline void store(float* to, Vector values) { memcpy(to, &values, sizeof values); }

inline void store(BFloat16* to, Vector values) {  // to the nearest, ties to even
#if defined(__AVX512BF16__)
    __m256bh rounded = _mm512_cvtneps_pbh((__m512)values);
    memcpy(to, &rounded, sizeof rounded);
#else
    Bits bits = (Bits)values;
    Halves rounded = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
    memcpy(to, &rounded, sizeof rounded);
#endif
}

// The last vector of a row may be shorter: the lanes beyond `count` read as 0 and are not written.
template <class T>
inline Vector load(const T* from, int64_t count) {
    if (count >= LANES) return load(from);
    T part[LANES] = {};
    for (int64_t lane = 0; lane < count; lane++) part[lane] = from[lane];
    return load(part);
}

template <class T>
inline void store(T* to, Vector values, int64_t count) {
    if (count >= LANES) return store(to, values);
    T part[LANES];
    store(part, values);
    for (int64_t lane = 0; lane < count; lane++) to[lane] = part[lane];
}

inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// exp(x) for x <= 0, relative error 2e-7, 0 below -87: 2^n times a polynomial in the rest.
inline Vector exp_of_negative(Vector given) {
    const Vector least = spread(-87.0f), x = larger(given, least);
    const Vector magic = spread(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    Vector shifted = x * 1.44269504f + magic, n = shifted - magic;
    Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector p = spread(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return given < least ? Vector{} : (Vector)((Ints)p + ((Ints)shifted << 23));
}

// GELU(x) = x P(x) and its derivative P(x) + x p(x), P and p of the standard normal distribution. P from the
// approximation 7.1.26 of Abramowitz and Stegun (absolute error below 1e-7).
inline Vector gelu(Vector x, Vector& derivative) {
    Vector size = larger(x, -x);
    Vector t = 1.0f / (1.0f + 0.23164189f * size);
    Vector density = exp_of_negative(-0.5f * x * x);
    Vector tail = spread(0.5307027145f);
    tail = tail * t - 0.7265760135f;
    tail = tail * t + 0.7107068705f;
    tail = tail * t - 0.142248368f;
    tail = tail * t + 0.127414796f;
    tail = tail * t * density;
    Vector below = x > 0.0f ? 1.0f - tail : tail;
    derivative = below + x * density * 0.39894228f;
    return x * below;
}

}  // namespace
