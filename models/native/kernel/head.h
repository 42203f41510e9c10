// What follows the last stage: mean, linear map, loss, and the way back.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// scores = weight * features + bias, of one pixel.
static void add_scores(const Head &head, const float *parameters, const float *features,
                       float *scores) {
    for (int k = 0; k < head.n_classes; ++k) {
        const float *weight = parameters + head.weight + size_t(k) * head.channels;
        V score = all(head.bias == kNone ? 0 : parameters[head.bias + k]);
        for (int c = 0; c < head.channels; ++c) {
            score = fma(load(features + size_t(c) * L), all(weight[c]), score);
        }
        store(scores + size_t(k) * L, score);
    }
}

// The gradients of weight and bias added up, and that of the features, of one pixel.
static void take_scores_gradient(const Head &head, const float *parameters, const float *features,
                                 const float *scores_gradient, float *features_gradient) {
    for (int c = 0; c < head.channels; ++c) store(features_gradient + size_t(c) * L, V{});
    for (int k = 0; k < head.n_classes; ++k) {
        const V gradient = load(scores_gradient + size_t(k) * L);
        const float *weight = parameters + head.weight + size_t(k) * head.channels;
        float *sums = head.weight_sums + size_t(k) * head.channels * L;
        float *bias = head.bias_sums + size_t(k) * L;
        store(bias, load(bias) + gradient);
        for (int c = 0; c < head.channels; ++c) {
            const size_t at = size_t(c) * L;
            store(sums + at, fma(gradient, load(features + at), load(sums + at)));
            store(features_gradient + at,
                  fma(gradient, all(weight[c]), load(features_gradient + at)));
        }
    }
}

static void multiply(float *values, int n, float factor) {
    for (int i = 0; i < n; ++i)
        store(values + size_t(i) * L, load(values + size_t(i) * L) * factor);
}

struct HeadKeys {
    alignas(64) uint32_t features[L], pixels[L], logits[L];
    bool training;
};

static void drop(const Dropout &dropout, const uint32_t *keys, bool training, float *values, int n,
                 uint32_t first) {
    if (!training || !dropout.threshold) return;
    for (int i = 0; i < n; ++i) {
        float *value = values + size_t(i) * L;
        store(value, load(value) * dropout_factor(dropout, keys, first + i));
    }
}

static HeadKeys head_keys(const Head &head, const Sample &sample, int block, bool training) {
    HeadKeys keys;
    keys.training = training;
    fill_keys(keys.features, head.features, sample.seed, block * L);
    fill_keys(keys.pixels, head.pixels, sample.seed, block * L);
    fill_keys(keys.logits, head.logits, sample.seed, block * L);
    return keys;
}

// Logits of one block, to head.scores; the features before the linear map stay in head.mean.
static void head_forward(const Network &network, const float *parameters, const View &last,
                         const HeadKeys &keys) {
    const Head &head = network.head;
    const Stage &s = *last.stage;
    const int n_pixels = s.out_height * s.out_width, n_classes = head.n_classes;
    float *row = network.activation_ring, *mean = head.mean, *scores = head.scores;
    float *pixel_scores = scores + size_t(n_classes) * L;
    memset(mean, 0, size_t(s.channels) * L * sizeof(float));
    memset(scores, 0, size_t(n_classes) * L * sizeof(float));
    for (int y = 0; y < s.out_height; ++y) {
        if (s.pool) choose_row(last, y);
        make_activation_row(last, y, row);
        for (int x = 0; x < s.out_width; ++x) {
            const float *pixel = row + size_t(x) * s.channels * L;
            if (head.per_pixel) {
                add_scores(head, parameters, pixel, pixel_scores);
                const uint32_t first = uint32_t(y * s.out_width + x) * n_classes;
                drop(head.pixels, keys.pixels, keys.training, pixel_scores, n_classes, first);
                for (int k = 0; k < n_classes; ++k) {
                    float *score = scores + size_t(k) * L;
                    store(score, load(score) + load(pixel_scores + size_t(k) * L));
                }
            } else {
                for (int c = 0; c < s.channels; ++c) {
                    float *sum = mean + size_t(c) * L;
                    store(sum, load(sum) + load(pixel + size_t(c) * L));
                }
            }
        }
    }
    if (head.per_pixel) {
        multiply(scores, n_classes, 1.0f / n_pixels);
    } else {
        multiply(mean, s.channels, 1.0f / n_pixels);
        drop(head.features, keys.features, keys.training, mean, s.channels, 0);
        if (head.linear) {
            add_scores(head, parameters, mean, scores);
        } else {
            memcpy(scores, mean, size_t(n_classes) * L * sizeof(float));
        }
    }
    drop(head.logits, keys.logits, keys.training, scores, n_classes, 0);
}

// From the gradient of the logits (in head.scores) to that of the last activation.
static void head_backward(const Network &network, const float *parameters, const View &last,
                          const HeadKeys &keys) {
    const Head &head = network.head;
    const Stage &s = *last.stage;
    const int n_pixels = s.out_height * s.out_width, n_classes = head.n_classes;
    float *row = network.activation_ring, *scores = head.scores;
    float *pixel_scores = scores + size_t(n_classes) * L;
    float *mean_gradient = head.mean + size_t(s.channels) * L;
    drop(head.logits, keys.logits, true, scores, n_classes, 0);
    if (head.per_pixel) {
        multiply(scores, n_classes, 1.0f / n_pixels);
    } else {
        if (head.linear) {
            take_scores_gradient(head, parameters, head.mean, scores, mean_gradient);
        } else {
            memcpy(mean_gradient, scores, size_t(n_classes) * L * sizeof(float));
        }
        drop(head.features, keys.features, true, mean_gradient, s.channels, 0);
        multiply(mean_gradient, s.channels, 1.0f / n_pixels);
    }
    for (int y = 0; y < s.out_height; ++y) {
        if (head.per_pixel) make_activation_row(last, y, row);
        for (int x = 0; x < s.out_width; ++x) {
            const size_t place = size_t(x) * s.channels * L;
            float *gradient = last.gradient + size_t(y) * s.out_width * s.channels * L + place;
            if (!head.per_pixel) {
                memcpy(gradient, mean_gradient, size_t(s.channels) * L * sizeof(float));
                continue;
            }
            memcpy(pixel_scores, scores, size_t(n_classes) * L * sizeof(float));
            const uint32_t first = uint32_t(y * s.out_width + x) * n_classes;
            drop(head.pixels, keys.pixels, true, pixel_scores, n_classes, first);
            take_scores_gradient(head, parameters, row + place, pixel_scores, gradient);
        }
        finish_gradient_row(last, y);
    }
}

// Loss and hits of one block from the logits in head.scores; in training their gradient (of the
// mean loss over the batch) takes their place.
static void take_loss(const Head &head, const Sample &sample, int block, bool training) {
    const int n_classes = head.n_classes;
    const double smoothing = sample.label_smoothing;
    for (int lane = 0; lane < L; ++lane) {
        float *score = head.scores + lane;
        const int image = block * L + lane;
        if (image >= sample.n) {
            for (int k = 0; k < n_classes; ++k) score[k * L] = 0;
            continue;
        }
        const int label = int(sample.labels[image]);
        int best = 0;
        double sum = 0, exponentials = 0;
        for (int k = 0; k < n_classes; ++k) {
            if (score[k * L] > score[best * L]) best = k;
            sum += score[k * L];
        }
        const double top = score[best * L];
        for (int k = 0; k < n_classes; ++k) exponentials += exp(score[k * L] - top);
        const double log_sum = top + log(exponentials);
        *sample.loss_sum +=
            log_sum - (1 - smoothing) * score[label * L] - smoothing * sum / n_classes;
        *sample.n_correct += best == label;
        if (!training) continue;
        for (int k = 0; k < n_classes; ++k) {
            const double target = (1 - smoothing) * (k == label) + smoothing / n_classes;
            score[k * L] = float((exp(score[k * L] - log_sum) - target) / sample.n);
        }
    }
}

static void finish_head_gradient(const Head &head, float *gradient) {
    if (!head.linear) return;
    const int n_weights = head.n_classes * head.channels;
    for (int i = 0; i < n_weights; ++i) {
        gradient[head.weight + i] = float(total(load(head.weight_sums + size_t(i) * L)));
    }
    for (int k = 0; head.bias != kNone && k < head.n_classes; ++k) {
        gradient[head.bias + k] = float(total(load(head.bias_sums + size_t(k) * L)));
    }
}
