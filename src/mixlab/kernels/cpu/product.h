// Matrix products of positions with the weights of a 1x1 convolution, a tile of sums at a time in registers.
//
// What is multiplied is first laid out in units of four bytes, a band of them side by side. A unit is a number in
// float32, or two in bfloat16 where the machine multiplies and adds those at once.
#pragma once
#include <vector>

#include "memory.h"

namespace {

constexpr int HEIGHT = LANES == 8 ? 6 : 8;   // positions of a tile: as many as there are registers for
constexpr int CHANNELS = LANES == 8 ? 4 : 8;  // channels of a tile of a weight gradient: as many, that divide a band
constexpr int WIDTH = 2;                      // vectors of a row of a tile
constexpr int64_t BAND = WIDTH * LANES;
constexpr int64_t ROOM = (NEAR + HEIGHT - 1) / HEIGHT * HEIGHT;  // for NEAR positions in whole tiles

struct Floats {
    static constexpr int TOGETHER = 1;  // numbers of a unit
    static Vector add(Vector sum, Vector input, Vector weights) { return sum + input * weights; }
    static Vector input(const float* unit) { return spread(*unit); }
    static void store_weight(float* unit, int, float weight) { *unit = weight; }
    template <class T>
    static void store_units(float* units, const T* from, int64_t channels) {
        with_lanes(channels, [&](auto lanes) { store(units, load(from, lanes)); });
    }
};

#if defined(__AVX512BF16__)
struct Pairs {
    static constexpr int TOGETHER = 2;
    static Vector input(const float* unit) { return (Vector)_mm512_set1_ps(*unit); }
    static Vector add(Vector sum, Vector input, Vector weights) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)input, (__m512bh)weights);
    }
    static void store_weight(float* unit, int place, float weight) {
        BFloat16 rounded[LANES];
        store(rounded, spread(weight));
        memcpy((BFloat16*)unit + place, rounded, sizeof(BFloat16));
    }
    static void store_units(float* units, const BFloat16* from, int64_t channels) {
        memcpy(units, from, least(channels, LANES * TOGETHER) * sizeof(BFloat16));
    }
};
#endif

// What multiplies numbers of a type fastest.
template <class T>
struct Fastest {
    typedef Floats Arithmetic;
};
#if defined(__AVX512BF16__)
template <>
struct Fastest<BFloat16> {
    typedef Pairs Arithmetic;
};
#endif

inline int64_t bands_of(int64_t units) { return divide_up(units, BAND); }

// Weights (channels, channels) as units (bands of outputs, inputs, BAND outputs), zeros beyond the last of both.
template <class Arithmetic>
class Weights {
public:
    Weights(const float* weights, int64_t channels, bool transposed, int64_t threads)
        : bands(bands_of(divide_up(channels, Arithmetic::TOGETHER))),
          values(bands_of(channels) * bands * BAND * BAND) {
        const int64_t of_input = transposed ? channels : 1, of_output = transposed ? 1 : channels;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t band = 0; band < bands_of(channels); band++) {
            const int64_t first = band * BAND, wanted = least(BAND, channels - first);
            for (int64_t input = 0; input < channels; input++) {
                float* to = values.data() + (band * bands * BAND + input / Arithmetic::TOGETHER) * BAND;
                const float* from = weights + input * of_input + first * of_output;
                for (int64_t output = 0; output < wanted; output++)
                    Arithmetic::store_weight(to + output, input % Arithmetic::TOGETHER, from[output * of_output]);
            }
        }
    }
    const float* of_band(int64_t band) const { return values.data() + band * bands * BAND * BAND; }
    const int64_t bands;  // of inputs

private:
    std::vector<float> values;
};

// Lays out positions as units (bands, ROOM, BAND), zeros beyond the last position and channel: calls
// put(units, position, channel) for every vector of units, which are zeros before.
template <class Arithmetic, class Put>
inline void lay_out(float* units, int64_t positions, int64_t channels, Put&& put) {
    constexpr int64_t STEP = LANES * Arithmetic::TOGETHER;
    const int64_t bands = divide_up(channels, WIDTH * STEP);
    for (int64_t position = 0; position < positions; position++) {
        for (int64_t vector = 0; vector < bands * WIDTH; vector++) {
            const int64_t channel = vector * STEP;
            float* to = units + (vector / WIDTH * ROOM + position) * BAND + vector % WIDTH * LANES;
            if (channel + STEP > channels) store(to, Vector{});
            if (channel < channels) put(to, position, channel);
        }
    }
    for (int64_t band = 0; band < bands; band++)
        memset((void*)(units + (band * ROOM + positions) * BAND), 0, (ROOM - positions) * BAND * sizeof(float));
}

// sums (HIGH, WIDTH) = the sum over bands and `depth` units of each of a (HIGH rows) times b (WIDTH vectors), where a
// has ROW units between its rows and STEP from one to the next. Not inlined: it needs every register there is.
template <class Arithmetic, int HIGH, int ROW, int STEP>
__attribute__((noinline)) void multiply(
    Vector (&sums)[HIGH][WIDTH], const float* a, int64_t bands, int64_t depth, const float* b) {
    Vector found[HIGH][WIDTH];
#pragma GCC unroll 16
    for (int row = 0; row < HIGH; row++) found[row][0] = found[row][1] = Vector{};
    for (int64_t band = 0; band < bands; band++) {
        const float* from = a + band * ROOM * BAND;
        for (int64_t unit = 0; unit < depth; unit++) {
            const Vector first = load(b + unit * BAND), second = load(b + unit * BAND + LANES);
#pragma GCC unroll 16
            for (int row = 0; row < HIGH; row++) {
                const Vector input = Arithmetic::input(from + row * ROW + unit * STEP);
                found[row][0] = Arithmetic::add(found[row][0], input, first);
                found[row][1] = Arithmetic::add(found[row][1], input, second);
            }
        }
        b += depth * BAND;
    }
#pragma GCC unroll 16
    for (int row = 0; row < HIGH; row++) sums[row][0] = found[row][0], sums[row][1] = found[row][1];
}

// Multiplies positions, laid out, with weights: calls emit(first, last, channel, lanes, sum) for the positions of every
// tile and every vector of output channels, where sum(position) is what comes out.
template <class Arithmetic, class Emit>
inline void multiply_positions(
    const float* units, int64_t positions, int64_t channels, const Weights<Arithmetic>& weights, Emit&& emit) {
    for (int64_t band = 0; band < bands_of(channels); band++) {
        for (int64_t first = 0; first < positions; first += HEIGHT) {
            Vector sums[HEIGHT][WIDTH];
            multiply<Arithmetic, HEIGHT, BAND, 1>(
                sums, units + first * BAND, weights.bands, BAND, weights.of_band(band));
            for (int64_t vector = 0; vector < WIDTH; vector++) {
                const int64_t channel = band * BAND + vector * LANES;
                const auto sum = [&](int64_t position) { return sums[position - first][vector]; };
                with_lanes(channels - channel, [&](auto lanes) {
                    emit(first, least(first + HEIGHT, positions), channel, lanes, sum);
                });
            }
        }
    }
}

// totals (channels, channels) += the sums over positions, laid out in float32, of each channel above times each of x.
inline void add_products(
    const float* above, const float* x, int64_t positions, int64_t channels, float* totals) {
    for (int64_t band = 0; band < bands_of(channels); band++) {
        for (int64_t first = 0; first < channels; first += CHANNELS) {
            float* to = totals + first * channels + band * BAND;
            const int64_t wanted = least(CHANNELS, channels - first);
            for (int64_t row = 0; row < wanted; row++)
                for (int64_t place = 0; place < BAND; place += LINE / sizeof(float))
                    __builtin_prefetch(to + row * channels + place, 1, 3);
            Vector sums[CHANNELS][WIDTH];
            multiply<Floats, CHANNELS, 1, BAND>(
                sums, above + first / BAND * ROOM * BAND + first % BAND, 1, positions, x + band * ROOM * BAND);
            for (int64_t vector = 0; vector < WIDTH; vector++)
                with_lanes(channels - band * BAND - vector * LANES, [&](auto lanes) {
                    for (int64_t row = 0; row < wanted; row++)
                        add(to + row * channels + vector * LANES, sums[row][vector], lanes);
                });
        }
    }
}

}  // namespace
