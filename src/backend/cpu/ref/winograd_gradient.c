/* The kernels of the Winograd weight gradient, as their header states them. */
#include "backend/cpu/winograd_gradient.h"

#include <stdlib.h>

static const int32_t transform_of_x[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                             {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
static const int32_t transform_of_dy[6][4] = {{1, 0, 0, 0}, {1, 1, 1, 1},   {1, -1, 1, -1},
                                              {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 1}};
static const int32_t transform_back[3][6] = {{6, -4, -4, 1, 1, 0}, {0, -2, 2, 1, -1, 0}, {0, -1, -1, 1, 1, 6}};

/* out[6 * i + j] = sum of m[i][a] m[j][b] d[a][b], a and b < size; m is [6][size]. */
static void transform(int16_t *out, size_t stride, const int32_t *m, int size, const int32_t *d) {
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 6; ++j) {
      int32_t sum = 0;
      for (int a = 0; a < size; ++a) {
        for (int b = 0; b < size; ++b) sum += m[i * size + a] * m[j * size + b] * d[a * size + b];
      }
      out[(size_t)(6 * i + j) * stride] = (int16_t)sum;
    }
  }
}

static void transform_x(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels) {
  for (int channel = 0; channel < NITI_GRADIENT_PANEL; ++channel) {
    for (int tile = 0; tile < 2; ++tile) {
      int32_t d[36] = {0};
      for (int i = 0; i < 36 && channel < channels; ++i) d[i] = pixel[i / 6 * 10 + i % 6 + 4 * tile][first + (size_t)channel];
      transform(out + channel * 2 + tile, stride, transform_of_x[0], 6, d);
    }
  }
}

static void transform_dy(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels, uint32_t *sums) {
  for (int channel = 0; channel < NITI_GRADIENT_PANEL; ++channel) {
    for (int tile = 0; tile < 2; ++tile) {
      int32_t e[16] = {0};
      for (int i = 0; i < 16 && channel < channels; ++i) e[i] = pixel[i / 4 * 8 + i % 4 + 4 * tile][first + (size_t)channel];
      for (int i = 0; i < 16; ++i) sums[channel] += (uint32_t)abs(e[i]);
      transform(out + channel * 2 + tile, stride, transform_of_dy[0], 4, e);
    }
  }
}

static void multiply(int32_t *acc, size_t acc_stride, const int16_t *rows, const int16_t *columns, size_t panel_stride,
                     size_t pairs, int panels, const int16_t *next_rows, const int16_t *next_columns) {
  (void)next_rows;
  (void)next_columns;
  for (size_t row = 0; row < NITI_GRADIENT_PANEL; ++row) {
    for (size_t column = 0; column < (size_t)panels * NITI_GRADIENT_PANEL; ++column) {
      int32_t *to = acc + row * acc_stride + column;
      uint32_t sum = 0;
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t *a = rows + i * NITI_GRADIENT_PAIR + row * 2;
        const int16_t *b = columns + column / 16 * panel_stride + i * NITI_GRADIENT_PAIR + column % 16 * 2;
        sum += (uint32_t)(a[0] * b[0]) + (uint32_t)(a[1] * b[1]);
      }
      *to = (int32_t)sum;
    }
  }
}

static void finish(void *gradient, int bits, bool add, size_t tap_stride, const int32_t *acc, size_t stride, int channels) {
  const uint32_t inverse = 954437177u; /* of 9 */
  for (size_t channel = 0; channel < (size_t)channels; ++channel) {
    for (size_t tap = 0; tap < 9; ++tap) {
      uint32_t sum = 0;
      for (size_t i = 0; i < 36; ++i) {
        sum += (uint32_t)(transform_back[tap / 3][i / 6] * transform_back[tap % 3][i % 6]) * (uint32_t)acc[i * stride + channel];
      }
      const int32_t value = (int32_t)(sum * inverse) >> (6 - tap / 3 - tap % 3);
      const size_t at = tap * tap_stride + channel;
      if (bits == 32)
        ((int32_t *)gradient)[at] = (int32_t)((add ? (uint32_t)((int32_t *)gradient)[at] : 0) + (uint32_t)value);
      else
        ((int64_t *)gradient)[at] = (add ? ((int64_t *)gradient)[at] : 0) + value;
    }
  }
}

const NitiWinogradGradientKernels niti_winograd_gradient_ref = {
    .name = "ref winograd 4x4",
    .pairs = 16,
    .transform_x = transform_x,
    .transform_dy = transform_dy,
    .multiply = multiply,
    .finish = finish,
};
