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
#if defined(__AVX512F__)  // the general form compiles to two halves here
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#else
    Halves found;
    memcpy(&found, from, sizeof found);
    return (Vector)(__builtin_convertvector(found, Bits) << 16);
#endif
}

inline float as_float(float value) { return value; }

inline float as_float(BFloat16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
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

// How many lanes of a vector hold channels: all of them, known while compiling, or the last few of an odd number.
struct Full {};
struct Partial {
    int64_t lanes;
};

template <class T>
inline Vector load(const T* from, Full) {
    return load(from);
}

template <class T>
inline Vector load(const T* from, Partial part) {  // 0 in the other lanes
    T values[LANES] = {};
    memcpy(values, from, part.lanes * sizeof(T));
    return load(values);
}

template <class T>
inline void store(T* to, Vector values, Full) {
    store(to, values);
}

template <class T>
inline void store(T* to, Vector values, Partial part) {
    T found[LANES];
    store(found, values);
    memcpy(to, found, part.lanes * sizeof(T));
}

template <class Lanes>
inline void add(float* to, Vector value, Lanes lanes) {
    store(to, load(to, lanes) + value, lanes);
}

// Calls work(Full) or work(Partial) for the vector that starts before the last `left` channels.
template <class Work>
inline void with_lanes(int64_t left, Work&& work) {
    if (left >= LANES) return work(Full{});
    if (left > 0) work(Partial{left});
}

// Where one is NaN they return the second.
#if defined(__AVX512F__)
inline Vector larger(Vector a, Vector b) { return (Vector)_mm512_max_ps((__m512)a, (__m512)b); }
inline Vector smaller(Vector a, Vector b) { return (Vector)_mm512_min_ps((__m512)a, (__m512)b); }
#else
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
#endif

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

// The standard normal distribution P(x) and its density, without the factor 1 / sqrt(2 pi), by the approximation 7.1.26
// of Abramowitz and Stegun (absolute error below 1e-7).
inline Vector normal_distribution(Vector x, Vector& density) {
    Vector t = 1.0f / (1.0f + 0.23164189f * larger(x, -x));
    density = exp_of_negative(-0.5f * x * x);
    Vector tail = spread(0.5307027145f);
    tail = tail * t - 0.7265760135f;
    tail = tail * t + 0.7107068705f;
    tail = tail * t - 0.142248368f;
    tail = tail * t + 0.127414796f;
    tail = tail * t * density;
    return x > 0.0f ? 1.0f - tail : tail;
}

// 1/2 + x q(square), square = x x.
template <int COUNT>
inline Vector step(Vector x, Vector square, const float (&q)[COUNT]) {
    Vector found = spread(q[COUNT - 1]);
#pragma GCC unroll 16
    for (int power = COUNT - 2; power >= 0; power--) found = found * square + q[power];
    return found * x + 0.5f;
}

// GELU(x) = x P(x), and its derivative P(x) + x p(x). What is stored as bfloat16, with 2^-9 of relative precision, is
// computed from polynomials (benchmarks/gelu_fit.py): absolute error below 1e-4 for GELU, 2.2e-4 for the derivative.
template <class T>
struct Gelu {
    static Vector value(Vector x) {
        Vector density;
        return x * normal_distribution(x, density);
    }
    static Vector value(Vector x, Vector& derivative) {
        Vector density, below = normal_distribution(x, density);
        derivative = below + x * density * 0.39894228f;
        return x * below;
    }
};

template <>
struct Gelu<BFloat16> {
    static constexpr float LIMIT = 4.25f;  // where both polynomials are 0 or 1
    static constexpr float VALUE[] = {0.39842003f,    -0.0654535f,     0.009257821f,   -0.0009404471f,
                                      6.5527027e-05f, -2.9387977e-06f, 7.5708165e-08f, -8.4603863e-10f};
    static constexpr float DERIVATIVE[] = {0.79702914f,    -0.26302224f,    0.056847498f,
                                           -0.0080801984f, 0.00077511114f,  -4.9471098e-05f,
                                           2.0002897e-06f, -4.6105118e-08f, 4.594827e-10f};

    static Vector value(Vector x) {
        x = larger(spread(-LIMIT), x);
        const Vector near = smaller(spread(LIMIT), x);
        return x * step(near, near * near, VALUE);
    }
    static Vector value(Vector x, Vector& derivative) {
        x = larger(spread(-LIMIT), x);
        const Vector near = smaller(spread(LIMIT), x), square = near * near;
        // 0 itself from there on: what is left of 1e-5, times inputs of any size, would be a gradient
        derivative = x == spread(-LIMIT) ? Vector{} : step(near, square, DERIVATIVE);
        return x * step(near, square, VALUE);
    }
};

// What follows a convolution: GELU, or ReLU, whose derivative its output tells. That of GELU is kept in a map, which for
// ReLU is null.
template <class T>
struct Activation {
    bool relu;

    Vector value(Vector x) const { return relu ? larger(Vector{}, x) : Gelu<T>::value(x); }

    template <class Lanes>
    Vector value(Vector x, T* derivatives, int64_t place, Lanes lanes) const {
        if (relu) return larger(Vector{}, x);
        Vector derivative, found = Gelu<T>::value(x, derivative);
        store(derivatives + place, derivative, lanes);
        return found;
    }
    template <class Lanes>
    static Vector derivative(const T* derivatives, int64_t place, Vector output, Lanes lanes) {
        return derivatives ? load(derivatives + place, lanes) : output > 0.0f ? spread(1.0f) : Vector{};
    }
};

}  // namespace
