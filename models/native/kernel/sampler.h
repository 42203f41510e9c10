// Images of bytes, moved by an affine map, bent if wanted, and normalised, into the layout of the
// blocks.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

static bool indices_are_images(const Affine &a) {
    for (int i = 0; i < a.n; ++i) {
        if (a.index[i] < 0 || a.index[i] >= a.n_images) return false;
    }
    return true;
}

static void sample_plain(const Affine &a, int first, float *out) {
    const size_t plane = size_t(a.height) * a.width;
    const int n = lesser(L, a.n - first);
    const uint8_t *image[L];
    for (int lane = 0; lane < n; ++lane) {
        image[lane] = a.images + a.index[first + lane] * a.channels * plane;
    }
    for (int c = 0; c < a.channels; ++c) {
        const V scale = all(a.scale[c]), offset = all(a.offset[c]);
        for (size_t pixel = 0; pixel < plane; ++pixel) {
            S bytes{};
            for (int lane = 0; lane < n; ++lane) bytes[lane] = image[lane][c * plane + pixel];
            const V value = fma(to_float(bytes), scale, offset);
            store(out + (pixel * a.channels + c) * L, keep(first_lanes(n), value));
        }
    }
}

// The images of a block, one behind the other, each plane with one zero row and column before it
// and two behind it: whatever is asked for outside an image reads a zero.
static void copy_to_scratch(const Affine &a, int first) {
    const size_t stride = scratch_stride(a.width), plane = (a.height + 3) * stride;
    for (int lane = 0; lane < L && first + lane < a.n; ++lane) {
        const size_t n_bytes = size_t(a.channels) * a.height * a.width;
        const uint8_t *from = a.images + a.index[first + lane] * n_bytes;
        for (int c = 0; c < a.channels; ++c) {
            uint8_t *to = a.scratch + (size_t(lane) * a.channels + c) * plane + stride + 1;
            for (int y = 0; y < a.height; ++y, from += a.width, to += stride) {
                memcpy(to, from, a.width);
            }
        }
    }
}

// The source of pixel (x, y), in pixels from one before the first, is
// along[0] * x + along[1] * y + along[2] with x and y taken from the middle of the image.
struct SourceLine {
    V along[3];
    float most;
    NATIVE_INLINE_MEMBER V at(V x, V y) const {
        return fma(along[0], x, fma(along[1], y, along[2]));
    }
    NATIVE_INLINE_MEMBER V clamp(V source) const {
        return maximum(all(0), minimum(source, all(most)));  // not a number: `most`
    }
};

static SourceLine source_line(const Affine &a, int first, int row) {
    alignas(64) float along[3][L] = {};
    const float size = float(row ? a.height : a.width);
    for (int lane = 0; lane < L && first + lane < a.n; ++lane) {
        const float *matrix = a.matrices + (size_t(first) + lane) * 6 + 3 * row;
        along[0][lane] = matrix[0] * (size / a.width);
        along[1][lane] = matrix[1] * (size / a.height);
        along[2][lane] = matrix[2] * (size / 2) + (size - 1) / 2 + 1;
    }
    return {{load(along[0]), load(along[1]), load(along[2])}, size + 1};
}

// Of one axis (0: x, 1: y) of a block: the displacements of the control points in pixels, and
// behind them those of the row in work: the control points of each column combined into one.
struct Field {
    int points = 0;
    const float *rows = nullptr, *columns = nullptr;
    float *control = nullptr, *row = nullptr;

    NATIVE_INLINE_MEMBER void make_row(int y) const {
        for (int column = 0; column < points; ++column) {
            V sum = all(0);
            for (int line = 0; line < points; ++line) {
                const V point = load(control + (size_t(line) * points + column) * L);
                sum = fma(all(rows[size_t(y) * points + line]), point, sum);
            }
            store(row + size_t(column) * L, sum);
        }
    }

    NATIVE_INLINE_MEMBER V at(int x) const {
        V sum = all(0);
        for (int column = 0; column < points; ++column) {
            const V point = load(row + size_t(column) * L);
            sum = fma(all(columns[size_t(x) * points + column]), point, sum);
        }
        return sum;
    }
};

static Field field_of(const Affine &a, int first, int axis) {
    if (!a.elastic) return {};
    const Elastic &elastic = *a.elastic;
    const size_t n_points = size_t(elastic.points) * elastic.points;
    float *control = elastic.field + axis * (n_points + elastic.points) * L;
    memset(control, 0, n_points * L * sizeof(float));
    const float half = (axis ? a.height : a.width) / 2.0f;
    for (int lane = 0; lane < L && first + lane < a.n; ++lane) {
        const float *from = elastic.displacements + ((size_t(first) + lane) * 2 + axis) * n_points;
        for (size_t point = 0; point < n_points; ++point) {
            control[point * L + lane] = from[point] * half;
        }
    }
    return {elastic.points, elastic.rows, elastic.columns, control, control + n_points * L};
}

template <bool kElastic>
static void sample_moved(const Affine &a, int first, float *out) {
    copy_to_scratch(a, first);
    const Field field_x = field_of(a, first, 0), field_y = field_of(a, first, 1);
    const SourceLine source_x = source_line(a, first, 0), source_y = source_line(a, first, 1);
    const int stride = int(scratch_stride(a.width)), plane = (a.height + 3) * stride;
    const M lanes = first_lanes(a.n - first);
    S image;
    for (int lane = 0; lane < L; ++lane) image[lane] = lane * a.channels * plane;
    for (int y = 0; y < a.height; ++y) {
        const V from_middle_y = all(y - (a.height - 1) / 2.0f);
        if (kElastic) {
            field_x.make_row(y);
            field_y.make_row(y);
        }
        for (int x = 0; x < a.width; ++x) {
            const V from_middle_x = all(x - (a.width - 1) / 2.0f);
            V sx = source_x.at(from_middle_x, from_middle_y);
            V sy = source_y.at(from_middle_x, from_middle_y);
            if (kElastic) {
                sx += field_x.at(x);
                sy += field_y.at(x);
            }
            sx = source_x.clamp(sx);
            sy = source_y.clamp(sy);
            const S column = truncate(sx), line = truncate(sy);
            const V right = sx - to_float(column), down = sy - to_float(line);
            const S corner = image + line * stride + column;
            for (int c = 0; c < a.channels; ++c) {
                const U upper = words(a.scratch + c * plane, corner);
                const U lower = words(a.scratch + c * plane, corner + stride);
                const V a00 = to_float((S)(upper & 0xff)), a01 = to_float((S)(upper >> 8 & 0xff));
                const V a10 = to_float((S)(lower & 0xff)), a11 = to_float((S)(lower >> 8 & 0xff));
                const V top = fma(right, a01 - a00, a00), bottom = fma(right, a11 - a10, a10);
                const V value = fma(down, bottom - top, top);
                const V normalised = fma(value, all(a.scale[c]), all(a.offset[c]));
                store(out + ((size_t(y) * a.width + x) * a.channels + c) * L,
                      keep(lanes, normalised));
            }
        }
    }
}

static bool sample(const Affine &a) {
    if (!indices_are_images(a)) return false;
    const size_t block = size_t(a.channels) * a.height * a.width * L;
    for (int first = 0; first < a.n; first += L) {
        float *out = a.out + first / L * block;
        if (!a.matrices) {
            sample_plain(a, first, out);
        } else if (a.elastic) {
            sample_moved<true>(a, first, out);
        } else {
            sample_moved<false>(a, first, out);
        }
    }
    return true;
}
