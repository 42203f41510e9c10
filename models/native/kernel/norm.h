// BatchNorm: statistics, coefficients and their gradients.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

static void clear_sums(const Stage &s) {
    for (int i = 0; i < 2 * s.channels; ++i) s.sums[i] = 0;
}

static void clear_lane_sums(const Stage &s) {
    memset(s.lane_sums, 0, 2 * size_t(s.channels) * L * sizeof(float));
}

// Sums of single precision are kept to one block; over the blocks they are double. Lanes without an
// image drop out here.
static void fold_lane_sums(const Stage &s, M lanes) {
    for (int i = 0; i < 2 * s.channels; ++i) {
        s.sums[i] += total(keep(lanes, load(s.lane_sums + size_t(i) * L)));
    }
}

// The mean of one row of raw, as the value around which to take the statistics: the difference of
// the mean square and the squared mean loses digits where the mean is far from zero.
static void choose_pivot(const Stage &s, const float *row, M lanes) {
    const double n_lanes = total(keep(lanes, all(1)));
    for (int c = 0; c < s.channels; ++c) {
        V sum{};
        for (int x = 0; x < s.width; ++x) sum += load(row + (size_t(x) * s.channels + c) * L);
        s.mean[c] = float(total(keep(lanes, sum)) / (s.width * n_lanes));
    }
}

// Adds `n_pixels` of raw to the sums of their distance from the pivot, and of the square of it.
struct Statistics {
    const Stage &s;
    const float *pixels;
    int n_pixels;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        V pivot[kChannels], sum[kChannels], square[kChannels];
        float *sums = s.lane_sums + 2 * size_t(c) * L;
        for (int k = 0; k < kChannels; ++k) {
            pivot[k] = all(s.mean[c + k]);
            sum[k] = load(sums + 2 * k * L);
            square[k] = load(sums + (2 * k + 1) * L);
        }
        const size_t step = size_t(s.channels) * L;
        const float *pixel = pixels + size_t(c) * L;
        for (int n = n_pixels; n > 0; --n, pixel += step) {
            for (int k = 0; k < kChannels; ++k) {
                const V distance = load(pixel + k * L) - pivot[k];
                sum[k] += distance;
                square[k] = fma(distance, distance, square[k]);
            }
        }
        for (int k = 0; k < kChannels; ++k) {
            store(sums + 2 * k * L, sum[k]);
            store(sums + (2 * k + 1) * L, square[k]);
        }
    }
};

static void add_statistics(const Stage &s, const float *pixels, int n_pixels) {
    Statistics work{s, pixels, n_pixels};
    for_channels<4>(work, s.channels);
}

static double elements(const Stage &s, int n) { return double(n) * s.height * s.width; }

// A bias before a BatchNorm is taken out again by its mean, so the convolution leaves it away and
// only the running mean sees it.
static void finish_statistics(const Stage &s, int n, const float *parameters, float *statistics) {
    const double count = elements(s, n);
    for (int c = 0; c < s.channels; ++c) {
        const double off = s.sums[2 * c] / count, mean = s.mean[c] + off;
        const double square = s.sums[2 * c + 1] / count - off * off;
        const double variance = square < 0 ? 0 : square;  // NaN stays
        const double bias = s.bias == kNone ? 0 : parameters[s.bias + c];
        s.inverse_std[c] = 1 / sqrt(variance + kEpsilon);
        s.scale[c] = float(parameters[s.gamma + c] * s.inverse_std[c]);
        s.shift[c] = float(parameters[s.beta + c] - mean * s.scale[c]);
        s.mean[c] = float(mean);
        s.mean_rest[c] = mean - s.mean[c];
        float &running_mean = statistics[s.running_mean + c];
        float &running_var = statistics[s.running_var + c];
        running_mean = float((1 - kMomentum) * running_mean + kMomentum * (mean + bias));
        running_var =
            float((1 - kMomentum) * running_var + kMomentum * variance * count / (count - 1));
    }
}

static void use_running_statistics(const Stage &s, const float *parameters,
                                   const float *statistics) {
    for (int c = 0; c < s.channels; ++c) {
        const double bias = s.bias == kNone ? 0 : parameters[s.bias + c];
        const double variance = statistics[s.running_var + c];
        const double scale = parameters[s.gamma + c] / sqrt(variance + kEpsilon);
        s.scale[c] = float(scale);
        s.shift[c] =
            float(parameters[s.beta + c] + (bias - statistics[s.running_mean + c]) * scale);
    }
}

static void finish_norm_gradient(const Stage &s, int n, float *gradient) {
    const double count = elements(s, n);
    for (int c = 0; c < s.channels; ++c) {
        const double plain = s.sums[2 * c];
        const double normed = (s.sums[2 * c + 1] - s.mean_rest[c] * plain) * s.inverse_std[c];
        gradient[s.beta + c] = float(plain);
        gradient[s.gamma + c] = float(normed);
        if (s.bias != kNone) gradient[s.bias + c] = 0;  // the mean takes it out again
        const double slope = -s.scale[c] * s.inverse_std[c] * normed / count;
        s.slope[c] = float(slope);
        s.level[c] = float(-s.scale[c] * plain / count - slope * s.mean_rest[c]);
    }
}
