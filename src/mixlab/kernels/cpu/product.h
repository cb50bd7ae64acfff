// Matrix products of positions with the weights of a 1x1 convolution, a tile of sums at a time in registers.
#pragma once
#include <algorithm>
#include <vector>

#include "arithmetic.h"

namespace {

inline int64_t bands_of(int64_t units) { return divide_up(units, BAND); }

// Weights (channels, channels) as units that are loaded (bands of outputs, inputs, BAND outputs), zeros beyond the last
// of both; the weights of each output have a scale of their own.
template <class Arithmetic>
class Weights {
public:
    static constexpr int64_t OUTPUTS = BAND * Arithmetic::OUTPUTS;  // of a band

    Weights(const float* weights, int64_t channels, bool transposed, int64_t threads)
        : bands(bands_of(divide_up(channels, Arithmetic::TOGETHER))),
          values(divide_up(channels, OUTPUTS) * bands * BAND * BAND),
          factors(divide_up(channels, OUTPUTS) * OUTPUTS) {
        const int64_t of_input = transposed ? channels : 1, of_output = transposed ? 1 : channels;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t output = 0; output < channels; output++) {
            const float* from = weights + output * of_output;
            float* to = values.data() + output / OUTPUTS * bands * BAND * BAND;
            float largest = 0;
            for (int64_t input = 0; input < channels; input++)
                largest = std::max(largest, std::abs(from[input * of_input]));
            const float scale = Arithmetic::scale_of(largest);
            factors[output] = 1 / scale;
            for (int64_t input = 0; input < channels; input++)
                Arithmetic::store_weight(
                    to + input / Arithmetic::TOGETHER * BAND, output % OUTPUTS, input % Arithmetic::TOGETHER,
                    from[input * of_input] * scale);
        }
    }
    const float* of_band(int64_t band) const { return values.data() + band * bands * BAND * BAND; }
    Vector restoring(int64_t output) const { return load(factors.data() + output); }
    const int64_t bands;  // of inputs

private:
    std::vector<float> values, factors;
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

// sums (HIGH, WIDTH or twice as many) = the sum over bands and `depth` units of each of a (HIGH rows) times b (WIDTH
// vectors), where a has ROW units between its rows and STEP from one to the next. Not inlined: it needs every register
// there is.
template <class Arithmetic, int HIGH, int ROW, int STEP>
__attribute__((noinline)) void multiply(
    Vector (&sums)[HIGH][WIDTH * Arithmetic::OUTPUTS], const float* a, int64_t bands, int64_t depth, const float* b) {
    const int64_t together = Arithmetic::DEPTH / depth;
    for (int64_t done = 0; done < bands; done += together) {
        typename Arithmetic::Sum found[HIGH][WIDTH];
#pragma GCC unroll 16
        for (int row = 0; row < HIGH; row++) found[row][0] = found[row][1] = typename Arithmetic::Sum{};
        for (int64_t band = done; band < least(done + together, bands); band++) {
            const float* from = a + band * ROOM * BAND;
            for (int64_t unit = 0; unit < depth; unit++) {
                const auto first = Arithmetic::load_units(b + unit * BAND);
                const auto second = Arithmetic::load_units(b + unit * BAND + LANES);
#pragma GCC unroll 16
                for (int row = 0; row < HIGH; row++) {
                    const auto input = Arithmetic::spread_unit(from + row * ROW + unit * STEP);
                    found[row][0] = Arithmetic::add(found[row][0], input, first);
                    found[row][1] = Arithmetic::add(found[row][1], input, second);
                }
            }
            b += depth * BAND;
        }
#pragma GCC unroll 16
        for (int row = 0; row < HIGH; row++) Arithmetic::finish(found[row], sums[row], done > 0);
    }
}

// Multiplies positions, laid out to be spread, with weights: calls emit(first, last, channel, lanes, sum) for the
// positions of every tile and every vector of output channels, where sum(position) is what comes out.
template <class Arithmetic, class Emit>
inline void multiply_positions(
    const float* units, float restoring, int64_t positions, int64_t channels, const Weights<Arithmetic>& weights,
    Emit&& emit) {
    for (int64_t band = 0; band < divide_up(channels, weights.OUTPUTS); band++) {
        for (int64_t first = 0; first < positions; first += HEIGHT) {
            Vector sums[HEIGHT][WIDTH * Arithmetic::OUTPUTS];
            multiply<Arithmetic, HEIGHT, BAND, 1>(
                sums, units + first * BAND, weights.bands, BAND, weights.of_band(band));
            for (int64_t vector = 0; vector < WIDTH * Arithmetic::OUTPUTS; vector++) {
                const int64_t channel = band * weights.OUTPUTS + vector * LANES;
                const Vector factor = restoring * weights.restoring(channel);
                const auto sum = [&](int64_t position) {
                    return Arithmetic::restored(sums[position - first][vector], factor);
                };
                with_lanes(channels - channel, [&](auto lanes) {
                    emit(first, least(first + HEIGHT, positions), channel, lanes, sum);
                });
            }
        }
    }
}

// totals (channels, channels) += `restoring` times the sums over positions of each channel above times each of x, the
// first laid out to be spread, the second to be loaded.
template <class Arithmetic>
inline void add_products(
    const float* above, const float* x, float restoring, int64_t positions, int64_t channels, float* totals) {
    constexpr int64_t ACROSS = BAND * Arithmetic::OUTPUTS;
    for (int64_t start = 0; start < channels; start += ACROSS) {
        for (int64_t first = 0; first < channels; first += CHANNELS) {
            float* to = totals + first * channels + start;
            const int64_t wanted = least(CHANNELS, channels - first);
            for (int64_t row = 0; row < wanted; row++)
                for (int64_t place = 0; place < ACROSS; place += LINE / sizeof(float))
                    __builtin_prefetch(to + row * channels + place, 1, 3);
            Vector sums[CHANNELS][WIDTH * Arithmetic::OUTPUTS];
            multiply<Arithmetic, CHANNELS, 1, BAND>(
                sums, above + first / BAND * ROOM * BAND + first % BAND, 1, positions, x + start * ROOM);
            for (int64_t vector = 0; vector < WIDTH * Arithmetic::OUTPUTS; vector++)
                with_lanes(channels - start - vector * LANES, [&](auto lanes) {
                    for (int64_t row = 0; row < wanted; row++)
                        add(to + row * channels + vector * LANES,
                            Arithmetic::restored(sums[row][vector], spread(restoring)), lanes);
                });
        }
    }
}

}  // namespace
