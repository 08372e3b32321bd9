/* The transforms of the Winograd weight gradient on vectors, for files that fill a NitiWinogradGradientKernels. The includer
 * provides
 *
 *   static inline NitiShorts load_pair(const int8_t *a, const int8_t *b): a[0], b[0], a[1], b[1] ..., NITI_PAIR_CHANNELS of each.
 */
#ifndef NITI_BACKEND_CPU_WINOGRAD_GRADIENT_VECTOR_H
#define NITI_BACKEND_CPU_WINOGRAD_GRADIENT_VECTOR_H

#include <string.h>

#include "backend/cpu/winograd_gradient.h"
#include "backend/cpu/winograd_vector.h"

enum { NITI_PAIR_CHANNELS = NITI_VECTOR_BYTES / 4, NITI_PAIR_PARTS = NITI_GRADIENT_PANEL / NITI_PAIR_CHANNELS };

NITI_VECTOR_INLINE NitiShorts load_pair(const int8_t *a, const int8_t *b);

/* out = G e: 6 from 4. */
NITI_VECTOR_INLINE void dy_butterfly(NitiShorts *out, size_t out_step, const NitiShorts *in, size_t in_step) {
  const NitiShorts e0 = in[0], e1 = in[in_step], e2 = in[2 * in_step], e3 = in[3 * in_step];
  const NitiShorts even = e0 + e2, odd = e1 + e3, even4 = e0 + (e2 << 2), odd4 = (e1 << 1) + (e3 << 3);
  out[0] = e0;
  out[out_step] = even + odd;
  out[2 * out_step] = even - odd;
  out[3 * out_step] = even4 + odd4;
  out[4 * out_step] = even4 - odd4;
  out[5 * out_step] = e3;
}

/* Three results of six sums; times 24, 12 and 6. */
NITI_VECTOR_INLINE void result_butterfly(NitiUnsigned *out, size_t out_step, const NitiUnsigned *in, size_t in_step) {
  const NitiUnsigned u0 = in[0], u5 = in[5 * in_step], one = in[in_step] + in[2 * in_step];
  const NitiUnsigned two = in[3 * in_step] + in[4 * in_step];
  out[0] = ((u0 - one) << 2) + (u0 + u0) + two;
  out[out_step] = ((in[2 * in_step] - in[in_step]) << 1) + (in[3 * in_step] - in[4 * in_step]);
  out[2 * out_step] = (two - one) + (u5 << 2) + (u5 + u5);
}

NITI_VECTOR_INLINE void store_frequencies(int16_t *out, size_t stride, const NitiShorts *v) {
  for (size_t f = 0; f < NITI_GRADIENT_FREQUENCIES; ++f) {
    memcpy(out + f * stride, &v[f], sizeof v[f]);
    __builtin_prefetch(out + f * stride + NITI_GRADIENT_PAIR, 1, 3);
  }
}

NITI_VECTOR_INLINE void x_part(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first) {
  NitiShorts t[36];
  for (size_t column = 0; column < 6; ++column) {
    NitiShorts in[6];
    for (size_t row = 0; row < 6; ++row)
      in[row] = load_pair(pixel[row * 10 + column] + first, pixel[row * 10 + column + 4] + first);
    niti_winograd_input(t + column, 6, in, 1);
  }
  for (size_t row = 0; row < 6; ++row) niti_winograd_input(t + row * 6, 1, t + row * 6, 1);
  store_frequencies(out, stride, t);
}

NITI_VECTOR_INLINE void dy_part(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, uint32_t *sums) {
  NitiShorts t[36], sum = {0};
  for (size_t column = 0; column < 4; ++column) {
    NitiShorts in[4];
    for (size_t row = 0; row < 4; ++row) {
      in[row] = load_pair(pixel[row * 8 + column] + first, pixel[row * 8 + column + 4] + first);
      sum += (in[row] ^ (in[row] >> 15)) - (in[row] >> 15);
    }
    dy_butterfly(t + column, 6, in, 1);
  }
  for (size_t row = 0; row < 6; ++row) dy_butterfly(t + row * 6, 1, t + row * 6, 1);
  store_frequencies(out, stride, t);
  const NitiUnsigned pairs = (NitiUnsigned)sum; /* two sums below 2^15 each */
  NitiUnsigned total;
  memcpy(&total, sums, sizeof total);
  total += (pairs & 0xffffu) + (pairs >> 16);
  memcpy(sums, &total, sizeof total);
}

/* The last channels of the pixels, and zeros beyond. */
NITI_VECTOR_INLINE void copy_tail(int8_t (*tail)[NITI_GRADIENT_PANEL], const int8_t **to, const int8_t *const *pixel,
                                  size_t pixels, size_t first, int channels) {
  memset(tail, 0, pixels * sizeof *tail);
  for (size_t i = 0; i < pixels; ++i) {
    memcpy(tail[i], pixel[i] + first, (size_t)channels);
    to[i] = tail[i];
  }
}

NITI_VECTOR_INLINE void transform_x_of(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels) {
  int8_t tail[NITI_GRADIENT_X_PIXELS][NITI_GRADIENT_PANEL];
  const int8_t *tails[NITI_GRADIENT_X_PIXELS];
  if (channels < NITI_GRADIENT_PANEL) {
    copy_tail(tail, tails, pixel, NITI_GRADIENT_X_PIXELS, first, channels);
    pixel = tails;
    first = 0;
  }
  for (size_t part = 0; part < NITI_PAIR_PARTS; ++part) {
    x_part(out + part * NITI_PAIR_CHANNELS * 2, stride, pixel, first + part * NITI_PAIR_CHANNELS);
  }
}

NITI_VECTOR_INLINE void transform_dy_of(int16_t *out, size_t stride, const int8_t *const *pixel, size_t first, int channels,
                                        uint32_t *sums) {
  int8_t tail[NITI_GRADIENT_DY_PIXELS][NITI_GRADIENT_PANEL];
  const int8_t *tails[NITI_GRADIENT_DY_PIXELS];
  if (channels < NITI_GRADIENT_PANEL) {
    copy_tail(tail, tails, pixel, NITI_GRADIENT_DY_PIXELS, first, channels);
    pixel = tails;
    first = 0;
  }
  for (size_t part = 0; part < NITI_PAIR_PARTS; ++part) {
    dy_part(out + part * NITI_PAIR_CHANNELS * 2, stride, pixel, first + part * NITI_PAIR_CHANNELS,
            sums + part * NITI_PAIR_CHANNELS);
  }
}

/* The nine gradients of the channels of a vector. */
NITI_VECTOR_INLINE void results_of(NitiInts *w, const int32_t *acc, size_t stride) {
  NitiUnsigned rows[3 * 6], z[9];
  for (size_t i = 0; i < 6; ++i) {
    NitiUnsigned u[6];
    for (size_t j = 0; j < 6; ++j) memcpy(&u[j], acc + (i * 6 + j) * stride, sizeof u[j]);
    result_butterfly(rows + i, 6, u, 1);
  }
  /* rows[6 * s + i]: column s of the result, row i of the frequencies */
  for (size_t s = 0; s < 3; ++s) result_butterfly(z + s, 3, rows + s * 6, 1);
  for (int tap = 0; tap < 9; ++tap) w[tap] = (NitiInts)(z[tap] * 954437177u) >> (6 - tap / 3 - tap % 3); /* 1 / 9 */
}

NITI_VECTOR_INLINE void finish_of(void *gradient, const int bits, bool add, size_t tap_stride, const int32_t *acc, size_t stride,
                                  int channels) {
  for (size_t channel = 0; channel < (size_t)channels; channel += NITI_PAIR_CHANNELS) {
    const size_t left = (size_t)channels - channel, there = left < NITI_PAIR_CHANNELS ? left : NITI_PAIR_CHANNELS;
    NitiInts w[9];
    results_of(w, acc + channel, stride);
    for (size_t tap = 0; tap < 9; ++tap) {
      if (bits == 32) {
        int32_t *to = (int32_t *)gradient + tap * tap_stride + channel;
        NitiInts old = {0};
        if (there == NITI_PAIR_CHANNELS) {
          if (add) memcpy(&old, to, sizeof old);
          old += w[tap];
          memcpy(to, &old, sizeof old);
        } else {
          if (add) memcpy(&old, to, there * sizeof *to);
          old += w[tap];
          memcpy(to, &old, there * sizeof *to);
        }
      } else {
        int64_t *to = (int64_t *)gradient + tap * tap_stride + channel;
        int32_t narrow[NITI_PAIR_CHANNELS];
        memcpy(narrow, &w[tap], sizeof narrow);
        for (size_t i = 0; i < there; ++i) to[i] = (add ? to[i] : 0) + narrow[i];
      }
    }
  }
}

#endif
