// The passes over a layer of neurons, each reading its operands once (methods 6; the oracle is plain.py).
//
// A layer is a row of N neurons in the order of memory, a sequence is [T, N] or, constant in time, [1, N]. Channel of
// neuron n: (n / inner) % channels. The current is the sum of up to two terms, each scaled and shifted by channel where
// a table is given. Work goes by blocks of neurons small enough for the first-level cache; everything within a block is
// float32. Compiled once per neuron rule:
//   HARD 0|1, LEAK_FIRST 0|1 (leak-then-subtract), DETACH 0|1, SURROGATE_<Name>.
#include <algorithm>
#include <cmath>
#include <vector>

#include "floats.h"

namespace {

constexpr index BLOCK = 256;

// Spikes are 0, 1 or not a number, which need no rounding.
void store_spikes(const float* from, float* to, index n) { store(from, to, n); }

void store_spikes(const float* from, bfloat16* to, index n) {
#pragma omp simd
    for (index i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, &from[i], 4);
        to[i].bits = uint16_t(bits >> 16);
    }
}

// ------------------------------------------------------------------------------------------------------------ channels

struct Channels {
    index count, inner;

    // A table with one value a channel, laid out so that `at` can point into it.
    std::vector<float> table(const float* values) const {
        if (!values) return {};
        std::vector<float> long_enough(inner == 1 ? count + BLOCK : count);
        for (size_t i = 0; i < long_enough.size(); i++) long_enough[i] = values[i % count];
        return long_enough;
    }

    // The table's values of the n neurons from `first` on.
    const float* at(const std::vector<float>& table, index first, index n, float* buffer) const {
        if (inner == 1) return table.data() + first % count;
        each_run(first, n, [&](index channel, index from, index length) {
            std::fill_n(buffer + from, length, table[channel]);
        });
        return buffer;
    }

    // Adds the values of the n neurons from `first` on to their channels' sums.
    void add(const float* values, index first, index n, double* sums) const {
        if (inner == 1) {
            for (index from = 0, channel = first % count; from < n; channel = 0) {
                index length = std::min(count - channel, n - from);
#pragma omp simd
                for (index i = 0; i < length; i++) sums[channel + i] += values[from + i];
                from += length;
            }
            return;
        }
        each_run(first, n, [&](index channel, index from, index length) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (index i = 0; i < length; i++) sum += values[from + i];
            sums[channel] += sum;
        });
    }

    template <class Visit>
    void each_run(index first, index n, Visit visit) const {
        for (index from = 0; from < n;) {
            index place = first + from, length = std::min(inner - place % inner, n - from);
            visit((place / inner) % count, from, length);
            from += length;
        }
    }
};

// Calls work(first, n, mine) for every block, mine being this thread's `sums` doubles, and adds those up into `total`.
template <class Work>
void by_blocks(index neurons, index cost, int threads, index sums, double* total, Work work) {
    index blocks = (neurons + BLOCK - 1) / BLOCK;
    if (neurons * cost < 32768) threads = 1;
    std::vector<std::vector<double>> mine(threads, std::vector<double>(sums));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++)
        for (index b = blocks * thread / threads; b < blocks * (thread + 1) / threads; b++)
            work(b * BLOCK, std::min(BLOCK, neurons - b * BLOCK), mine[thread].data());
    for (index i = 0; i < sums; i++)
        for (int thread = 0; thread < threads; thread++) total[i] += mine[thread][i];
}

// ------------------------------------------------------------------------------------------------------------- current

template <class X>
struct Term {
    const X* values;  // [steps, N]
    index steps;
    const float *scale, *shift;  // a value a channel, or null
};

// The sum of one or two terms, read block by block.
template <class X>
struct Current {
    const Term<X>* terms;
    int count;
    index neurons;
    Channels channels;
    std::vector<float> scale[2], shift[2];

    Current(const Term<X>* terms, int count, index neurons, Channels channels)
        : terms(terms), count(count), neurons(neurons), channels(channels) {
        for (int k = 0; k < count; k++) {
            scale[k] = channels.table(terms[k].scale);
            shift[k] = channels.table(terms[k].shift);
        }
    }

    struct Block {
        float values[BLOCK], second[BLOCK], buffers[4][BLOCK];
        const float *scale[2], *shift[2];
    };

    void open(Block& block, index first, index n) const {
        for (int k = 0; k < count; k++) {
            if (!terms[k].scale) continue;
            block.scale[k] = channels.at(scale[k], first, n, block.buffers[2 * k]);
            block.shift[k] = channels.at(shift[k], first, n, block.buffers[2 * k + 1]);
        }
    }

    // to = carry + current of step t.
    void charge(Block& block, index t, index first, index n, const float* carry, float* to) const {
        float* x = block.values;
        if (count == 2) {
            read(block, 1, t, first, n, block.second);
            read(block, 0, t, first, n, x);
#pragma omp simd
            for (index i = 0; i < n; i++) to[i] = carry[i] + (x[i] + block.second[i]);
        } else if (terms[0].scale) {
            const float *a = block.scale[0], *b = block.shift[0];
            load(row(0, t) + first, x, n);
#pragma omp simd
            for (index i = 0; i < n; i++) to[i] = carry[i] + (x[i] * a[i] + b[i]);
        } else {
            load(row(0, t) + first, x, n);
#pragma omp simd
            for (index i = 0; i < n; i++) to[i] = carry[i] + x[i];
        }
    }

    const X* row(int k, index t) const { return terms[k].values + (terms[k].steps == 1 ? 0 : t) * neurons; }

    void read(const Block& block, int k, index t, index first, index n, float* x) const {
        load(row(k, t) + first, x, n);
        if (!terms[k].scale) return;
        const float *a = block.scale[k], *b = block.shift[k];
#pragma omp simd
        for (index i = 0; i < n; i++) x[i] = x[i] * a[i] + b[i];
    }
};

// -------------------------------------------------------------------------------------------------------------- neuron

struct Neuron {
    float leak, threshold, parameter;  // the surrogate's

    float fire(float v) const {
        float fired = (LEAK_FIRST ? v > threshold : v >= threshold) ? 1.0f : 0.0f;
        return v == v ? fired : v;
    }
    float carry(float v, float s) const {
        if (HARD) return leak * v * (1.0f - s);
        return LEAK_FIRST ? leak * v - threshold * s : leak * (v - threshold * s);
    }
    float carry_by_spike(float v) const {
        if (HARD) return -leak * v;
        return LEAK_FIRST ? -threshold : -leak * threshold;
    }
    float carry_by_potential(float s) const { return HARD ? leak * (1.0f - s) : leak; }
    float carry_by_leak(float v, float s) const {
        if (HARD) return v * (1.0f - s);
        return LEAK_FIRST ? v : v - threshold * s;
    }
    float carry_by_threshold(float s) const {
        if (HARD) return 0.0f;
        return LEAK_FIRST ? -s : -leak * s;
    }
    float slope(float v) const {
        float distance = v - threshold;
#if defined(SURROGATE_Sigmoid)
        float power = exponential(-parameter * std::fabs(distance));  // the sigmoid's derivative is even
        return parameter * power / ((1.0f + power) * (1.0f + power));
#elif defined(SURROGATE_Linear)
        return parameter / threshold * positive(1.0f - std::fabs(distance) / threshold);
#elif defined(SURROGATE_ATan)
        float scaled = 1.5707963267948966f * parameter * distance;
        return 0.5f * parameter / (1.0f + scaled * scaled);
#elif defined(SURROGATE_Triangle)
        return positive(parameter - parameter * parameter * std::fabs(distance));
#elif defined(SURROGATE_Rectangular)
        return std::fabs(distance) < 0.5f / parameter ? parameter : 0.0f;
#endif
    }

    // max(x, 0), and not a number where x is not one.
    static float positive(float x) { return x <= 0.0f ? 0.0f : x; }

    // exp of x <= 0 by its remainder after whole powers of two (a polynomial of degree 6), which vectorises; within 2 ulp.
    static float exponential(float x) {
        x = std::max(x, -87.0f);
        float power = std::floor(std::fma(x, 1.44269504f, 0.5f));
        float r = std::fma(power, 2.12194440e-4f, std::fma(power, -0.693359375f, x));
        float p = std::fma(1.9875691500e-4f, r, 1.3981999507e-3f);
        p = std::fma(p, r, 8.3334519073e-3f);
        p = std::fma(p, r, 4.1665795894e-2f);
        p = std::fma(p, r, 1.6666665459e-1f);
        p = std::fma(p, r, 5.0000001201e-1f);
        int32_t bits = (int32_t(power) + 127) << 23;
        float two_to_power;
        std::memcpy(&two_to_power, &bits, 4);
        return std::fma(p, r * r, r + 1.0f) * two_to_power;
    }
};

struct Shape {
    index timesteps, neurons;
    Channels channels;
};

// A row's values of a block, or `otherwise` where there is no row; and back, if it is wanted.
void take(const float* row, float otherwise, index first, index n, float* to) {
    if (row) load(row + first, to, n);
    else std::fill_n(to, n, otherwise);
}

void put(const float* from, index first, index n, float* row) {
    if (row) store(from, row + first, n);
}

// -------------------------------------------------------------------------------------------------------------- passes

template <class X>
void spikes(const Term<X>* terms, int count, Shape shape, Neuron neuron, const float* carry, X* spikes, float* last,
            int threads) {
    Current<X> current(terms, count, shape.neurons, shape.channels);
    by_blocks(shape.neurons, shape.timesteps, threads, 0, nullptr, [&](index first, index n, double*) {
        typename Current<X>::Block block;
        float c[BLOCK], v[BLOCK], s[BLOCK];
        current.open(block, first, n);
        take(carry, 0.0f, first, n, c);
        for (index t = 0; t < shape.timesteps; t++) {
            current.charge(block, t, first, n, c, v);
#pragma omp simd
            for (index i = 0; i < n; i++) {
                s[i] = neuron.fire(v[i]);
                c[i] = neuron.carry(v[i], s[i]);
            }
            store_spikes(s, spikes + t * shape.neurons + first, n);
        }
        put(c, first, n, last);
    });
}

template <class X>
void spikes_backward(const X* by_spikes, const float* by_last, const Term<X>* terms, int count, Shape shape,
                     Neuron neuron, const float* carry, X* by_current, float* by_carry, double* by_parameters,
                     int threads) {
    Current<X> current(terms, count, shape.neurons, shape.channels);
    index T = shape.timesteps;
    by_blocks(shape.neurons, T, threads, by_parameters ? 2 : 0, by_parameters, [&](index first, index n, double* sums) {
        typename Current<X>::Block block;
        thread_local std::vector<float> potentials;
        potentials.resize(T * BLOCK);
        float c[BLOCK], s[BLOCK], g[BLOCK], by_leak[BLOCK], by_threshold[BLOCK];
        current.open(block, first, n);
        take(carry, 0.0f, first, n, c);
        for (index t = 0; t < T; t++) {
            float* v = &potentials[t * BLOCK];
            current.charge(block, t, first, n, c, v);
#pragma omp simd
            for (index i = 0; i < n; i++) c[i] = neuron.carry(v[i], neuron.fire(v[i]));
        }
        take(by_last, 0.0f, first, n, g);
        std::fill_n(by_leak, n, 0.0f);
        std::fill_n(by_threshold, n, 0.0f);
        for (index t = T; t-- > 0;) {
            const float* v = &potentials[t * BLOCK];
            load(by_spikes + t * shape.neurons + first, s, n);
            if (by_parameters) {
#pragma omp simd
                for (index i = 0; i < n; i++) {
                    float spike = neuron.fire(v[i]);
                    float by_spike = DETACH ? s[i] : s[i] + g[i] * neuron.carry_by_spike(v[i]);
                    by_leak[i] += g[i] * neuron.carry_by_leak(v[i], spike);
                    by_threshold[i] += g[i] * neuron.carry_by_threshold(spike) - by_spike * neuron.slope(v[i]);
                }
            }
#pragma omp simd
            for (index i = 0; i < n; i++) {
                float by_spike = DETACH ? s[i] : s[i] + g[i] * neuron.carry_by_spike(v[i]);
                g[i] = by_spike * neuron.slope(v[i]) + g[i] * neuron.carry_by_potential(neuron.fire(v[i]));
            }
            store(g, by_current + t * shape.neurons + first, n);
        }
        put(g, first, n, by_carry);
        if (by_parameters) {
            Channels{1, shape.neurons}.add(by_leak, first, n, sums);
            Channels{1, shape.neurons}.add(by_threshold, first, n, sums + 1);
        }
    });
}

// What the rate pass takes from some of its steps into the next (rate_state.py), a row each; null is the start, or not
// wanted. Sums come as they are or, where a rate [N] is wanted, divided by the steps.
struct RateState {
    float *carry, *k, *spikes, *e, *kl, *el, *kt, *et;
};

template <class X>
void rate(const Term<X>* terms, int count, Shape shape, Neuron neuron, RateState from, X* spikes, X* rate, RateState to,
          int threads) {
    constexpr bool SAME_K = DETACH && !HARD;  // then k depends on no neuron's spikes
    Current<X> current(terms, count, shape.neurons, shape.channels);
    float steps = float(shape.timesteps);
    bool learn = to.el || to.et;
    by_blocks(shape.neurons, shape.timesteps, threads, 0, nullptr, [&](index first, index n, double*) {
        typename Current<X>::Block block;
        float c[BLOCK], v[BLOCK], s[BLOCK], r[BLOCK], k[BLOCK], e[BLOCK];
        float kl[BLOCK], el[BLOCK], kt[BLOCK], et[BLOCK];
        current.open(block, first, n);
        take(from.carry, 0.0f, first, n, c), take(from.spikes, 0.0f, first, n, r);
        take(from.k, 1.0f, first, n, k), take(from.e, 0.0f, first, n, e);
        take(from.kl, 0.0f, first, n, kl), take(from.el, 0.0f, first, n, el);
        take(from.kt, 0.0f, first, n, kt), take(from.et, 0.0f, first, n, et);
        float same_k = k[0];
        for (index t = 0; t < shape.timesteps; t++) {
            current.charge(block, t, first, n, c, v);
            if (learn) {
#pragma omp simd
                for (index i = 0; i < n; i++) {
                    float spike = neuron.fire(v[i]), slope = neuron.slope(v[i]);
                    float by_potential = neuron.carry_by_potential(spike);
                    float by_spike = DETACH ? 0.0f : neuron.carry_by_spike(v[i]);
                    float change = slope * kl[i];
                    el[i] += change;
                    kl[i] = neuron.carry_by_leak(v[i], spike) + by_potential * kl[i] + by_spike * change;
                    change = slope * (kt[i] - 1.0f);
                    et[i] += change;
                    kt[i] = neuron.carry_by_threshold(spike) + by_potential * kt[i] + by_spike * change;
                }
            }
#pragma omp simd
            for (index i = 0; i < n; i++) {
                float spike = neuron.fire(v[i]), change = neuron.slope(v[i]) * (SAME_K ? same_k : k[i]);
                float by_spike = DETACH ? 0.0f : neuron.carry_by_spike(v[i]) * change;
                s[i] = spike;
                r[i] += spike;
                e[i] += change;
                if (!SAME_K) k[i] = 1.0f + neuron.carry_by_potential(spike) * k[i] + by_spike;
                c[i] = neuron.carry(v[i], spike);
            }
            same_k = 1.0f + neuron.leak * same_k;
            store_spikes(s, spikes + t * shape.neurons + first, n);
        }
        if (SAME_K && to.k) std::fill_n(k, n, same_k);
        if (rate) {
#pragma omp simd
            for (index i = 0; i < n; i++) r[i] /= steps, e[i] /= steps, el[i] /= steps, et[i] /= steps;
            store(r, rate + first, n);
        }
        put(c, first, n, to.carry), put(r, first, n, to.spikes);
        put(k, first, n, to.k), put(e, first, n, to.e);
        put(kl, first, n, to.kl), put(el, first, n, to.el);
        put(kt, first, n, to.kt), put(et, first, n, to.et);
    });
}

// Per channel the sums of x - pivot and (x - pivot)^2 over steps and neurons, and per neuron the mean over the steps.
template <class X>
void moments(const X* x, Shape shape, const float* pivot, double* sums, X* time_mean, int threads) {
    index C = shape.channels.count;
    auto pivots = shape.channels.table(pivot);
    float steps = float(shape.timesteps);
    by_blocks(shape.neurons, shape.timesteps, threads, 2 * C, sums, [&](index first, index n, double* mine) {
        float now[BLOCK], sum[BLOCK], square[BLOCK], total[BLOCK], buffer[BLOCK];
        const float* from = shape.channels.at(pivots, first, n, buffer);
        std::fill_n(sum, n, 0.0f), std::fill_n(square, n, 0.0f), std::fill_n(total, n, 0.0f);
        for (index t = 0; t < shape.timesteps; t++) {
            load(x + t * shape.neurons + first, now, n);
#pragma omp simd
            for (index i = 0; i < n; i++) {
                float distance = now[i] - from[i];
                sum[i] += distance;
                square[i] += distance * distance;
                total[i] += now[i];
            }
        }
        shape.channels.add(sum, first, n, mine);
        shape.channels.add(square, first, n, mine + C);
        if (!time_mean) return;
#pragma omp simd
        for (index i = 0; i < n; i++) total[i] /= steps;
        store(total, time_mean + first, n);
    });
}

// d = delta * factor (written to `product` where it is given), and per channel the sums of d and of d * (x - mean):
// sums [2, C]. All are [steps, N]; without factor d is delta.
template <class X>
void products(const X* delta, const float* factor, const X* x, const float* mean, Shape shape, X* product,
              double* sums, int threads) {
    index C = shape.channels.count;
    auto means = shape.channels.table(mean);
    by_blocks(shape.neurons, shape.timesteps, threads, x ? 2 * C : 0, sums, [&](index first, index n, double* mine) {
        float d[BLOCK], now[BLOCK], buffer[BLOCK], sum[BLOCK], by_x[BLOCK];
        const float* from = x ? shape.channels.at(means, first, n, buffer) : nullptr;
        std::fill_n(sum, n, 0.0f), std::fill_n(by_x, n, 0.0f);
        for (index t = 0; t < shape.timesteps; t++) {
            index place = t * shape.neurons + first;
            load(delta + place, d, n);
            if (factor) {
                load(factor + place, now, n);
#pragma omp simd
                for (index i = 0; i < n; i++) d[i] *= now[i];
            }
            if (product) store(d, product + place, n);
            if (!x) continue;
            load(x + place, now, n);
#pragma omp simd
            for (index i = 0; i < n; i++) {
                sum[i] += d[i];
                by_x[i] += d[i] * (now[i] - from[i]);
            }
        }
        if (!x) return;
        shape.channels.add(sum, first, n, mine);
        shape.channels.add(by_x, first, n, mine + C);
    });
}

// a d + b x + c with a, b, c by channel; without d where it is null. All are [steps, N].
template <class X>
void affine(const X* d, const float* a, const X* x, const float* b, const float* c, Shape shape, X* result,
            int threads) {
    auto as = shape.channels.table(a), bs = shape.channels.table(b), cs = shape.channels.table(c);
    by_blocks(shape.neurons, shape.timesteps, threads, 0, nullptr, [&](index first, index n, double*) {
        float by[BLOCK], now[BLOCK], buffers[3][BLOCK];
        const float* scale = d ? shape.channels.at(as, first, n, buffers[0]) : nullptr;
        const float* slope = shape.channels.at(bs, first, n, buffers[1]);
        const float* shift = shape.channels.at(cs, first, n, buffers[2]);
        for (index t = 0; t < shape.timesteps; t++) {
            index place = t * shape.neurons + first;
            load(x + place, now, n);
#pragma omp simd
            for (index i = 0; i < n; i++) now[i] = now[i] * slope[i] + shift[i];
            if (d) {
                load(d + place, by, n);
#pragma omp simd
                for (index i = 0; i < n; i++) now[i] += by[i] * scale[i];
            }
            store(now, result + place, n);
        }
    });
}

}  // namespace

#define EXPORT(X, SUFFIX)                                                                                              \
    void spikes_##SUFFIX(const Term<X>* terms, int count, const Shape* shape, const Neuron* neuron,                    \
                         const float* carry, X* out, float* last, int threads) {                                       \
        spikes<X>(terms, count, *shape, *neuron, carry, out, last, threads);                                           \
    }                                                                                                                  \
    void spikes_backward_##SUFFIX(const X* by_spikes, const float* by_last, const Term<X>* terms, int count,           \
                                  const Shape* shape, const Neuron* neuron, const float* carry, X* by_current,         \
                                  float* by_carry, double* by_parameters, int threads) {                               \
        spikes_backward<X>(by_spikes, by_last, terms, count, *shape, *neuron, carry, by_current, by_carry,             \
                           by_parameters, threads);                                                                    \
    }                                                                                                                  \
    void rate_##SUFFIX(const Term<X>* terms, int count, const Shape* shape, const Neuron* neuron,                      \
                       const RateState* from, X* out, X* r, const RateState* to, int threads) {                        \
        rate<X>(terms, count, *shape, *neuron, *from, out, r, *to, threads);                                           \
    }                                                                                                                  \
    void moments_##SUFFIX(const X* x, const Shape* shape, const float* pivot, double* sums, X* mean, int threads) {    \
        moments<X>(x, *shape, pivot, sums, mean, threads);                                                             \
    }                                                                                                                  \
    void products_##SUFFIX(const X* delta, const float* factor, const X* x, const float* mean, const Shape* shape,      \
                           X* product, double* sums, int threads) {                                                    \
        products<X>(delta, factor, x, mean, *shape, product, sums, threads);                                           \
    }                                                                                                                  \
    void affine_##SUFFIX(const X* d, const float* a, const X* x, const float* b, const float* c, const Shape* shape,   \
                         X* result, int threads) {                                                                     \
        affine<X>(d, a, x, b, c, *shape, result, threads);                                                             \
    }

extern "C" {
EXPORT(float, float32)
EXPORT(bfloat16, bfloat16)
}
