/* Rounding four accumulators at a time: with 16 fraction bits a mantissa is an accumulator's upper half, of which two are clipped
 * by one instruction. */
#ifndef NITI_BACKEND_CUDA_ROUND_FOUR_CUH
#define NITI_BACKEND_CUDA_ROUND_FOUR_CUH

#include "backend/cuda/device.cuh"

/* To nearest; the same of accumulators that have half added already, and whose results are not negative; with random bytes. */
enum NitiWideRounding { NITI_WIDE_NEAREST, NITI_WIDE_RELU, NITI_WIDE_BYTE };

enum { NITI_WIDE_CLIP = 7 /* bits, for which 32 hold what is rounded */ };

#ifdef __CUDACC__

__device__ inline int niti_byte_of(uint32_t word, int k) { return (int)niti_permute(word, 0, 0x8880u + 0x1111u * (uint32_t)k); }

/* Adds to each of two accumulators what rounds it, then cut off below bit 16. Upwards from a magnitude m is floor((m + R) /
 * 2^16), R = 256 (255 - byte) + 128; for a negative accumulator that is floor((acc + 65535 - R) / 2^16), and 65535 - R is R with
 * all bits flipped. bytes: both, each times 256 in 16 bits. */
__device__ inline void niti_add_rests(int *acc, uint32_t bytes) {
  const uint32_t rests = bytes ^ niti_permute((uint32_t)acc[0], (uint32_t)acc[1], 0xffbb) ^ 0xff80ff80u;
  acc[0] = (int)__dp2a_lo(rests, 0x0001u, (uint32_t)acc[0]);
  acc[1] = (int)__dp2a_lo(rests, 0x0100u, (uint32_t)acc[1]);
}

/* Four accumulators with 16 fraction bits, |acc| < 2^31 - 2^16, to mantissas. low, most: the least and the largest, each twice as
 * 16 bits. */
template <int ROUNDING>
__device__ inline uint32_t niti_wide_round(int *acc, uint32_t random, uint32_t low,
                                           uint32_t most = 0x10001u * NITI_MANTISSA_MAX) {
#pragma unroll
  for (int k = 0; k < 4 && ROUNDING == NITI_WIDE_NEAREST; ++k) acc[k] += (1 << 15) + (acc[k] >> 31); /* ties away from zero */
  if (ROUNDING == NITI_WIDE_BYTE) {
    niti_add_rests(acc, niti_permute(random, 0, 0x1404));
    niti_add_rests(acc + 2, niti_permute(random, 0, 0x3424));
  }
  const uint32_t first = __byte_perm((uint32_t)acc[0], (uint32_t)acc[1], 0x7632);
  const uint32_t second = __byte_perm((uint32_t)acc[2], (uint32_t)acc[3], 0x7632);
  return __byte_perm(__vmaxs2(__vmins2(first, most), low), __vmaxs2(__vmins2(second, most), low), 0x6420);
}

/* What brings accumulators below 2^23 in magnitude to 16 fraction bits, of which no true shift takes more. With a clip of up to 7
 * bits they are below 2^(shift + 14), so that 2^30 bounds what comes out. Where the shift is too small anything may. */
__device__ inline uint32_t niti_wide_up(int shift) { return shift > 16 ? 0 : 16 - (uint32_t)shift; }

template <int ROUNDING>
__device__ inline uint32_t niti_wide_requantise(int acc[4], uint32_t up, uint32_t random, uint32_t low) {
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] = (int)((uint32_t)acc[k] << up);
  return niti_wide_round<ROUNDING>(acc, random, low);
}

/* acc / 2^down, towards zero. */
__device__ inline int niti_wide_down(int acc, uint32_t down) { return (acc + (acc >> 31 & ((1 << down) - 1))) >> down; }

/* The same where the shift is more than 16, by `down` more: of magnitudes the bits below the 16th fraction bit decide nothing, as
 * neither a half nor a random byte has any there. What comes out is below 2^30 whatever the accumulators are. */
template <int ROUNDING>
__device__ inline uint32_t niti_wide_requantise_down(int acc[4], uint32_t down, uint32_t random, uint32_t low) {
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] = niti_wide_down(acc[k], down);
  return niti_wide_round<ROUNDING>(acc, random, low);
}

#endif
#endif
