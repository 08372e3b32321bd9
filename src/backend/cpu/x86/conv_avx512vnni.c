/* AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes in fours, so activations are offset by 128 and each sum starts with
 * a correction (modulo 2^32, which is exact). Nonnegative activations are used unsigned, without an offset.
 *
 * A full tile is 6 rows x 64 columns: 4 loads of weights and 6 broadcasts feed 24 multiply-adds, which keeps the load ports well
 * below saturation; 8 x 32 (10 loads, 16 multiply-adds) does not. Two groups per iteration save loop instructions: if
 * the core's other thread is busy, the number of instructions limits the tile. */
#include <immintrin.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum { LANES = 16, ROWS_MAX = 12 };

/* As assembly because gcc 12 copies the accumulators of the intrinsic from register to register. */
INLINE __m512i dot(__m512i sum, __m512i activations, __m512i weights) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(activations), "v"(weights));
  return sum;
}

INLINE __m512i broadcast(const uint8_t *from) {
  __m512i v;
  __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*(const uint32_t(*)[1])(const void *)from));
  return v;
}

/* `unroll` groups per iteration; the number of groups must be a multiple of it. */
INLINE void tile_of(const NitiMicrotile *t, const int rows, const int vectors, const int unroll) {
  __m512i sum[ROWS_MAX][NITI_NR_VECTORS];
  const uint8_t *panel = t->panel;
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) { sum[m][v] = _mm512_loadu_si512(t->init + (size_t)m * t->init_stride + v * LANES); }
  }
  const size_t bytes = t->groups * 4;
  for (size_t set = 0; set < t->sets; ++set) {
    const uint8_t *in[ROWS_MAX];
    UNROLL for (int m = 0; m < rows; ++m) {
      in[m] = t->in + t->row_offset[m] + set * t->set_stride;
      __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
    }
    for (size_t run = 0, i = 0; run < t->runs; ++run, i += t->run_stride - bytes) {
      for (const size_t end = i + bytes; i < end; i += (size_t)unroll * 4) {
        UNROLL for (int u = 0; u < unroll; ++u) {
          __m512i weights[NITI_NR_VECTORS];
          UNROLL for (int v = 0; v < vectors; ++v) weights[v] = _mm512_loadu_si512(panel + (u * vectors + v) * 64);
          UNROLL for (int m = 0; m < rows; ++m) {
            const __m512i activations = broadcast(in[m] + i + u * 4);
            UNROLL for (int v = 0; v < vectors; ++v) sum[m][v] = dot(sum[m][v], activations, weights[v]);
          }
        }
        panel += unroll * vectors * 64;
      }
    }
  }
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) _mm512_storeu_si512(t->acc + (m * vectors + v) * LANES, sum[m][v]);
  }
}

#define TILE(rows, vectors) \
  static void tile_##rows##x##vectors(const NitiMicrotile *t) { tile_of(t, rows, vectors, 1); }
#define TILES_1_TO_6(vectors) \
  TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors) TILE(5, vectors) TILE(6, vectors)
TILES_1_TO_6(1)
TILES_1_TO_6(2)
TILES_1_TO_6(3)
TILES_1_TO_6(4)
TILE(7, 1)
TILE(8, 1)
TILE(9, 1)
TILE(10, 1)
TILE(11, 1)
TILE(12, 1)
TILE(7, 2)
TILE(8, 2)
TILE(9, 2)
TILE(10, 2)
TILE(11, 2)
TILE(12, 2)
TILE(7, 3)
TILE(8, 3)

/* The largest, by pairs of groups. */
static void pairs_6x4(const NitiMicrotile *t) { tile_of(t, 6, 4, 2); }
static void pairs_8x3(const NitiMicrotile *t) { tile_of(t, 8, 3, 2); }

static void microkernel(const NitiMicrotile *t) {
  typedef void (*Tile)(const NitiMicrotile *);
  static const Tile tiles[NITI_NR_VECTORS][ROWS_MAX] = {
      {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1, tile_9x1, tile_10x1, tile_11x1, tile_12x1},
      {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2, tile_9x2, tile_10x2, tile_11x2, tile_12x2},
      {tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3, tile_7x3, tile_8x3},
      {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4},
  };
  const bool pairs = t->groups % 2 == 0;
  if (pairs && t->rows == 6 && t->vectors == 4)
    pairs_6x4(t);
  else if (pairs && t->rows == 8 && t->vectors == 3)
    pairs_8x3(t);
  else
    tiles[t->vectors - 1][t->rows - 1](t);
}

/* All members but those for the operand elements of activations. */
#define BOTH                                                                                                         \
  .name = "avx512vnni 6x64 direct", .element = 1, .group = 4, .lanes = LANES, .vectors = 4, .mr = {0, 12, 12, 8, 6}, \
  .microkernel = microkernel, .panel_across = niti_panel_across_8x4_avx2, .panel_along = niti_panel_along_8x4_avx2,  \
  .requantise = niti_requantise_tile_avx512, .store = niti_gradient_store_avx512

static const NitiConvKernels nonnegative = {
    BOTH, .in_place = true, .convert = niti_convert_s8_avx2, .zero = niti_zero_s8_avx2, .transpose = niti_transpose_s8_avx2,
};

const NitiConvKernels niti_conv_kernels_avx512vnni = {
    BOTH,
    .offset = true,
    .nonnegative = &nonnegative,
    .convert = niti_convert_8_avx2,
    .zero = niti_zero_8_avx2,
    .transpose = niti_transpose_8_avx2,
};
