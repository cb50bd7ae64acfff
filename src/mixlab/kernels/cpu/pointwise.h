// Matrix products of positions with the weights of a 1x1 convolution, a tile of sums at a time in registers.
#pragma once
#include <vector>

#include "vector.h"

namespace {

constexpr int HEIGHT = LANES == 8 ? 6 : 8;  // positions of a tile: as many as there are registers for
constexpr int WIDTH = 2;                    // vectors of output channels of a tile

// How an element type is multiplied: so many input channels at a time, their weights side by side.
template <class T>
struct Product {
    typedef float Weight;
    static constexpr int TOGETHER = 1;

    static Vector input(const T* from) { return spread(as_float(*from)); }
    static Vector last_input(const T* from) { return input(from); }
    static Vector add(Vector sum, Vector input, Vector weights) { return sum + input * weights; }
};

#if defined(__AVX512BF16__)
template <>
struct Product<BFloat16> {
    typedef BFloat16 Weight;
    static constexpr int TOGETHER = 2;

    static Vector input(const BFloat16* from) {
        int pair;
        memcpy(&pair, from, sizeof pair);
        return (Vector)_mm512_set1_epi32(pair);
    }
    static Vector last_input(const BFloat16* from) { return (Vector)_mm512_set1_epi32(from->bits); }  // and a zero
    static Vector add(Vector sum, Vector input, Vector weights) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)input, (__m512bh)weights);
    }
};
#endif

// The weights of WIDTH vectors of output channels, in the order in which they are read; zeros beyond the last channel.
template <class T>
struct Panels {
    typedef typename Product<T>::Weight Weight;
    static constexpr int TOGETHER = Product<T>::TOGETHER;
    static constexpr int64_t COLUMNS = WIDTH * LANES;

    static int64_t count(int64_t outputs) { return (outputs + COLUMNS - 1) / COLUMNS; }
    static int64_t size(int64_t inputs) { return (inputs + TOGETHER - 1) / TOGETHER * TOGETHER * COLUMNS; }

    // weights: (outputs, inputs)
    static void fill(Weight* panel, const float* weights, int64_t first, int64_t outputs, int64_t inputs) {
        const int64_t wanted = outputs - first < COLUMNS ? outputs - first : COLUMNS;
        std::vector<Weight> row(size(inputs) / COLUMNS);  // of one output
        memset((void*)panel, 0, size(inputs) * sizeof(Weight));
        for (int64_t column = 0; column < wanted; column++) {
            for (int64_t input = 0; input < inputs; input += LANES)
                with_lanes(inputs - input, [&](auto lanes) {
                    store(row.data() + input, load(weights + (first + column) * inputs + input, lanes), lanes);
                });
            Weight* to = panel + column * TOGETHER;
            for (int64_t input = 0; input < inputs; input += TOGETHER)
                memcpy((void*)(to + input * COLUMNS), (const void*)(row.data() + input), TOGETHER * sizeof(Weight));
        }
    }
};

// sums (HEIGHT, WIDTH) = HEIGHT positions times a panel. Not inlined: it needs every register there is.
template <class T>
__attribute__((noinline)) void multiply(
    Vector sums[HEIGHT][WIDTH], const T* x, int64_t inputs, const typename Panels<T>::Weight* panel) {
    constexpr int64_t TOGETHER = Panels<T>::TOGETHER;
    const T *third = x + 3 * inputs, *sixth = x + 6 * inputs;  // few addresses, the others next to them
    Vector found[HEIGHT][WIDTH] = {};
    auto add = [&](auto read) __attribute__((always_inline)) {
        const Vector first = load((const float*)panel), second = load((const float*)panel + LANES);
#pragma GCC unroll 8
        for (int row = 0; row < HEIGHT; row++) {
            const T* from = row < 3 ? x : row < 6 ? third : sixth;
            const Vector input = read(from + row % 3 * inputs);
            found[row][0] = Product<T>::add(found[row][0], input, first);
            found[row][1] = Product<T>::add(found[row][1], input, second);
        }
    };
    for (int64_t input = 0; input + TOGETHER <= inputs; input += TOGETHER) {
        add(Product<T>::input);
        x += TOGETHER, third += TOGETHER, sixth += TOGETHER;
        panel += TOGETHER * Panels<T>::COLUMNS;
    }
    if (inputs % TOGETHER) add(Product<T>::last_input);
    for (int row = 0; row < HEIGHT; row++)
        for (int vector = 0; vector < WIDTH; vector++) sums[row][vector] = found[row][vector];
}

// Calls emit(position, vector of the panel, sum) for every position of [first, last) and every vector of a panel.
template <class T, class Emit>
inline void multiply_positions(
    const T* x, int64_t first, int64_t last, int64_t inputs, const typename Panels<T>::Weight* panel, Emit&& emit) {
    std::vector<T> few;  // a tile that the positions do not fill
    for (int64_t position = first; position < last; position += HEIGHT) {
        const int64_t wanted = last - position < HEIGHT ? last - position : HEIGHT;
        const T* from = x + position * inputs;
        if (wanted < HEIGHT) {
            few.resize(HEIGHT * inputs);
            memcpy((void*)few.data(), from, wanted * inputs * sizeof(T));
            from = few.data();
        }
        Vector sums[HEIGHT][WIDTH];
        multiply<T>(sums, from, inputs, panel);
        for (int64_t row = 0; row < wanted; row++)
            for (int64_t vector = 0; vector < WIDTH; vector++) emit(position + row, vector, sums[row][vector]);
    }
}

}  // namespace
