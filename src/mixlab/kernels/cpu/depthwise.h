// Depthwise convolution of one image and LANES channels, from a tile that has its zero border already.
#pragma once
#include "vector.h"

namespace {

constexpr int COLUMNS = 8;  // outputs of a row that are computed together, in registers

// A tile of an image, in float32: (rows + kernel - 1, columns rounded up + kernel - 1, LANES), zeros around the image.
struct Tile {
    Vector* values;
    int64_t width;  // vectors from one row to the next

    static int64_t width_of(int64_t columns, int64_t kernel) {
        return (columns + COLUMNS - 1) / COLUMNS * COLUMNS + kernel - 1;
    }
    static int64_t size_of(int64_t rows, int64_t columns, int64_t kernel) {
        return (rows + kernel - 1) * width_of(columns, kernel);
    }
    Vector* at(int64_t row, int64_t column) const { return values + row * width + column; }
};

// Calls emit(row, column, sum of kernel * tile) for every output.
template <int KERNEL, class Emit>
inline void correlate(Tile tile, int64_t rows, int64_t columns, const Vector* weights, Emit&& emit) {
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < columns; column += COLUMNS) {
            Vector sums[COLUMNS] = {};
#pragma GCC unroll 1
            for (int r = 0; r < KERNEL; r++) {
                const Vector* from = tile.at(row + r, column);
#pragma GCC unroll 32
                for (int c = 0; c < COLUMNS + KERNEL - 1; c++) {
                    Vector value = from[c];
#pragma GCC unroll 16
                    for (int s = 0; s < KERNEL; s++)
                        if (c >= s && c - s < COLUMNS) sums[c - s] += value * weights[r * KERNEL + s];
                }
            }
            int64_t wanted = columns - column < COLUMNS ? columns - column : COLUMNS;
            for (int64_t c = 0; c < wanted; c++) emit(row, column + c, sums[c]);
        }
    }
}

template <class Emit>
inline void correlate_any(
    int64_t kernel, Tile tile, int64_t rows, int64_t columns, const Vector* weights, Emit&& emit) {
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < columns; column += COLUMNS) {
            Vector sums[COLUMNS] = {};
            for (int64_t r = 0; r < kernel; r++) {
                for (int64_t s = 0; s < kernel; s++) {
                    const Vector* from = tile.at(row + r, column + s);
                    Vector weight = weights[r * kernel + s];
#pragma GCC unroll 8
                    for (int c = 0; c < COLUMNS; c++) sums[c] += from[c] * weight;
                }
            }
            int64_t wanted = columns - column < COLUMNS ? columns - column : COLUMNS;
            for (int64_t c = 0; c < wanted; c++) emit(row, column + c, sums[c]);
        }
    }
}

// Adds to `sums` (kernel, kernel) the products of every output's gradient with the inputs that it was made of.
// `gradient` points at the first output; beyond the last column of the image its values are 0.
template <int KERNEL>
inline void add_weight_gradient(
    Tile inputs, const Vector* gradient, int64_t gradient_width, int64_t rows, int64_t columns, Vector* sums) {
    constexpr int GROUP = 4;  // columns together
    for (int r = 0; r < KERNEL; r++) {
        Vector even[KERNEL] = {}, odd[KERNEL] = {};  // two chains each, for additions wait for each other
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t column = 0; column < columns; column += GROUP) {
                const Vector* from = inputs.at(row + r, column);
                const Vector* above = gradient + row * gradient_width + column;
#pragma GCC unroll 32
                for (int c = 0; c < GROUP + KERNEL - 1; c++) {
                    Vector value = from[c];
#pragma GCC unroll 16
                    for (int s = 0; s < KERNEL; s++)
                        if (c >= s && c - s < GROUP) ((c - s) % 2 ? odd : even)[s] += above[c - s] * value;
                }
            }
        }
        for (int s = 0; s < KERNEL; s++) sums[r * KERNEL + s] += even[s] + odd[s];
    }
}

inline void add_weight_gradient_any(
    int64_t kernel, Tile inputs, const Vector* gradient, int64_t gradient_width, int64_t rows, int64_t columns,
    Vector* sums) {
    for (int64_t r = 0; r < kernel; r++) {
        for (int64_t s = 0; s < kernel; s++) {
            Vector parts[4] = {};
            for (int64_t row = 0; row < rows; row++) {
                const Vector* from = inputs.at(row + r, s);
                const Vector* above = gradient + row * gradient_width;
                for (int64_t column = 0; column < columns; column += 4)
#pragma GCC unroll 4
                    for (int c = 0; c < 4; c++) parts[c] += above[column + c] * from[column + c];
            }
            sums[r * kernel + s] += (parts[0] + parts[1]) + (parts[2] + parts[3]);
        }
    }
}

template <class Emit>
inline void correlate_with(
    int64_t kernel, Tile tile, int64_t rows, int64_t columns, const Vector* weights, Emit&& emit) {
    switch (kernel) {
        case 3:
            return correlate<3>(tile, rows, columns, weights, emit);
        case 5:
            return correlate<5>(tile, rows, columns, weights, emit);
        case 7:
            return correlate<7>(tile, rows, columns, weights, emit);
        case 9:
            return correlate<9>(tile, rows, columns, weights, emit);
        default:
            return correlate_any(kernel, tile, rows, columns, weights, emit);
    }
}

inline void add_weight_gradient_with(
    int64_t kernel, Tile inputs, const Vector* gradient, int64_t gradient_width, int64_t rows, int64_t columns,
    Vector* sums) {
    switch (kernel) {
        case 3:
            return add_weight_gradient<3>(inputs, gradient, gradient_width, rows, columns, sums);
        case 5:
            return add_weight_gradient<5>(inputs, gradient, gradient_width, rows, columns, sums);
        case 7:
            return add_weight_gradient<7>(inputs, gradient, gradient_width, rows, columns, sums);
        case 9:
            return add_weight_gradient<9>(inputs, gradient, gradient_width, rows, columns, sums);
        default:
            return add_weight_gradient_any(kernel, inputs, gradient, gradient_width, rows, columns, sums);
    }
}

}  // namespace
