// A convolution of spikes adds up the weights of the inputs that are not zero (the oracle is torch's convolution).
//
// Outputs go by columns of 64. A panel has the weights of one or two groups and a column, which about fit into the
// first-level cache; a strip is some rows of the output. For each of its places, and each panel, a list is made of the
// inputs that are not zero, as rows of the panel; then panel after panel is added up along these lists. Sums are
// float32, in an order that depends on nothing but which inputs are zero.
#include <atomic>

#include "spikes.h"

namespace {

constexpr index WIDE = 64, STRIP_FLOATS = 8192;

// --------------------------------------------------------------------------------------------------------------- lists

// Of a strip, for each panel and place of the output: the inputs that are not zero, by their rows in the panel, and
// their values where they are not all one. Each list is filled up to a multiple of P::FOLD with a row of zeros.
template <class X, class P>
struct Lists {
    std::vector<uint16_t> rows;
    std::vector<X> values;
    std::vector<uint32_t> starts;

    void make(const X* x, const Geometry& g, const uint16_t* planes, bool ones, index first, index n_rows) {
        index longest = g.taps() * GROUP * P::GROUPS, at = 0;
        starts.clear();
        for (index panel = 0; panel < g.groups(); panel += P::GROUPS)
            for (index row = first; row < first + n_rows; row++) {
                index image = row / g.out_height, top = row % g.out_height * g.stride[0];
                for (index column = 0; column < g.out_width; column++) {
                    index start = at, left = column * g.stride[1], from = 0;
                    index corner = (image * g.height + top - g.padding[0]) * g.width + left - g.padding[1];
                    starts.push_back(uint32_t(start));
                    make_room(at + longest + GROUP, ones);
                    for (index group = panel; group < std::min(panel + P::GROUPS, g.groups()); group++)
                        for (index i = 0; i < g.kernel[0]; i++) {
                            const uint16_t* bits = planes + g.row(group, image, top + i * g.dilation[0]) + left;
                            const X* inputs = x + (corner + i * g.dilation[0] * g.width) * g.channels + group * GROUP;
                            for (index j = 0; j < g.kernel[1]; j++, from += GROUP) {
                                uint16_t there = bits[j * g.dilation[1]];
                                // Whether there are any is not asked: the processor would guess wrong.
                                if (!ones) list_values(there, inputs + j * g.dilation[1] * g.channels, &values[at]);
                                at += list_places(there, from, &rows[at]);
                            }
                        }
                    for (; (at - start) % P::FOLD; at++) {
                        rows[at] = uint16_t(longest);
                        if (!ones) values[at] = X{};
                    }
                }
            }
        starts.push_back(uint32_t(at));
    }

    void make_room(index needed, bool ones) {
        if (needed <= index(rows.size())) return;
        rows.resize(2 * needed);
        if (!ones) values.resize(2 * needed);
    }
};

// ------------------------------------------------------------------------------------------------------------- weights

// A panel is [GROUPS * taps * 16 + 1, WIDE], the last row zero. Sum i is that of the numbers at `place(i)` of each row.
template <class X>
struct Panel {
    using number = float;
    static constexpr index FOLD = 1, GROUPS = 1;

    static index place(index sum) { return sum; }
    static number from(X x) { return as_float(x); }

    // sums += the rows, each times its value or, where there are none, as it is.
    static void add(const number* panel, const uint16_t* rows, const X* values, index n, float* sums) {
        lanes sum[WIDE / LANES];
        std::memcpy(sum, sums, sizeof(sum));
        for (index k = 0; k < n; k++) {
            const lanes* row = reinterpret_cast<const lanes*>(panel + rows[k] * WIDE);
            if (values)
                for (index v = 0; v < WIDE / LANES; v++) sum[v] += row[v] * as_float(values[k]);
            else
                for (index v = 0; v < WIDE / LANES; v++) sum[v] += row[v];
        }
        std::memcpy(sums, sum, sizeof(sum));
    }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
template <>
struct Panel<bfloat16> {
    using number = bfloat16;
    static constexpr index FOLD = 2, GROUPS = 2;

    static index place(index sum) { return place_of_pair(sum); }
    static number from(bfloat16 x) { return x; }

    static void add(const number* panel, const uint16_t* rows, const bfloat16* values, index n, float* sums) {
        __m512 sum[WIDE / LANES];
        std::memcpy(sum, sums, sizeof(sum));
        __m512i factors = _mm512_set1_epi16(0x3f80);
        for (index k = 0; k < n; k += 2) {
            if (values) factors = pair_of(values + k);
            const number *one = panel + rows[k] * WIDE, *other = panel + rows[k + 1] * WIDE;
            for (index v = 0; v < WIDE / LANES; v += 2)
                add_pair(one + v * LANES, other + v * LANES, factors, sum + v);
        }
        std::memcpy(sums, sum, sizeof(sum));
    }
};
#endif

template <class P>
index panel_size(const Geometry& g) {
    return (P::GROUPS * g.taps() * GROUP + 1) * WIDE;
}

template <class P>
index panels_a_column(const Geometry& g) {
    return (g.groups() + P::GROUPS - 1) / P::GROUPS;
}

// panels: [columns, count] of them. Returns whether all weights are finite.
template <class X>
bool pack(const X* weights, const Geometry& g, typename Panel<X>::number* panels, int threads) {
    using P = Panel<X>;
    index columns = (g.outputs + WIDE - 1) / WIDE, count = panels_a_column<P>(g), taps = g.taps();
    std::atomic<bool> finite{true};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (index part = 0; part < columns * count; part++) {
        index first = part / count * WIDE, from_group = part % count * P::GROUPS;
        typename P::number* panel = panels + part * panel_size<P>(g);
        std::fill_n(panel, panel_size<P>(g), P::from(X{}));
        float zero = 0;
        for (index output = first; output < std::min(first + WIDE, g.outputs); output++) {
            auto* to = panel + P::place(output - first);
            for (index group = from_group; group < std::min(from_group + P::GROUPS, g.groups()); group++)
                for (index tap = 0; tap < taps; tap++, to += GROUP * WIDE) {
                    const X* from = weights + output * taps * g.channels + tap * g.tap_stride;
                    from += group * GROUP * g.channel_stride;
                    for (index c = 0; c < std::min(GROUP, g.channels - group * GROUP); c++) {
                        X weight = from[c * g.channel_stride];
                        to[c * WIDE] = P::from(weight);
                        zero += as_float(weight) * 0.0f;
                    }
                }
        }
        if (zero != 0) finite = false;  // it is not a number
    }
    return finite;
}

// --------------------------------------------------------------------------------------------------------- convolution

template <class X>
bool convolve(const X* x, const X* weights, const float* bias, const Geometry& g, const uint16_t* planes, bool ones,
              X* out, int threads) {
    using P = Panel<X>;
    index columns = (g.outputs + WIDE - 1) / WIDE, count = panels_a_column<P>(g);
    std::vector<typename P::number, AtLines<typename P::number>> panels(columns * count * panel_size<P>(g));
    if (!pack<X>(weights, g, panels.data(), threads)) return false;

    index rows = g.images * g.out_height;
    index per = std::max(std::min(STRIP_FLOATS / WIDE / g.out_width, rows / (4 * threads)), index(1));
#pragma omp parallel num_threads(threads)
    {
        Lists<X, P> lists;
        std::vector<float, AtLines<float>> sums(per * g.out_width * WIDE);
#pragma omp for schedule(dynamic, 1)
        for (index first = 0; first < rows; first += per) {
            index n_rows = std::min(per, rows - first), places = n_rows * g.out_width;
            lists.make(x, g, planes, ones, first, n_rows);
            for (index column = 0; column < columns; column++) {
                index wide = std::min(WIDE, g.outputs - column * WIDE);
                for (index place = 0; place < places; place++) {
                    std::fill_n(&sums[place * WIDE], WIDE, 0.0f);
                    if (bias) std::copy_n(bias + column * WIDE, wide, &sums[place * WIDE]);
                }
                for (index part = 0; part < count; part++) {
                    const typename P::number* panel = panels.data() + (column * count + part) * panel_size<P>(g);
                    const uint32_t* starts = &lists.starts[part * places];
                    for (index place = 0; place < places; place++) {
                        const X* values = ones ? nullptr : &lists.values[starts[place]];
                        index n = starts[place + 1] - starts[place];
                        P::add(panel, &lists.rows[starts[place]], values, n, &sums[place * WIDE]);
                    }
                }
                X* to = out + first * g.out_width * g.outputs + column * WIDE;
                for (index place = 0; place < places; place++, to += g.outputs)
                    if (wide == WIDE) store(&sums[place * WIDE], to, WIDE);  // a length that the compiler knows
                    else store(&sums[place * WIDE], to, wide);
            }
        }
    }
    return true;
}

// ------------------------------------------------------------------------------------------ the gradient by the weights

// Of kernels 3 x 3 that move by one. A task has some groups of channels and STRAND outputs, and its own sums [channels,
// 9, STRAND]. It goes over the images by blocks of some rows: the gradient of their outputs is laid out row by row, each
// behind two zeros, so that the nine that an input has a part in lie at fixed distances from it; and of every channel,
// in registers, the nine of each input that is not zero are added up.
constexpr index STRAND = 2 * LANES, TAPS = 9, BLOCK_NUMBERS = 12288, GROUPS_A_TASK = 4;

// How the STRAND gradients of a place are held and added. Sum i is that of the numbers at `place(i)`.
template <class X>
struct Strand {
    using number = float;
    static constexpr index FOLD = 1;

    static index place(index sum) { return sum; }

    // sums += the nine neighbours of each place, times its value or, where there are none, as they are.
    static void add(const number* gradients, index width, const uint16_t* places, const X* values, index n,
                    float* sums) {
        lanes sum[TAPS][2];
        std::memcpy(sum, sums, sizeof(sum));
        for (index k = 0; k < n; k++)
            for (index tap = 0; tap < TAPS; tap++) {
                index place = places[k] + (2 - tap / 3) * width + 2 - tap % 3;
                const lanes* there = reinterpret_cast<const lanes*>(gradients + place * STRAND);
                for (index v = 0; v < 2; v++) sum[tap][v] += values ? there[v] * as_float(values[k]) : there[v];
            }
        std::memcpy(sums, sum, sizeof(sum));
    }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
template <>
struct Strand<bfloat16> {
    using number = bfloat16;
    static constexpr index FOLD = 2;

    static index place(index sum) { return place_of_pair(sum); }

    static void add(const number* gradients, index width, const uint16_t* places, const bfloat16* values, index n,
                    float* sums) {
        __m512 sum[TAPS][2];
        std::memcpy(sum, sums, sizeof(sum));
        __m512i factors = _mm512_set1_epi16(0x3f80);
        for (index k = 0; k < n; k += 2) {
            if (values) factors = pair_of(values + k);
            for (index tap = 0; tap < TAPS; tap++) {
                const number* there = gradients + ((2 - tap / 3) * width + 2 - tap % 3) * STRAND;
                add_pair(there + places[k] * STRAND, there + places[k + 1] * STRAND, factors, sum[tap]);
            }
        }
        std::memcpy(sums, sum, sizeof(sum));
    }
};
#endif

template <class X>
struct Block {
    const Geometry& g;
    index width, rows, images;  // places between two rows, rows of the input, images
    std::vector<typename Strand<X>::number, AtLines<typename Strand<X>::number>> gradients;
    std::vector<index> inputs;  // by place, where its channels are

    explicit Block(const Geometry& geometry) : g(geometry), width(g.padded_width()) {
        rows = std::clamp(BLOCK_NUMBERS / (width * STRAND) - 2, index(1), g.height);
        images = rows < g.height ? 1 : std::clamp(BLOCK_NUMBERS / (size() * STRAND), index(1), g.images);
        inputs.resize(places());
        gradients.resize((places() + 2 * width + 3) * STRAND);
    }

    index size() const { return (rows + 2) * width; }
    index places() const { return images * size(); }  // and, as one more place, neighbours that are zero

    void fill(const X* by_out, index image, index top, index strand) {
        for (index place = 0; place < places(); place++) {
            index row = (image + place / size()) * g.height + top + place % size() / width;
            inputs[place] = (row * g.width + place % width - g.padding[1]) * g.channels;
        }
        index wide = std::min(STRAND, g.outputs - strand * STRAND);
        std::fill(gradients.begin(), gradients.end(), typename Strand<X>::number{});
        for (index k = 0; k < std::min(images, g.images - image); k++)
            for (index r = 0; r < rows + 2; r++) {
                index y = top + r + g.padding[0] - 2;
                if (y < 0 || y >= g.out_height) continue;
                const X* from = by_out + ((image + k) * g.out_height + y) * g.out_width * g.outputs + strand * STRAND;
                auto* to = &gradients[(k * size() + r * width + 2) * STRAND];
                for (index z = 0; z < g.out_width; z++, from += g.outputs, to += STRAND)
                    if (wide == STRAND) load(from, to, STRAND);  // a length that the compiler knows
                    else load(from, to, wide);
            }
    }
};

// Of a block and a group, for each channel: the inputs that are not zero, by their places in the block, and their
// values where they are not all one. Each list is filled up to a multiple of FOLD.
template <class X>
struct Channels {
    std::vector<uint16_t> places[GROUP];
    std::vector<X> values[GROUP];
    index n[GROUP];

    explicit Channels(index most) {
        for (auto& list : places) list.resize(most + GROUP);
        for (auto& list : values) list.resize(most + GROUP);
    }

    void find(const X* x, const Block<X>& block, const uint16_t* planes, index group, index image, index top,
              bool ones) {
        const Geometry& g = block.g;
        index channels = std::min(GROUP, g.channels - group * GROUP);
        index length = std::min(block.rows, g.height - top) * block.width;
        std::fill_n(n, GROUP, 0);
        for (index k = 0; k < std::min(block.images, g.images - image); k++) {
            const uint16_t* bits = planes + g.row(group, image + k, top + g.padding[0]);
            for (index first = 0; first < length; first += 16)
                for (index c = 0; c < channels; c++) {
                    uint16_t there = bits_with(bits + first, std::min(index(16), length - first), c);
                    n[c] += list_places(there, k * block.size() + first, &places[c][n[c]]);
                }
        }
        for (index c = 0; c < channels; c++) {
            if (!ones)
                for (index k = 0; k < n[c]; k++) values[c][k] = x[block.inputs[places[c][k]] + group * GROUP + c];
            for (; n[c] % Strand<X>::FOLD; n[c]++) {
                places[c][n[c]] = uint16_t(block.places());
                values[c][n[c]] = X{};
            }
        }
    }
};

// by_weights: as the weights.
template <class X>
void gradient(const X* x, const X* by_out, const Geometry& g, const uint16_t* planes, bool ones, float* by_weights,
              int threads) {
    index strands = (g.outputs + STRAND - 1) / STRAND, parts = (g.groups() + GROUPS_A_TASK - 1) / GROUPS_A_TASK;
#pragma omp parallel num_threads(threads)
    {
        Block<X> block(g);
        Channels<X> channels(block.places());
        std::vector<float, AtLines<float>> sums(GROUPS_A_TASK * GROUP * TAPS * STRAND);
#pragma omp for schedule(dynamic, 1)
        for (index task = 0; task < strands * parts; task++) {
            index strand = task / parts, first = task % parts * GROUPS_A_TASK;
            index groups = std::min(GROUPS_A_TASK, g.groups() - first);
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (index image = 0; image < g.images; image += block.images)
                for (index top = 0; top < g.height; top += block.rows) {
                    block.fill(by_out, image, top, strand);
                    for (index group = 0; group < groups; group++) {
                        channels.find(x, block, planes, first + group, image, top, ones);
                        for (index c = 0; c < GROUP; c++) {
                            const X* values = ones ? nullptr : channels.values[c].data();
                            Strand<X>::add(block.gradients.data(), block.width, channels.places[c].data(), values,
                                           channels.n[c], &sums[(group * GROUP + c) * TAPS * STRAND]);
                        }
                    }
                }
            index n_channels = std::min(groups * GROUP, g.channels - first * GROUP);
            for (index sum = 0; sum < STRAND; sum++) {
                index output = strand * STRAND + Strand<X>::place(sum);
                for (index tap = 0; tap < TAPS && output < g.outputs; tap++) {
                    float* to = by_weights + output * TAPS * g.channels + tap * g.tap_stride;
                    for (index c = 0; c < n_channels; c++)
                        to[(first * GROUP + c) * g.channel_stride] = sums[(c * TAPS + tap) * STRAND + sum];
                }
            }
        }
    }
}

}  // namespace

#define EXPORT(X, SUFFIX)                                                                                              \
    void look_##SUFFIX(const X* x, const Geometry* g, uint16_t* planes, int64_t* found, int threads) {                 \
        look(x, *g, planes, found, threads);                                                                           \
    }                                                                                                                  \
    int convolve_##SUFFIX(const X* x, const X* weights, const float* bias, const Geometry* g, const uint16_t* planes,  \
                          int ones, X* out, int threads) {                                                             \
        return convolve(x, weights, bias, *g, planes, ones, out, threads);                                             \
    }                                                                                                                  \
    void gradient_##SUFFIX(const X* x, const X* by_out, const Geometry* g, const uint16_t* planes, int ones,           \
                           float* by_weights, int threads) {                                                           \
        gradient(x, by_out, *g, planes, ones, by_weights, threads);                                                    \
    }

extern "C" {
EXPORT(float, float32)
EXPORT(bfloat16, bfloat16)
}
