/* NEON dot products: sdot multiplies signed by signed bytes and takes one operand's four bytes from a lane, so 16 bytes of a row
 * are enough for four groups. A full tile is 6 rows x 16 columns: four groups cost 16 loads of weights and 6 of activations for
 * 96 multiply-adds, and 24 sums, 6 activations and 2 weights just fill the registers. */
#include <arm_neon.h>

#include "backend/cpu/arm/conv_neon.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum { LANES = 4, ROWS_MAX = 12 };

/* As assembly, in the order written: gcc 12 would load too early, until registers run out. */
INLINE int8x16_t load_weights(const int8_t *from) {
  int8x16_t v;
  __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const int8_t(*)[16])from));
  return v;
}

/* One group of every row, four bytes of `lane`: a macro because that is part of the instruction. */
#define GROUP(lane)                                                                                                   \
  UNROLL for (int v = 0; v < vectors; ++v) {                                                                          \
    const int8x16_t weights = load_weights(panel + v * 16);                                                           \
    UNROLL for (int m = 0; m < rows; ++m) {                                                                           \
      __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(sum[m][v]) : "w"(weights), "w"(activations[m])); \
    }                                                                                                                 \
  }                                                                                                                   \
  panel += vectors * 16

INLINE void tile_of(const NitiMicrotile *t, const int rows, const int vectors) {
  int32x4_t sum[ROWS_MAX][NITI_NR_VECTORS];
  int8x16_t activations[ROWS_MAX];
  const int8_t *panel = t->panel;
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) sum[m][v] = vld1q_s32(t->init + (size_t)m * t->init_stride + v * LANES);
  }
  const size_t bytes = t->groups * 4;
  for (size_t set = 0; set < t->sets; ++set) {
    const uint8_t *in[ROWS_MAX];
    UNROLL for (int m = 0; m < rows; ++m) {
      in[m] = t->in + t->row_offset[m] + set * t->set_stride;
      __asm__("" : "+r"(in[m])); /* one register each: gcc would add the parts up again in the inner loop */
    }
    for (size_t run = 0, i = 0; run < t->runs; ++run, i += t->run_stride - bytes) {
      const size_t end = i + bytes;
      for (; end - i >= 16; i += 16) {
        UNROLL for (int m = 0; m < rows; ++m) activations[m] = vreinterpretq_s8_u8(vld1q_u8(in[m] + i));
        GROUP(0);
        GROUP(1);
        GROUP(2);
        GROUP(3);
      }
      for (; i < end; i += 4) {
        UNROLL for (int m = 0; m < rows; ++m) {
          int32_t group;
          __builtin_memcpy(&group, in[m] + i, sizeof group);
          activations[m] = vreinterpretq_s8_s32(vdupq_n_s32(group));
        }
        GROUP(0);
      }
    }
  }
  UNROLL for (int m = 0; m < rows; ++m) {
    UNROLL for (int v = 0; v < vectors; ++v) vst1q_s32(t->acc + (m * vectors + v) * LANES, sum[m][v]);
  }
}

#define TILE(rows, vectors) \
  static void tile_##rows##x##vectors(const NitiMicrotile *t) { tile_of(t, rows, vectors); }
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

static void microkernel(const NitiMicrotile *t) {
  typedef void (*Tile)(const NitiMicrotile *);
  static const Tile tiles[NITI_NR_VECTORS][ROWS_MAX] = {
      {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1, tile_9x1, tile_10x1, tile_11x1, tile_12x1},
      {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2},
      {tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3},
      {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4},
  };
  tiles[t->vectors - 1][t->rows - 1](t);
}

const NitiConvKernels niti_conv_kernels_neon_dotprod = {
    .name = "neon-dotprod 6x16 direct",
    .element = 1,
    .group = 4,
    .lanes = LANES,
    .vectors = NITI_NR_VECTORS,
    .mr = {0, 12, 8, 6, 6},
    .microkernel = microkernel,
    .convert = niti_convert_neon,
    .zero = niti_zero_neon,
    .transpose = niti_transpose_neon,
    .panel_across = niti_panel_across_8x4_neon,
    .panel_along = niti_panel_along_8x4_neon,
    .requantise = niti_requantise_tile_neon,
    .store = niti_gradient_store_neon,
};
