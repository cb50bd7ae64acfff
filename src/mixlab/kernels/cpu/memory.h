// How maps and sums lie in memory, and how work on them is cut into pieces.
#pragma once
#include <cstdlib>
#include <memory>

#include "vector.h"

namespace {

constexpr int64_t CHUNK = 8;   // images whose weight gradients are added up in order
constexpr int64_t ROWS = 256;  // positions whose sums are added up in order
constexpr int64_t NEAR = 64;   // positions whose inputs are near while all weights pass by
constexpr int64_t LINE = 64;   // bytes of a cache line: channels that are worked on together

// Scratch memory of one thread, kept from call to call.
struct Scratch {
    Vector* values = nullptr;
    int64_t size = 0;

    Vector* reserve(int64_t wanted) {
        if (wanted > size) {
            free(values);
            values = static_cast<Vector*>(aligned_alloc(64, (wanted * sizeof(Vector) + 63) / 64 * 64));
            size = wanted;
        }
        return values;
    }
    ~Scratch() { free(values); }
};
thread_local Scratch scratch;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Shape {
    int64_t images, rows, columns, channels;
    int64_t kernel;

    int64_t positions() const { return rows * columns; }
    int64_t taps() const { return kernel * kernel; }
    int64_t chunks() const { return divide_up(images, CHUNK); }
};

// Sums of parts, added up in order in float64 whatever the number of threads.
class Parts {
public:
    Parts(int64_t count, int64_t size) : count(count), size(size), values(new float[count * size]) {}
    float* operator[](int64_t part) { return values.get() + part * size; }
    float* zeroed(int64_t part) { return (float*)memset((*this)[part], 0, size * sizeof(float)); }

    template <class Number>
    void add_up(Number* totals, int64_t threads) const {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t first = 0; first < size; first += LINE) {
            const int64_t wanted = least(LINE, size - first);
            double sums[LINE] = {};
            for (int64_t part = 0; part < count; part++)
                for (int64_t place = 0; place < wanted; place++) sums[place] += values[part * size + first + place];
            for (int64_t place = 0; place < wanted; place++) totals[first + place] = Number(sums[place]);
        }
    }

private:
    int64_t count, size;
    std::unique_ptr<float[]> values;
};

// One piece of a depthwise convolution: some images, and the channels of one cache line in `groups` vectors.
template <class T>
struct Item {
    static constexpr int64_t TOGETHER = LINE / sizeof(T);
    int64_t chunk, first_image, last_image, first_channel, groups;

    static int64_t count(const Shape& shape, int64_t images) {
        return divide_up(shape.images, images) * divide_up(shape.channels, TOGETHER);
    }
    static Item at(int64_t number, const Shape& shape, int64_t images) {
        const int64_t blocks = divide_up(shape.channels, TOGETHER), chunk = number / blocks;
        const int64_t first = number % blocks * TOGETHER;
        return {
            chunk, chunk * images, least((chunk + 1) * images, shape.images) - 1, first,
            divide_up(least(TOGETHER, shape.channels - first), LANES)};
    }
    // From a number of an image to its like in what comes next, which is asked for early.
    int64_t next(int64_t image, int64_t size) const {
        return image < last_image ? size : (first_image - image) * size + TOGETHER;
    }
};

}  // namespace
