/* Winograd's butterflies on vectors, written once for every instruction set with GCC's vector extensions: a file that includes
 * this gets the widest integer vectors that its compiler flags allow. F(4x4, 3x3): see docs/arithmetic.md. */
#ifndef NITI_BACKEND_CPU_WINOGRAD_VECTOR_H
#define NITI_BACKEND_CPU_WINOGRAD_VECTOR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512BW__)
enum { NITI_VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { NITI_VECTOR_BYTES = 32 };
#else
enum { NITI_VECTOR_BYTES = 16 };
#endif

#define NITI_INLINE static inline __attribute__((always_inline, unused))

typedef int16_t NitiShorts __attribute__((vector_size(NITI_VECTOR_BYTES)));
typedef int32_t NitiInts __attribute__((vector_size(NITI_VECTOR_BYTES)));
typedef uint32_t NitiUnsigned __attribute__((vector_size(NITI_VECTOR_BYTES)));

/* out[i * out_step] = sum over j of B^T[i][j] * in[j * in_step], with the rows of B^T
 *   4  0 -5  0  1  0 |  0 -4 -4  1  1  0 |  0  4 -4 -1  1  0 |  0 -2 -1  2  1  0 |  0  2 -1 -2  1  0 |  0  4  0 -5  0  1
 * Each grows a magnitude tenfold at most: int8 operands in two dimensions reach 12,700. out may be in. */
NITI_INLINE void niti_winograd_input(NitiShorts *out, size_t out_step, const NitiShorts *in, size_t in_step) {
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

#endif
