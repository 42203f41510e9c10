// Depthwise 3×3 convolution: each channel by itself, so a channel's weights stay in registers.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// One output row out of kRows rows of the input; weights lie as (channel, kernel row, column).
template <int kRows>
struct DepthwiseRow {
    const RowTaps &taps;
    float *out;
    int width;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const size_t step = size_t(taps.channels) * L;
        const float *in[kRows];
        V weight[kRows][3][kChannels];
        for (int t = 0; t < kRows; ++t) {
            in[t] = taps.input[t] + size_t(c) * L;
            for (int kx = 0; kx < 3; ++kx) {
                for (int k = 0; k < kChannels; ++k) {
                    weight[t][kx][k] =
                        all(taps.packed[(3 * (c + k) + taps.kernel_row[t]) * 3 + kx]);
                }
            }
        }
        float *to = out + size_t(c) * L;
        for (int x = 0; x < width; ++x, to += step) {
            V sum[kChannels] = {};
            for (int t = 0; t < kRows; ++t) {
                for (int kx = 0; kx < 3; ++kx) {
                    const float *pixel = in[t] + (x + kx) * step;
                    for (int k = 0; k < kChannels; ++k) {
                        sum[k] = fma(load(pixel + k * L), weight[t][kx][k], sum[k]);
                    }
                }
            }
            for (int k = 0; k < kChannels; ++k) store(to + k * L, sum[k]);
        }
    }
};

constexpr int kDepthwiseChannels = L == 16 ? 2 : 1;  // 9 weights each: registers

template <int kRows>
static void depthwise_rows(const RowTaps &taps, float *out, int width) {
    DepthwiseRow<kRows> work{taps, out, width};
    for_channels<kDepthwiseChannels>(work, taps.channels);
}

// One output row of `width` pixels.
static void depthwise_row(const RowTaps &taps, float *out, int width) {
    if (taps.n == 3) return depthwise_rows<3>(taps, out, width);
    if (taps.n == 2) return depthwise_rows<2>(taps, out, width);
    depthwise_rows<1>(taps, out, width);
}

static void pack_depthwise(const Stage &s, const float *weight) {
    memcpy(s.packed, weight, s.weights() * sizeof(float));
}

// For the gradient of the input the columns turn round, as in pack_flipped().
static void pack_depthwise_flipped(const Stage &s, const float *weight) {
    for (int row = 0; row < 3 * s.channels; ++row) {
        for (int kx = 0; kx < 3; ++kx) s.packed_flipped[3 * row + kx] = weight[3 * row + 2 - kx];
    }
}

// Adds the weight gradient of kernel row `ky` over `n_rows` rows.
struct DepthwiseWeightRow {
    const Stage &s;
    int ky;
    const float *const *gradient, *const *input;
    int n_rows;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const size_t step = size_t(s.channels) * L;
        float *sums = s.weight_sums + size_t(3 * c + ky) * 3 * L;  // 9 vectors a channel
        V sum[kChannels][3];
        for (int k = 0; k < kChannels; ++k) {
            for (int kx = 0; kx < 3; ++kx) sum[k][kx] = load(sums + (9 * k + kx) * L);
        }
        for (int row = 0; row < n_rows; ++row) {
            const float *g = gradient[row] + size_t(c) * L, *in = input[row] + size_t(c) * L;
            for (int x = 0; x < s.width; ++x, g += step, in += step) {
                for (int k = 0; k < kChannels; ++k) {
                    const V gradient_k = in_register(load(g + k * L));
                    for (int kx = 0; kx < 3; ++kx) {
                        sum[k][kx] = fma(load(in + kx * step + k * L), gradient_k, sum[k][kx]);
                    }
                }
            }
        }
        for (int k = 0; k < kChannels; ++k) {
            for (int kx = 0; kx < 3; ++kx) store(sums + (9 * k + kx) * L, sum[k][kx]);
        }
    }
};

static void add_depthwise_weight_row(const Stage &s, int ky, const float *const *gradient,
                                     const float *const *input, int n_rows) {
    DepthwiseWeightRow work{s, ky, gradient, input, n_rows};
    for_channels<L == 16 ? 4 : 2>(work, s.channels);
}

static void unpack_depthwise_gradient(const Stage &s, float *gradient) {
    for (size_t i = 0; i < s.weights(); ++i)
        gradient[i] = float(total(load(s.weight_sums + i * L)));
}
