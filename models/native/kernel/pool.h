// Pooling: 2×2 windows, of which the maximum goes on.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// Which value of raw each window's maximum comes from. BatchNorm and ReLU rise or fall throughout,
// and hard swish falls before it rises, so it is the largest or the smallest of the four: the
// activation of those two decides. From there on the stage is one without a pool whose raw map is
// this one, a quarter of the size, forward and backward; only the gradient of raw itself has to
// look for the places (raw_gradient_rows() takes the first that has the value).
template <Activation kActivation>
struct ChosenRow {
    const View &view;
    int y;

    template <int kChannels>
    NATIVE_INLINE_MEMBER void part(int c) {
        const Stage &s = *view.stage;
        const size_t right = size_t(s.channels) * L, down = s.width * right;
        const float *raw = view.raw + 2 * y * down + size_t(c) * L;
        float *chosen = view.chosen + (size_t(y) * s.out_width * s.channels + c) * L;
        V scale[kChannels], shift[kChannels];
        for (int k = 0; k < kChannels && kActivation != kNothing; ++k) {
            scale[k] = all(s.scale[c + k]);
            shift[k] = all(s.shift[c + k]);
        }
        for (int n = s.out_width; n > 0; --n, raw += 2 * right, chosen += right) {
            for (int k = 0; k < kChannels; ++k) {
                const float *p = raw + k * L;
                const V corner[4] = {load(p), load(p + right), load(p + down),
                                     load(p + down + right)};
                const V most = maximum(maximum(corner[0], corner[1]),
                                       maximum(corner[2], corner[3]));
                if constexpr (kActivation == kNothing) {
                    store(chosen + k * L, most);
                    continue;
                }
                const V least = minimum(minimum(corner[0], corner[1]),
                                        minimum(corner[2], corner[3]));
                const V of_most =
                    activate<kActivation>(normalise<kActivation>(most, scale[k], shift[k]));
                const V of_least =
                    activate<kActivation>(normalise<kActivation>(least, scale[k], shift[k]));
                store(chosen + k * L, choose(greater(of_least, of_most), least, most));
            }
        }
    }
};

template <Activation kActivation>
static void chosen_row(const View &view, int y) {
    ChosenRow<kActivation> work{view, y};
    for_channels<2>(work, view.stage->channels);
}

// Row `y` of view.chosen, for a stage with a pool.
static void choose_row(const View &view, int y) {
    typedef void (*Row)(const View &, int);
    static const Row rows[3] = {chosen_row<kNothing>, chosen_row<kRelu>, chosen_row<kHardSwish>};
    rows[view.stage->activation](view, y);
}

