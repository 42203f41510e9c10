// The step and the evaluation of a whole network, a block and a group of rows at a time.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// --- One block of one stage ---

static const float *raw_of(const Network &network, const Sample &sample, int stage, int block) {
    const Stage &s = network.stage[stage];
    return (stage ? s.raw : sample.images) + block * s.raw_stride;
}

static void make_input_row(const View &source, int y, float *out) {
    if (source.stage->pool) choose_row(source, y);
    make_activation_row(source, y, out);
}

static void forward_depthwise(const Network &network, const Stage &s, const View &source,
                              float *raw, bool is_first, const float *parameters) {
    const Ring input = activation_ring(network, s);
    const float *weight = parameters + s.weight;
    const size_t row_size = size_t(s.width) * s.channels * L;
    int made = 0;
    for (int y = 0; y < s.height;) {
        const int end = is_first && y == 0 ? 1 : lesser(s.height, y + s.group);
        {
            const Booking booking(network, kElementwise);
            const int needed = lesser(s.in_height, end - s.padding + s.kernel - 1);
            for (; made < needed; ++made) make_input_row(source, made, input.inside(made));
        }
        const Booking booking(network, kForward);
        const DepthwiseRows rows =
            depthwise_rows(input, network.zeros, s.in_height, y - s.padding, end - y);
        if (is_first && y == 0) {
            depthwise_forward<false>(s, weight, rows, raw);
            choose_pivot(s, raw, source.lanes);
        }
        const auto forward = source.training ? depthwise_forward<true> : depthwise_forward<false>;
        forward(s, weight, rows, raw + y * row_size);
        y = end;
    }
}

static void forward_block(const Network &network, const Stage &s, const View &source, float *raw,
                          bool is_first, const float *parameters) {
    const size_t row_size = size_t(s.width) * s.channels * L;
    if (!s.convolves()) {
        for (int y = 0; y < s.height; ++y) make_input_row(source, y, raw + y * row_size);
        return;
    }
    clear_lane_sums(s);
    if (s.depthwise) {
        forward_depthwise(network, s, source, raw, is_first, parameters);
        if (source.training) fold_lane_sums(s, source.lanes);
        return;
    }
    const Ring input = activation_ring(network, s);
    int seen = 0;  // rows of raw in the statistics
    for (int y = 0, made = 0; y < s.height; ++y) {
        {
            const Booking booking(network, kElementwise);
            const int needed = lesser(s.in_height, y - s.padding + s.kernel);
            for (; made < needed; ++made) make_input_row(source, made, input.inside(made));
        }
        float *row = raw + y * row_size;
        {
            const Booking booking(network, kForward);
            RowTaps taps = row_taps(s.packed, s.kernel, s.in_channels);
            for (int ky = 0; ky < s.kernel; ++ky) {
                const int from = y - s.padding + ky;
                if (from < 0 || from >= s.in_height) continue;
                taps.kernel_row[taps.n] = ky;
                taps.input[taps.n++] = input.row(from);
            }
            convolve_row(taps, row, s.width, s.channels);
        }
        if (source.training) {
            const Booking booking(network, kElementwise);
            if (is_first && y == 0) choose_pivot(s, row, source.lanes);
            if (y + 1 == s.height || (y + 1 - seen) * row_size * sizeof(float) >= kWorkingSet / 2) {
                add_statistics(s, raw + seen * row_size, (y + 1 - seen) * s.width);
                seen = y + 1;
            }
        }
    }
    if (source.training) fold_lane_sums(s, source.lanes);
}

// Gradient rows [from, to) of the activation before `s`, out of the rows of raw's gradient in work.
static void input_gradient_rows(const Network &network, const Stage &s, const Ring &gradient,
                                const View &source, int from, int to) {
    const size_t row_size = size_t(s.in_width) * s.in_channels * L;
    for (int y = from; y < to; ++y) {
        {
            const Booking booking(network, kInputGradient);
            RowTaps taps = row_taps(s.packed_flipped, s.kernel, s.channels);
            for (int ky = 0; ky < s.kernel; ++ky) {
                const int row = y + s.padding - ky;
                if (row < 0 || row >= s.height) continue;
                taps.kernel_row[taps.n] = ky;
                taps.input[taps.n++] = gradient.row(row);
            }
            convolve_row(taps, source.gradient + y * row_size, s.in_width, s.in_channels);
        }
        const Booking booking(network, kElementwise);
        finish_gradient_row(source, y);
    }
}

static void weight_gradient_rows(const Network &network, const Stage &s, const Ring &gradient,
                                 const Ring &input, int from, int to) {
    const Booking booking(network, kWeightGradient);
    const float *gradient_rows[kMostGroup], *input_rows[kMostGroup];
    for (int ky = 0; ky < s.kernel; ++ky) {
        int n_rows = 0;
        for (int y = from; y < to; ++y) {
            const int seen = y - s.padding + ky;
            if (seen < 0 || seen >= s.in_height) continue;
            gradient_rows[n_rows] = gradient.inside(y);
            input_rows[n_rows++] = input.row(seen);
        }
        add_weight_row(s, ky, gradient_rows, input_rows, n_rows);
    }
}

static void backward_copy(const Stage &s, const View &own, const View &source) {
    const size_t row_size = size_t(s.width) * s.channels * L;
    const int rows = s.pool ? 2 : 1;
    for (int y = 0; y < s.height; y += rows) {
        float *row = source.gradient + y * row_size;
        float *const out[2] = {row, row + row_size};
        make_raw_gradient_rows(own, y, out);
    }
    for (int y = 0; y < s.height; ++y) finish_gradient_row(source, y);
}

static void backward_depthwise(const Network &network, const Stage &s, const View &own,
                               const View &source, const float *parameters) {
    const Ring gradient = gradient_ring(network, s);
    int passed = 0;
    for (int y = 0; y < s.height; y += s.group) {
        const int end = lesser(s.height, y + s.group);
        {
            const Booking booking(network, kElementwise);
            for (int row = y; row < end; row += s.pool ? 2 : 1) {
                float *const out[2] = {gradient.inside(row), gradient.inside(row + 1)};
                make_raw_gradient_rows(own, row, out);
            }
        }
        const Booking booking(network, kInputGradient);
        const int complete = end == s.height ? s.in_height : end - s.padding;
        const DepthwiseRows rows = depthwise_rows(gradient, network.zeros, s.height,
                                                  passed + s.padding - 2, complete - passed);
        depthwise_backward(s, parameters + s.weight, rows, source, passed,
                           network.activation_ring);
        passed = complete;
    }
}

static void backward_convolution(const Network &network, const Stage &s, const View &own,
                                 const View &source) {
    const Ring input = activation_ring(network, s), gradient = gradient_ring(network, s);
    int made = 0, passed = 0;
    for (int y = 0; y < s.height; y += s.group) {
        const int end = lesser(s.height, y + s.group);
        {
            const Booking booking(network, kElementwise);
            for (int row = y; row < end; row += s.pool ? 2 : 1) {
                float *const out[2] = {gradient.inside(row), gradient.inside(row + 1)};
                make_raw_gradient_rows(own, row, out);
            }
            const int needed = lesser(s.in_height, end - s.padding + s.kernel - 1);
            for (; made < needed; ++made) make_activation_row(source, made, input.inside(made));
        }
        weight_gradient_rows(network, s, gradient, input, y, end);
        if (source.gradient) {
            const int complete = end == s.height ? s.in_height : end - s.padding;
            input_gradient_rows(network, s, gradient, source, passed, complete);
            passed = complete;
        }
    }
}

// --- Whole network ---

// The block that comes `turn`-th at a stage. From stage to stage the order turns round, so that
// each begins with what the one before it has left in the caches.
static int block_at(const Sample &sample, int stage, int turn) {
    return stage % 2 ? (sample.n - 1) / L - turn : turn;
}

static void head_step(const Network &network, const Sample &sample, const float *parameters,
                      float *gradient) {
    const Booking booking(network, kHead);
    const Head &head = network.head;
    const Stage &last = network.stage[network.n_stages - 1];
    memset(head.weight_sums, 0, size_t(head.n_classes) * head.channels * L * sizeof(float));
    memset(head.bias_sums, 0, size_t(head.n_classes) * L * sizeof(float));
    if (last.convolves()) clear_sums(last);
    for (int turn = 0; turn * L < sample.n; ++turn) {
        const int block = block_at(sample, network.n_stages, turn);
        const float *raw = raw_of(network, sample, network.n_stages - 1, block);
        const View view = view_of(last, raw, sample, block, true);
        const HeadKeys keys = head_keys(head, sample, block, true);
        if (last.convolves()) clear_lane_sums(last);
        head_forward(network, parameters, view, keys);
        take_loss(head, sample, block, true);
        head_backward(network, parameters, view, keys);
        if (last.convolves()) fold_lane_sums(last, view.lanes);
    }
    finish_head_gradient(head, gradient);
}

static bool labels_are_classes(const Sample &sample, int n_classes) {
    for (int i = 0; i < sample.n; ++i) {
        if (sample.labels[i] < 0 || sample.labels[i] >= n_classes) return false;
    }
    return true;
}

static void forward_stage(const Network &network, const Sample &sample, int index,
                          const float *parameters, float *statistics) {
    const Stage &s = network.stage[index], &before = network.stage[index - 1];
    if (s.convolves()) clear_sums(s);
    if (s.convolves() && !s.depthwise) pack(s, parameters + s.weight);
    for (int turn = 0; turn * L < sample.n; ++turn) {
        const int block = block_at(sample, index, turn);
        const View source =
            view_of(before, raw_of(network, sample, index - 1, block), sample, block, true);
        forward_block(network, s, source, s.raw + block * s.raw_stride, turn == 0,
                      parameters);
    }
    if (s.convolves()) finish_statistics(s, sample.n, parameters, statistics);
}

static void backward_stage(const Network &network, const Sample &sample, int index,
                           const float *parameters, float *gradient) {
    const Stage &s = network.stage[index], &before = network.stage[index - 1];
    if (!s.needs_gradient) return;
    if (s.convolves()) {
        finish_norm_gradient(s, sample.n, gradient);
        if (!s.depthwise) pack_flipped(s, parameters + s.weight);
        memset(s.weight_sums, 0, s.weights() * L * sizeof(float));
    }
    if (before.convolves()) clear_sums(before);
    for (int turn = 0; turn * L < sample.n; ++turn) {
        const int block = block_at(sample, index, turn);
        const View own = view_of(s, raw_of(network, sample, index, block), sample, block, true);
        const View source =
            view_of(before, raw_of(network, sample, index - 1, block), sample, block, true);
        if (before.convolves()) clear_lane_sums(before);
        if (s.depthwise) {
            backward_depthwise(network, s, own, source, parameters);
        } else if (s.convolves()) {
            backward_convolution(network, s, own, source);
        } else {
            backward_copy(s, own, source);
        }
        if (before.convolves()) fold_lane_sums(before, source.lanes);
    }
    if (s.convolves()) {
        const auto unpack = s.depthwise ? unpack_depthwise_gradient : unpack_weight_gradient;
        unpack(s, gradient + s.weight);
    }
}

static bool step(Network &network, const Sample &sample, const float *parameters, float *gradient,
                 float *statistics) {
    if (!labels_are_classes(sample, network.head.n_classes)) return false;
    const FlushDenormals flush;
    *sample.loss_sum = 0;
    *sample.n_correct = 0;
    for (int i = 1; i < network.n_stages; ++i) {
        forward_stage(network, sample, i, parameters, statistics);
    }
    head_step(network, sample, parameters, gradient);
    for (int i = network.n_stages - 1; i > 0; --i) {
        backward_stage(network, sample, i, parameters, gradient);
    }
    return true;
}

// Without statistics to wait for, a block goes through the whole network at once, and stays in the
// caches: every block uses the memory of the first.
static bool evaluate(Network &network, const Sample &sample, const float *parameters,
                     const float *statistics, float *logits) {
    const Head &head = network.head;
    if (!labels_are_classes(sample, head.n_classes)) return false;
    const FlushDenormals flush;
    *sample.loss_sum = 0;
    *sample.n_correct = 0;
    for (int i = 1; i < network.n_stages; ++i) {
        const Stage &s = network.stage[i];
        if (!s.convolves()) continue;
        if (!s.depthwise) pack(s, parameters + s.weight);
        use_running_statistics(s, parameters, statistics);
    }
    for (int block = 0; block * L < sample.n; ++block) {
        const float *raw = raw_of(network, sample, 0, block);
        for (int i = 1; i < network.n_stages; ++i) {
            const Stage &s = network.stage[i];
            const View source = view_of(network.stage[i - 1], raw, sample, block, false);
            forward_block(network, s, source, s.raw, false, parameters);
            raw = s.raw;
        }
        const View last = view_of(network.stage[network.n_stages - 1], raw, sample, block, false);
        head_forward(network, parameters, last, head_keys(head, sample, block, false));
        take_loss(head, sample, block, false);
        for (int lane = 0; logits && lane < lesser(L, sample.n - block * L); ++lane) {
            float *out = logits + size_t(block * L + lane) * head.n_classes;
            for (int k = 0; k < head.n_classes; ++k) out[k] = head.scores[k * L + lane];
        }
    }
    return true;
}
