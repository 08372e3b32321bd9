/* Winograd's transforms as products of the matrices of docs/arithmetic.md, one number after another; the vectors of the other
 * tables must agree with them. */
#include "backend/cpu/winograd.h"

enum { LANES = 4, VECTORS = 4, ROWS = 6 };

static const int32_t input_matrix[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                           {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
static const int32_t weight_matrix[6][3] = {{6, 0, 0}, {-1, -1, -1}, {-1, 1, -1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 6}};
static const int32_t output_matrix[4][6] = {{1, 4, 4, 1, 1, 0}, {0, 4, -4, 2, -2, 0}, {0, 4, 4, 4, 4, 0}, {0, 4, -4, 8, -8, 4}};

static uint64_t transform_input(int16_t *v, size_t stride, const int8_t *const *in, size_t channels) {
  uint64_t squares = 0;
  for (size_t c = 0; c < niti_round_up(channels, LANES); ++c) {
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      int32_t sum = 0;
      for (size_t pixel = 0; pixel < 36 && c < channels; ++pixel) {
        sum += input_matrix[plane / 6][pixel / 6] * input_matrix[plane % 6][pixel % 6] * in[pixel][c];
      }
      v[plane * stride + c] = (int16_t)sum;
    }
    for (size_t pixel = 0; pixel < 36 && c < channels; ++pixel) squares += (uint64_t)(in[pixel][c] * in[pixel][c]);
  }
  return squares;
}

static void transform_weights(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups, int columns,
                              int32_t *magnitudes, int32_t *squares) {
  for (size_t i = 0; i < groups * (size_t)columns * 2; ++i) {
    const size_t column = i / 2 % (size_t)columns;
    for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
      int32_t sum = 0;
      for (size_t tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) {
        sum += weight_matrix[plane / 6][tap / 3] * weight_matrix[plane % 6][tap % 3] * w[tap * tap_stride + i];
      }
      u[plane * stride + i] = (int16_t)sum;
    }
    for (size_t tap = 0; tap < NITI_WINOGRAD_TAPS; ++tap) {
      const int32_t weight = w[tap * tap_stride + i];
      magnitudes[column] += weight < 0 ? -weight : weight;
      squares[column] += weight * weight;
    }
  }
}

static void transform_output(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns, bool add) {
  for (size_t column = 0; column < (size_t)columns; ++column) {
    for (size_t pixel = 0; pixel < NITI_WINOGRAD_PIXELS; ++pixel) {
      uint32_t sum = 0; /* 576 times the output, modulo 2^32 */
      for (size_t plane = 0; plane < NITI_WINOGRAD_PLANES; ++plane) {
        sum += (uint32_t)(output_matrix[pixel / 4][plane / 6] * output_matrix[pixel % 4][plane % 6]) *
               (uint32_t)m[plane * stride + column];
      }
      int32_t *to = acc + pixel * acc_stride + column;
      *to = ((int32_t)(sum * 0x38e38e39u) >> 6) + (add ? *to : 0); /* 9 * 0x38e38e39 = 1 modulo 2^32 */
    }
  }
}

static void microkernel(const NitiMicrotile *t) {
  const size_t columns = (size_t)t->vectors * LANES;
  for (size_t row = 0; row < (size_t)t->rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      uint32_t sum = (uint32_t)t->init[row * t->init_stride + column];
      const int16_t *panel = (const int16_t *)t->panel + column * 2;
      for (size_t set = 0; set < t->sets; ++set) {
        for (size_t run = 0; run < t->runs; ++run) {
          const int16_t *in =
              (const int16_t *)(const void *)(t->in + t->row_offset[row] + set * t->set_stride + run * t->run_stride);
          for (size_t g = 0; g < t->groups; ++g, panel += columns * 2) {
            sum += (uint32_t)(in[g * 2] * panel[0]) + (uint32_t)(in[g * 2 + 1] * panel[1]);
          }
        }
      }
      t->acc[row * columns + column] = (int32_t)sum;
    }
  }
}

static void panel_across(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded) {
  int16_t *panel = out;
  for (size_t row = 0; row < niti_round_up(rows, 2); ++row) {
    for (size_t column = 0; column < (size_t)padded; ++column) {
      const bool there = row < rows && offset[row] != SIZE_MAX && column < (size_t)columns;
      panel[(row / 2 * (size_t)padded + column) * 2 + row % 2] = there ? in[offset[row] + column] : (int16_t)0;
    }
  }
}

static void panel_along(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded) {
  int16_t *panel = out;
  for (size_t row = 0; row < niti_round_up(rows, 2); ++row) {
    for (size_t column = 0; column < (size_t)padded; ++column) {
      const bool there = row < rows && column < (size_t)columns;
      panel[(row / 2 * (size_t)padded + column) * 2 + row % 2] = there ? in[column * stride + row] : (int16_t)0;
    }
  }
}

static uint32_t requantise(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride, int rows,
                           int columns, const NitiRounder *rounder, uint32_t max) {
  for (size_t row = 0; row < (size_t)rows; ++row) {
    const size_t at = offset[row] + first;
    max = niti_requantise_ref(tensor + at, acc + row * stride, (size_t)columns, rounder, at, max);
    if (rounder->mask) niti_mask_apply(tensor + at, rounder->mask + at, (size_t)columns, niti_rounder_last(rounder));
  }
  return max;
}

const NitiWinogradKernels niti_winograd_kernels_ref = {
    .name = "ref winograd 4x4",
    .worth = {.channels = 1, .tiles = 1, .percent = 1},
    .channels = LANES,
    .lanes = LANES,
    .vectors = VECTORS,
    .mr = {0, ROWS, ROWS, ROWS, ROWS},
    .microkernel = microkernel,
    .panel_across = panel_across,
    .panel_along = panel_along,
    .requantise = requantise,
    .input = transform_input,
    .weights = transform_weights,
    .output = transform_output,
};
