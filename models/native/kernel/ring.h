// Rows in work.
// Part of native.cpp: compiled once for each instruction set, in a namespace of its own.

// Row y of a map lies in slot y % slots, between borders that stay zero.
struct Ring {
    float *data;
    size_t row_size, border;
    int slots;
    float *row(int y) const { return data + (y % slots) * row_size; }
    float *inside(int y) const { return row(y) + border; }
};

static Ring make_ring(float *data, size_t row_size, size_t border, int slots) {
    const Ring ring{data, row_size * L, border * L, slots};
    for (int slot = 0; slot < slots; ++slot) {
        memset(ring.row(slot), 0, ring.border * sizeof(float));
        memset(ring.row(slot) + ring.row_size - ring.border, 0, ring.border * sizeof(float));
    }
    return ring;
}

static Ring activation_ring(const Network &network, const Stage &s) {
    return make_ring(network.activation_ring, s.activation_ring_row(),
                     size_t(s.padding) * s.in_channels, s.slots());
}

static Ring gradient_ring(const Network &network, const Stage &s) {
    return make_ring(network.gradient_ring, s.gradient_ring_row(),
                     size_t(s.gradient_border()) * s.channels, s.slots());
}
