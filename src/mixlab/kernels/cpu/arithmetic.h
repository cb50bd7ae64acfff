// In what numbers matrices are multiplied.
//
// What is multiplied is first laid out in units of four bytes, a band of them side by side. Of one factor a unit is
// spread over a vector, of the other a vector of units is loaded. A unit is a number in float32; or two in bfloat16,
// where the machine multiplies and adds those at once; or, in float16, twice the number that is spread or two that are
// loaded.
#pragma once
#include <cmath>
#include <vector>

#include "memory.h"

namespace {

constexpr int HEIGHT = LANES == 8 ? 6 : 8;   // positions of a tile: as many as there are registers for
constexpr int CHANNELS = LANES == 8 ? 4 : 8;  // channels of a tile of a weight gradient: as many, that divide a band
constexpr int WIDTH = 2;                      // vectors of a row of a tile
constexpr int64_t BAND = WIDTH * LANES;
constexpr int64_t ROOM = (NEAR + HEIGHT - 1) / HEIGHT * HEIGHT;  // for NEAR positions in whole tiles

struct Floats {
    typedef Vector Sum;
    static constexpr int TOGETHER = 1;              // numbers of a unit that are added up
    static constexpr int OUTPUTS = 1;               // numbers of a unit whose sums lie side by side
    static constexpr int64_t DEPTH = INT64_MAX / 2;  // products that may be added up in a Sum

    static Sum spread_unit(const float* unit) { return spread(*unit); }
    static Sum load_units(const float* units) { return load(units); }
    static Sum add(Sum sum, Sum spread, Sum units) { return sum + spread * units; }
    static void finish(const Sum (&found)[WIDTH], Vector (&sums)[WIDTH], bool) {
        for (int vector = 0; vector < WIDTH; vector++) sums[vector] = found[vector];
    }
    static void store_weight(float* units, int64_t output, int, float weight) { units[output] = weight; }
    template <class T>
    static void store_units(float* units, const T* from, int64_t channels) {
        with_lanes(channels, [&](auto lanes) { store(units, load(from, lanes)); });
    }
    // Floats are laid out as they are. Others are made of them, and may be scaled: returns what restores the products.
    static float to_spread(float*, int64_t, int64_t) { return 1; }
    static float to_load(float*, int64_t, int64_t) { return 1; }
    static float scale_of(float) { return 1; }
    static Vector restored(Vector sum, Vector) { return sum; }
};

#if defined(__AVX512BF16__)
struct Pairs : Floats {
    static constexpr int TOGETHER = 2;

    static Vector add(Vector sum, Vector spread, Vector units) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)spread, (__m512bh)units);
    }
    static void store_weight(float* units, int64_t output, int place, float weight) {
        BFloat16 rounded[LANES];
        store(rounded, spread(weight));
        memcpy((BFloat16*)(units + output) + place, rounded, sizeof(BFloat16));
    }
    static void store_units(float* units, const BFloat16* from, int64_t channels) {
        memcpy(units, from, least(channels, LANES * TOGETHER) * sizeof(BFloat16));
    }
};
#endif

#if defined(__AVX512FP16__)
// float16 has three binary digits more than bfloat16 and a small range: 2^-14 to 2^16. So both factors are scaled by powers
// of two, which changes no digit, and no more than DEPTH products are added up in it: those stay in range, and lose less
// than what bfloat16 loses when the result is stored.
struct HalfFloats : Floats {
    typedef _Float16 Sum __attribute__((vector_size(4 * LANES)));
    static constexpr int OUTPUTS = 2;
    static constexpr int64_t DEPTH = 64;
    static constexpr int SPREAD_BELOW = 9, LOADED_BELOW = 0;  // powers of two: DEPTH products are below 2^15
    static_assert(BAND <= DEPTH && NEAR <= DEPTH, "products are added up by bands of channels or by NEAR positions");

    static Sum spread_unit(const float* unit) { return (Sum)spread(*unit); }
    static Sum load_units(const float* units) { return (Sum)load(units); }
    static Sum add(Sum sum, Sum spread, Sum units) { return sum + spread * units; }
    static void finish(const Sum (&found)[WIDTH], Vector (&sums)[OUTPUTS * WIDTH], bool more) {
#pragma GCC unroll 16
        for (int vector = 0; vector < WIDTH; vector++) {
            const __m512i halves = (__m512i)found[vector];
            Vector low = (Vector)_mm512_cvtxph_ps((__m256h)_mm512_castsi512_si256(halves));
            Vector high = (Vector)_mm512_cvtxph_ps((__m256h)_mm512_extracti64x4_epi64(halves, 1));
            if (more) low += sums[2 * vector], high += sums[2 * vector + 1];
            sums[2 * vector] = low, sums[2 * vector + 1] = high;
        }
    }
    static void store_weight(float* units, int64_t output, int, float weight) {
        const _Float16 rounded = weight;
        memcpy((_Float16*)units + output, &rounded, sizeof rounded);
    }
    static float to_spread(float* units, int64_t positions, int64_t bands) {
        const float scale = scaled_below(SPREAD_BELOW, largest(units, positions, bands));
        for (int64_t band = 0; band < bands; band++)
            for (int64_t place = 0; place < positions * BAND; place += LANES) {
                float* at = units + band * ROOM * BAND + place;
                const __m512i one = _mm512_cvtepu16_epi32(narrow(load(at) * scale));
                store(at, (Vector)_mm512_or_si512(one, _mm512_slli_epi32(one, 16)));
            }
        return 1 / scale;
    }
    static float to_load(float* units, int64_t positions, int64_t bands) {  // two bands become one, where the first was
        const float scale = scaled_below(LOADED_BELOW, largest(units, positions, bands));
        for (int64_t band = 0; band < bands; band++)
            for (int64_t position = 0; position < positions; position++) {
                const float* from = units + (band * ROOM + position) * BAND;
                float* to = units + (band / 2 * 2 * ROOM + position) * BAND + band % 2 * LANES;
                const __m256i low = narrow(load(from) * scale), high = narrow(load(from + LANES) * scale);
                store(to, (Vector)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
                if (band + 1 == bands && band % 2 == 0) store(to + LANES, Vector{});
            }
        return 1 / scale;
    }
    static float scale_of(float largest) { return scaled_below(LOADED_BELOW, largest); }
    static Vector restored(Vector sum, Vector factor) { return sum * factor; }

private:
    static __m256i narrow(Vector values) { return (__m256i)_mm512_cvtxps_ph((__m512)values); }

    static float largest(const float* units, int64_t positions, int64_t bands) {  // of those that are finite
        Vector found = {};
        for (int64_t band = 0; band < bands; band++)
            for (int64_t place = 0; place < positions * BAND; place += LANES) {
                const Vector value = load(units + band * ROOM * BAND + place), size = larger(value, -value);
                found = larger(size < spread(INFINITY) ? size : Vector{}, found);
            }
        return _mm512_reduce_max_ps((__m512)found);
    }
    static float scaled_below(int wanted, float largest) {  // by the returned power of two
        int exponent;
        frexp(largest, &exponent);
        return ldexp(1.0f, wanted - exponent < -126 ? -126 : wanted - exponent > 126 ? 126 : wanted - exponent);
    }
};
#endif

// What multiplies numbers of a type fastest; in training what is multiplied is computed, and not two of bfloat16.
template <class T>
struct Fastest {
    typedef Floats Arithmetic, InTraining;
};
#if defined(__AVX512FP16__)
template <>
struct Fastest<BFloat16> {
    typedef HalfFloats Arithmetic, InTraining;
};
#elif defined(__AVX512BF16__)
template <>
struct Fastest<BFloat16> {
    typedef Pairs Arithmetic;
    typedef Floats InTraining;
};
#endif

}  // namespace
