/* NEON matrix products: smmla adds to 2 x 2 sums those of two rows by two columns over groups of eight signed bytes. A full tile
 * is 6 rows x 16 columns, 3 x 8 such squares: one group costs 8 loads of weights and 3 of activations for 24 instructions of 32
 * multiply-adds. Rows are processed in pairs; an odd last row is paired with itself, and the duplicate is not stored. */
#include <arm_neon.h>

#include "backend/cpu/arm/conv_neon.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum { LANES = 4, PAIRS_MAX = 6, SQUARES_MAX = 2 * NITI_NR_VECTORS };

/* The lower and the upper halves of two vectors. */
INLINE int32x4_t lower(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
INLINE int32x4_t upper(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

INLINE int32x4_t load(const uint8_t *from) { return vreinterpretq_s32_u8(vld1q_u8(from)); }

/* As assembly, in the order written: gcc 12 would load too early and copy the sums, until registers run out. */
INLINE int8x16_t load_weights(const int8_t *from) {
  int8x16_t v;
  __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const int8_t(*)[16])from));
  return v;
}

INLINE int32x4_t square(int32x4_t sum, int32x4_t activations, int8x16_t weights) {
  __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(activations), "w"(weights));
  return sum;
}

/* One group of every pair of rows by every pair of columns. */
INLINE const int8_t *multiply(int32x4_t sum[PAIRS_MAX][SQUARES_MAX], const int32x4_t activations[PAIRS_MAX], const int8_t *panel,
                              const int pairs, const int vectors) {
  UNROLL for (int j = 0; j < 2 * vectors; ++j) {
    const int8x16_t weights = load_weights(panel + j * 16);
    UNROLL for (int p = 0; p < pairs; ++p) sum[p][j] = square(sum[p][j], activations[p], weights);
  }
  return panel + vectors * 32;
}

INLINE void tile_of(const NitiMicrotile *t, const int pairs, const int vectors) {
  int32x4_t sum[PAIRS_MAX][SQUARES_MAX]; /* {row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1} */
  const int8_t *panel = t->panel;
  const int odd = t->rows & 1;
  UNROLL for (int p = 0; p < pairs; ++p) {
    const int32_t *row = t->init + (size_t)(2 * p) * t->init_stride, *next = row + t->init_stride;
    if (p == pairs - 1 && odd) next = row;
    UNROLL for (int v = 0; v < vectors; ++v) {
      const int32x4_t a = vld1q_s32(row + v * LANES), b = vld1q_s32(next + v * LANES);
      sum[p][2 * v] = lower(a, b);
      sum[p][2 * v + 1] = upper(a, b);
    }
  }
  const size_t bytes = t->groups * 8;
  for (size_t set = 0; set < t->sets; ++set) {
    const uint8_t *in[2 * PAIRS_MAX];
    UNROLL for (int m = 0; m < 2 * pairs; ++m) {
      in[m] = t->in + t->row_offset[m == 2 * pairs - 1 ? m - odd : m] + set * t->set_stride;
      __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
    }
    for (size_t run = 0, i = 0; run < t->runs; ++run, i += t->run_stride - bytes) {
      const size_t end = i + bytes;
      for (; end - i >= 16; i += 16) {
        int32x4_t first[PAIRS_MAX], second[PAIRS_MAX];
        UNROLL for (int p = 0; p < pairs; ++p) {
          const int32x4_t a = load(in[2 * p] + i), b = load(in[2 * p + 1] + i);
          first[p] = lower(a, b);
          second[p] = upper(a, b);
        }
        panel = multiply(sum, first, panel, pairs, vectors);
        panel = multiply(sum, second, panel, pairs, vectors);
      }
      if (i < end) {
        int32x4_t last[PAIRS_MAX];
        UNROLL for (int p = 0; p < pairs; ++p) {
          last[p] = vreinterpretq_s32_u8(vcombine_u8(vld1_u8(in[2 * p] + i), vld1_u8(in[2 * p + 1] + i)));
        }
        panel = multiply(sum, last, panel, pairs, vectors);
        i += 8;
      }
    }
  }
  UNROLL for (int p = 0; p < pairs; ++p) {
    int32_t *row = t->acc + 2 * p * vectors * LANES;
    UNROLL for (int v = 0; v < vectors; ++v) vst1q_s32(row + v * LANES, lower(sum[p][2 * v], sum[p][2 * v + 1]));
    if (p == pairs - 1 && odd) continue;
    UNROLL for (int v = 0; v < vectors; ++v) { vst1q_s32(row + (vectors + v) * LANES, upper(sum[p][2 * v], sum[p][2 * v + 1])); }
  }
}

#define TILE(pairs, vectors) \
  static void tile_##pairs##x##vectors(const NitiMicrotile *t) { tile_of(t, pairs, vectors); }
#define TILES_1_TO_3(vectors) TILE(1, vectors) TILE(2, vectors) TILE(3, vectors)
TILES_1_TO_3(1)
TILES_1_TO_3(2)
TILES_1_TO_3(3)
TILES_1_TO_3(4)
TILE(4, 1)
TILE(5, 1)
TILE(6, 1)
TILE(4, 2)

static void microkernel(const NitiMicrotile *t) {
  typedef void (*Tile)(const NitiMicrotile *);
  static const Tile tiles[NITI_NR_VECTORS][PAIRS_MAX] = {
      {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
      {tile_1x2, tile_2x2, tile_3x2, tile_4x2},
      {tile_1x3, tile_2x3, tile_3x3},
      {tile_1x4, tile_2x4, tile_3x4},
  };
  tiles[t->vectors - 1][(t->rows - 1) / 2](t);
}

const NitiConvKernels niti_conv_kernels_neon_i8mm = {
    .name = "neon-i8mm 6x16 direct",
    .element = 1,
    .group = 8,
    .lanes = LANES,
    .vectors = NITI_NR_VECTORS,
    .mr = {0, 12, 8, 6, 6},
    .microkernel = microkernel,
    .convert = niti_convert_neon,
    .zero = niti_zero_neon,
    .transpose = niti_transpose_neon,
    .panel_across = niti_panel_across_8x8_neon,
    .panel_along = niti_panel_along_8x8_neon,
    .requantise = niti_requantise_tile_neon,
    .store = niti_gradient_store_neon,
};
