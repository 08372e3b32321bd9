/* Products of few rows, one term after another; every other table must agree with this one. */
#include "backend/cpu/thin.h"

static void dots(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w, size_t count,
                 size_t length) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < count; ++o) {
      int32_t sum = 0;
      for (size_t i = 0; i < length; ++i) sum += (in[r * in_stride + i] - 128) * w[o * length + i];
      acc[r * acc_stride + o] = sum;
    }
  }
}

static void sums(int32_t *acc, size_t acc_stride, const uint8_t *in, size_t in_stride, size_t rows, const int8_t *w,
                 size_t w_stride, size_t count, size_t length) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < count; ++c) {
      int32_t sum = 0;
      for (size_t i = 0; i < length; ++i) sum += (in[r * in_stride + i] - 128) * w[i * w_stride + c];
      acc[r * acc_stride + c] = sum;
    }
  }
}

static void outer(int32_t *out, const int32_t *d, const int32_t *x, size_t pairs, size_t count) {
  for (size_t c = 0; c < count; ++c) {
    out[c] = 0;
    for (size_t p = 0; p < pairs; ++p)
      out[c] += (int16_t)d[p] * (int16_t)x[p * count + c] + (d[p] >> 16) * (x[p * count + c] >> 16);
  }
}

const NitiThinKernels niti_thin_ref = {.name = "ref", .dots = dots, .sums = sums, .outer = outer};
