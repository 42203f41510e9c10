// Depthwise 3×3 convolution: each channel by itself. There is so little arithmetic to a value here
// that memory and bookkeeping would be most of it. So a channel's weights and sums stay in
// registers over a group of rows, BatchNorm's statistics are taken from the values as they are
// made, and one pass backward does all: the activation again, both gradients, and BatchNorm's sums.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// Rows that meet a kernel's three: `rows[i]` and the two behind it, each from its left border on,
// belong to the i-th row that is made; a row of zeros stands for one outside the map.
struct DepthwiseRows {
    const float *row[kMostGroup + 4];
    int n;  // that are made
};

static DepthwiseRows depthwise_rows(const Ring &ring, const float *zeros, int height, int from,
                                    int n) {
    DepthwiseRows rows;
    rows.n = n;
    for (int i = 0; i < n + 2; ++i) {
        const int y = from + i;
        rows.row[i] = y < 0 || y >= height ? zeros : ring.row(y);
    }
    return rows;
}

// Rows of raw, one behind the other, to `out`.
template <bool kStatistics>
struct DepthwiseForward {
    const Stage &s;
    const float *weight;
    const DepthwiseRows &rows;
    float *out;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const size_t step = size_t(s.channels) * L;
        const int width = s.width;
        V w[9][kChannels], pivot[kChannels], sum[kChannels], square[kChannels];
        float *sums = s.lane_sums + 2 * size_t(c) * L;
        for (int k = 0; k < kChannels; ++k) {
            for (int tap = 0; tap < 9; ++tap) w[tap][k] = all(weight[9 * (c + k) + tap]);
            pivot[k] = all(s.mean[c + k]);
            sum[k] = load(sums + 2 * k * L);
            square[k] = load(sums + (2 * k + 1) * L);
        }
        float *to = out + size_t(c) * L;
        for (int i = 0; i < rows.n; ++i) {
            const float *in[3];
            for (int ky = 0; ky < 3; ++ky) in[ky] = rows.row[i + ky] + size_t(c) * L;
            for (int x = 0; x < width; ++x, to += step) {
                V value[kChannels] = {};
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; ++tap) {
                    const float *pixel = in[tap / 3] + tap % 3 * step;
                    for (int k = 0; k < kChannels; ++k) {
                        value[k] = fma(load(pixel + k * L), w[tap][k], value[k]);
                    }
                }
                for (int k = 0; k < kChannels; ++k) {
                    store(to + k * L, value[k]);
                    if (!kStatistics) continue;
                    const V distance = value[k] - pivot[k];
                    sum[k] += distance;
                    square[k] = fma(distance, distance, square[k]);
                }
                for (int ky = 0; ky < 3; ++ky) in[ky] += step;
            }
        }
        for (int k = 0; kStatistics && k < kChannels; ++k) {
            store(sums + 2 * k * L, sum[k]);
            store(sums + (2 * k + 1) * L, square[k]);
        }
    }
};

constexpr int kDepthwiseChannels = L == 16 ? 2 : 1;  // 9 weights each: registers

template <bool kStatistics>
static void depthwise_forward(const Stage &s, const float *weight, const DepthwiseRows &rows,
                              float *out) {
    DepthwiseForward<kStatistics> work{s, weight, rows, out};
    for_channels<kDepthwiseChannels>(work, s.channels);
}

// Rows [from, from + rows.n) of the activation before, of which `source` is the view: adds their
// part of the gradient of the weights, and makes dz of them, as finish_gradient_row() does.
template <Activation kActivation, bool kDrop>
struct DepthwiseBackward {
    const Stage &s;
    const float *weight;
    const DepthwiseRows &rows;  // of raw's gradient
    const View &source;
    int from;
    float *out;
    size_t out_row;  // 0 where nobody needs dz, and one row takes all

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &before = *source.stage;
        const size_t step = size_t(s.channels) * L;
        const int width = s.in_width;
        uint32_t element = uint32_t(from) * width * s.channels + c;
        const float *raw = source.seen() + size_t(element) * L;
        float *weight_sums = s.weight_sums + 9 * size_t(c) * L;
        float *norm_sums = before.lane_sums + 2 * size_t(c) * L;
        V w[9], weight_sum[9], scale{}, shift{}, mean{}, sum{}, centred{};
        for (int tap = 0; tap < 9; ++tap) {
            w[tap] = all(weight[9 * c + tap]);
            weight_sum[tap] = load(weight_sums + tap * L);
        }
        if (kActivation != kNothing) {
            scale = all(before.scale[c]), shift = all(before.shift[c]), mean = all(before.mean[c]);
            sum = load(norm_sums), centred = load(norm_sums + L);
        }
        for (int i = 0; i < rows.n; ++i) {
            // Kernel row 0 meets the last of the three rows, and kernel column 0 the last pixel.
            const float *gradient[3];
            for (int ky = 0; ky < 3; ++ky) gradient[ky] = rows.row[i + 2 - ky] + size_t(c) * L;
            float *to = out + i * out_row + size_t(c) * L;
            for (int x = 0; x < width; ++x, raw += step, to += step) {
                fetch(raw + width * step);  // of the next row; there is work enough to wait behind
                const V value = in_register(load(raw));
                const V z = normalise<kActivation>(value, scale, shift);
                V activation = activate<kActivation>(z), dz{};
                V kept = all(1);
                if (kDrop) kept = dropout_factor(before.dropout, source.keys, element);
                if (kDrop) activation *= kept;
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; ++tap) {
                    const V g = in_register(load(gradient[tap / 3] + (2 - tap % 3) * step));
                    weight_sum[tap] = fma(g, activation, weight_sum[tap]);
                    dz = fma(g, w[tap], dz);
                }
                if (kDrop) dz *= kept;
                dz = activation_gradient<kActivation>(z, dz);
                store(to, dz);
                if (kActivation != kNothing) {
                    sum += dz;
                    centred = fma(dz, value - mean, centred);
                }
                for (int ky = 0; ky < 3; ++ky) gradient[ky] += step;
                if (kDrop) element += s.channels;
            }
        }
        for (int tap = 0; tap < 9; ++tap) store(weight_sums + tap * L, weight_sum[tap]);
        if (kActivation == kNothing) return;
        store(norm_sums, sum);
        store(norm_sums + L, centred);
    }
};

template <Activation kActivation, bool kDrop>
static void depthwise_backward_rows(const Stage &s, const float *weight, const DepthwiseRows &rows,
                                    const View &source, int from, float *scratch) {
    const size_t row = size_t(s.in_width) * s.channels * L;
    float *out = source.gradient ? source.gradient + from * row : scratch;
    DepthwiseBackward<kActivation, kDrop> work{
        s, weight, rows, source, from, out, source.gradient ? row : 0};
    for_channels<1>(work, s.channels);
}

static void depthwise_backward(const Stage &s, const float *weight, const DepthwiseRows &rows,
                               const View &source, int from, float *scratch) {
    typedef void (*Rows)(const Stage &, const float *, const DepthwiseRows &, const View &, int,
                         float *);
    static const Rows table[3][2] = {
        {depthwise_backward_rows<kNothing, false>, depthwise_backward_rows<kNothing, true>},
        {depthwise_backward_rows<kRelu, false>, depthwise_backward_rows<kRelu, true>},
        {depthwise_backward_rows<kHardSwish, false>, depthwise_backward_rows<kHardSwish, true>}};
    const Stage &before = *source.stage;
    table[before.activation][before.dropout.threshold > 0](s, weight, rows, source, from, scratch);
}

static void unpack_depthwise_gradient(const Stage &s, float *gradient) {
    for (size_t i = 0; i < s.weights(); ++i)
        gradient[i] = float(total(load(s.weight_sums + i * L)));
}
