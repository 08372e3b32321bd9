/* Winograd's transforms on vectors, written once for every instruction set with GCC's vector extensions: a file that includes
 * this uses the widest integer vectors that its compiler flags allow. F(4x4, 3x3), see docs/arithmetic.md; contracts:
 * NitiWinogradKernels. */
#ifndef NITI_BACKEND_CPU_WINOGRAD_VECTOR_H
#define NITI_BACKEND_CPU_WINOGRAD_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512BW__)
enum { NITI_VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { NITI_VECTOR_BYTES = 32 };
#else
enum { NITI_VECTOR_BYTES = 16 };
#endif
enum { NITI_VECTOR_SHORTS = NITI_VECTOR_BYTES / 2, NITI_VECTOR_INTS = NITI_VECTOR_BYTES / 4 };

#define NITI_VECTOR_INLINE static inline __attribute__((always_inline, unused))
#define NITI_UNROLL _Pragma("GCC unroll 36")

typedef int8_t NitiHalfBytes __attribute__((vector_size(NITI_VECTOR_BYTES / 2)));
typedef int16_t NitiShorts __attribute__((vector_size(NITI_VECTOR_BYTES)));
typedef int32_t NitiInts __attribute__((vector_size(NITI_VECTOR_BYTES)));
typedef uint32_t NitiUnsigned __attribute__((vector_size(NITI_VECTOR_BYTES)));

/* out[i * out_step] = sum over j of B^T[i][j] * in[j * in_step], with the rows of B^T
 *   4  0 -5  0  1  0 |  0 -4 -4  1  1  0 |  0  4 -4 -1  1  0 |  0 -2 -1  2  1  0 |  0  2 -1 -2  1  0 |  0  4  0 -5  0  1
 * Each increases a magnitude at most tenfold: int8 operands in two dimensions reach 12,700. out may be in. */
NITI_VECTOR_INLINE void niti_winograd_input(NitiShorts *out, size_t out_step, const NitiShorts *in, size_t in_step) {
  const NitiShorts x0 = in[0], x1 = in[in_step], x2 = in[2 * in_step], x3 = in[3 * in_step], x4 = in[4 * in_step],
                   x5 = in[5 * in_step];
  const NitiShorts odd = x3 - x1, even = x4 - x2, twice = odd + odd, near = x4 - (x2 << 2), far = x3 - (x1 << 2);
  out[0] = ((x0 - x2) << 2) + even;
  out[out_step] = near + far;
  out[2 * out_step] = near - far;
  out[3 * out_step] = even + twice;
  out[4 * out_step] = even - twice;
  out[5 * out_step] = (x5 - x3) - (twice + twice);
}

/* out[i * out_step] = sum over j of G[i][j] * in[j * in_step], with the rows of G
 *   6  0  0 | -1 -1 -1 | -1  1 -1 |  1  2  4 |  1 -2  4 |  0  0  6 */
NITI_VECTOR_INLINE void niti_winograd_weights(NitiShorts *out, size_t out_step, const NitiShorts *in, size_t in_step) {
  const NitiShorts w0 = in[0], w1 = in[in_step], w2 = in[2 * in_step];
  const NitiShorts even = w0 + w2, far = w0 + (w2 << 2), twice = w1 + w1;
  out[0] = (w0 << 2) + (w0 + w0);
  out[out_step] = -even - w1;
  out[2 * out_step] = w1 - even;
  out[3 * out_step] = far + twice;
  out[4 * out_step] = far - twice;
  out[5 * out_step] = (w2 << 2) + (w2 + w2);
}

/* out[i * out_step] * 2^(0, 1, 2, 2)[i] = sum over j of A^T[i][j] * in[j * in_step] modulo 2^32, with the rows of A^T
 *   1  4  4  1  1  0 |  0  4 -4  2 -2  0 |  0  4  4  4  4  0 |  0  4 -4  8 -8  4 */
NITI_VECTOR_INLINE void niti_winograd_output(NitiUnsigned *out, size_t out_step, const NitiUnsigned *in, size_t in_step) {
  const NitiUnsigned sum = in[in_step] + in[2 * in_step], difference = in[in_step] - in[2 * in_step];
  const NitiUnsigned far_sum = in[3 * in_step] + in[4 * in_step], far = in[3 * in_step] - in[4 * in_step];
  out[0] = in[0] + (sum << 2) + far_sum;
  out[out_step] = difference + difference + far;
  out[2 * out_step] = sum + far_sum;
  out[3 * out_step] = difference + (far + far) + in[5 * in_step];
}

/* Sums of neighbouring products, which must fit int32. */
NITI_VECTOR_INLINE NitiInts niti_pair_sums(NitiShorts a, NitiShorts b) {
#if defined(__AVX512BW__)
  return (NitiInts)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (NitiInts)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  const NitiInts x = (NitiInts)a, y = (NitiInts)b; /* the first of a pair is in the low half */
  return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
}

/* One vector of channels. */
NITI_VECTOR_INLINE NitiInts niti_winograd_input_vector(int16_t *v, size_t stride, const int8_t *const *in, size_t at) {
  NitiShorts t[36], out[6];
  NitiInts squares = {0};
  NITI_UNROLL for (size_t x = 0; x < 6; ++x) {
    NitiShorts d[6];
    NITI_UNROLL for (size_t y = 0; y < 6; ++y) {
      NitiHalfBytes bytes;
      __builtin_memcpy(&bytes, in[y * 6 + x] + at, sizeof bytes);
      d[y] = __builtin_convertvector(bytes, NitiShorts);
      squares += niti_pair_sums(d[y], d[y]);
    }
    niti_winograd_input(t + x, 6, d, 1);
  }
  NITI_UNROLL for (size_t y = 0; y < 6; ++y) {
    niti_winograd_input(out, 1, t + y * 6, 1);
    NITI_UNROLL for (size_t x = 0; x < 6; ++x) __builtin_memcpy(v + (y * 6 + x) * stride + at, &out[x], sizeof out[x]);
  }
  return squares;
}

NITI_VECTOR_INLINE uint64_t niti_winograd_input_tile(int16_t *v, size_t stride, const int8_t *const *in, size_t channels) {
  enum { ONCE = 1024 }; /* vectors after which sums of 36 * 2 squares could overflow int32 */
  uint64_t total = 0;
  size_t at = 0;
  while (at < channels) {
    NitiInts squares = {0};
    for (size_t i = 0; i < ONCE && at + NITI_VECTOR_SHORTS <= channels; ++i, at += NITI_VECTOR_SHORTS) {
      squares += niti_winograd_input_vector(v, stride, in, at);
    }
    if (at < channels && at + NITI_VECTOR_SHORTS > channels) {
      int8_t rest[36][NITI_VECTOR_SHORTS];
      const int8_t *from[36];
      for (size_t pixel = 0; pixel < 36; ++pixel) {
        __builtin_memset(rest[pixel], 0, sizeof rest[pixel]);
        __builtin_memcpy(rest[pixel], in[pixel] + at, channels - at);
        from[pixel] = rest[pixel];
      }
      squares += niti_winograd_input_vector(v + at, stride, from, 0);
      at = channels;
    }
    for (size_t lane = 0; lane < NITI_VECTOR_INTS; ++lane) total += (uint32_t)squares[lane];
  }
  return total;
}

NITI_VECTOR_INLINE void niti_winograd_weights_panel(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups,
                                                    int columns, int32_t *magnitudes, int32_t *squares) {
  const NitiShorts one = (NitiShorts){0} + 1;
  for (size_t column = 0; column < (size_t)columns; column += NITI_VECTOR_INTS) {
    NitiInts magnitude, square;
    __builtin_memcpy(&magnitude, magnitudes + column, sizeof magnitude);
    __builtin_memcpy(&square, squares + column, sizeof square);
    for (size_t g = 0; g < groups; ++g) {
      const size_t at = (g * (size_t)columns + column) * 2;
      NitiShorts t[18], out[6];
      NITI_UNROLL for (size_t x = 0; x < 3; ++x) {
        NitiShorts tap[3];
        NITI_UNROLL for (size_t y = 0; y < 3; ++y) {
          __builtin_memcpy(&tap[y], w + (y * 3 + x) * tap_stride + at, sizeof tap[y]);
          const NitiShorts sign = tap[y] >> 15;
          magnitude += niti_pair_sums((tap[y] ^ sign) - sign, one);
          square += niti_pair_sums(tap[y], tap[y]);
        }
        niti_winograd_weights(t + x, 3, tap, 1);
      }
      NITI_UNROLL for (size_t y = 0; y < 6; ++y) {
        niti_winograd_weights(out, 1, t + y * 3, 1);
        NITI_UNROLL for (size_t x = 0; x < 6; ++x) __builtin_memcpy(u + (y * 6 + x) * stride + at, &out[x], sizeof out[x]);
      }
    }
    __builtin_memcpy(magnitudes + column, &magnitude, sizeof magnitude);
    __builtin_memcpy(squares + column, &square, sizeof square);
  }
}

NITI_VECTOR_INLINE void niti_winograd_output_tile(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns,
                                                  const bool add) {
  static const uint32_t ninth = 0x38e38e39; /* of 1, modulo 2^32 */
  static const int halves[4] = {0, 1, 2, 2};
  for (size_t column = 0; column < (size_t)columns; column += NITI_VECTOR_INTS) {
    NitiUnsigned t[24], out[4];
    NITI_UNROLL for (size_t x = 0; x < 6; ++x) {
      NitiUnsigned in[6];
      NITI_UNROLL for (size_t y = 0; y < 6; ++y) {
        const int32_t *from = m + (y * 6 + x) * stride + column;
        __builtin_memcpy(&in[y], from, sizeof in[y]);
      }
      niti_winograd_output(t + x, 6, in, 1);
    }
    NITI_UNROLL for (size_t y = 0; y < 4; ++y) {
      niti_winograd_output(out, 1, t + y * 6, 1);
      NITI_UNROLL for (size_t x = 0; x < 4; ++x) {
        int32_t *to = acc + (y * 4 + x) * acc_stride + column;
        NitiInts sum = (NitiInts)(out[x] * ninth) >> (6 - halves[y] - halves[x]), before;
        if (add) {
          __builtin_memcpy(&before, to, sizeof before);
          sum += before;
        }
        __builtin_memcpy(to, &sum, sizeof sum);
      }
    }
  }
}

#endif
