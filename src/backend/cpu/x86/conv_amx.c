/* AMX: tdpbssd multiplies a tile of 16 rows x 64 bytes by one of 16 groups of four x 16 columns, signed by signed, so that
 * operands need no offset. A full tile is 32 rows x 32 columns: two tiles of each operand and four of sums, one load for each
 * multiply-add. Sixteen evenly spaced rows are loaded in place, others through a buffer. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/x86/conv_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum {
  LANES = 16,
  WIDE = 2,    /* tiles side by side */
  TALL = 2,    /* and above each other */
  ROWS = 16,   /* of a tile */
  STEP = 64,   /* bytes of a row that one multiply-add consumes */
  GROUPS = 16, /* the same in groups */
  BUFFERS = 4, /* steps of gathered rows in flight: a tile can load from a store only after some time */
  AHEAD = 2,
};

/* The compiler does not know that the tile instructions read memory. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

/* A thread's tile registers: all of 16 rows x 64 bytes. Released after use, so that no idle thread carries them from core to
 * core. */
static void begin(void) {
  static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&config);
}

static void end(void) { _tile_release(); }

/* Where a step reads its rows, relative to a row's first byte. */
typedef struct Cursor {
  size_t at, step, run;
} Cursor;

INLINE void advance(Cursor *c, const NitiMicrotile *t, size_t steps) {
  c->at += STEP;
  if (++c->step < steps) return;
  c->step = 0;
  c->at += t->run_stride - steps * STEP;
  if (++c->run < t->runs) return;
  c->run = 0;
  c->at += t->set_stride - t->runs * t->run_stride;
}

INLINE void gather(uint8_t *to, const uint8_t *const *from, size_t at, const int tall) {
  for (int row = 0; row < tall * ROWS; ++row) {
    _mm512_store_si512((void *)(to + row * STEP), _mm512_loadu_si512((const void *)(from[row] + at)));
  }
}

/* Whether rows first .. first + 15 of the tile are equally spaced; *stride: their distance. */
INLINE bool evenly(const NitiMicrotile *t, int first, size_t *stride) {
  const size_t *offset = t->row_offset + first;
  if (t->rows < first + ROWS) return false;
  *stride = offset[1] - offset[0];
  const __m512i one = _mm512_set1_epi64((int64_t)*stride), base = _mm512_set1_epi64((int64_t)offset[0]);
  const __m512i low = _mm512_add_epi64(base, _mm512_mullo_epi64(one, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)));
  const __m512i high = _mm512_add_epi64(low, _mm512_slli_epi64(one, 3));
  return (_mm512_cmpneq_epi64_mask(low, _mm512_loadu_si512(offset)) |
          _mm512_cmpneq_epi64_mask(high, _mm512_loadu_si512(offset + 8))) == 0;
}

/* Sums 0 1 / 2 3 += rows 4 / 5 x columns 6 7. */
INLINE void multiply(const uint8_t *upper, size_t upper_stride, const uint8_t *lower, size_t lower_stride, const uint8_t *panel,
                     const int tall, const int wide) {
  _tile_loadd(6, panel, wide * 64);
  _tile_loadd(4, upper, upper_stride);
  _tile_dpbssd(0, 4, 6);
  if (wide > 1) _tile_loadd(7, panel + 64, wide * 64);
  if (wide > 1) _tile_dpbssd(1, 4, 7);
  if (tall > 1) _tile_loadd(5, lower, lower_stride);
  if (tall > 1) _tile_dpbssd(2, 5, 6);
  if (tall > 1 && wide > 1) _tile_dpbssd(3, 5, 7);
}

INLINE void load_sums(const int32_t *from, size_t stride, const int tall, const int wide) {
  const int32_t *lower = from + ROWS * stride;
  const size_t bytes = stride * sizeof(int32_t);
  _tile_loadd(0, from, bytes);
  if (wide > 1) _tile_loadd(1, from + LANES, bytes);
  if (tall > 1) _tile_loadd(2, lower, bytes);
  if (tall > 1 && wide > 1) _tile_loadd(3, lower + LANES, bytes);
}

INLINE void store_sums(int32_t *to, const int tall, const int wide) {
  int32_t *lower = to + ROWS * LANES * wide;
  const size_t bytes = (size_t)(LANES * wide) * sizeof(int32_t);
  _tile_stored(0, to, bytes);
  if (wide > 1) _tile_stored(1, to + LANES, bytes);
  if (tall > 1) _tile_stored(2, lower, bytes);
  if (tall > 1 && wide > 1) _tile_stored(3, lower + LANES, bytes);
}

/* The columns' side of one step; the last of a run may be short, and what follows in the panel is the next run. */
INLINE const uint8_t *columns_of(const uint8_t **panel, uint8_t *rest, const Cursor *c, size_t steps, size_t groups,
                                 const int wide) {
  const uint8_t *from = *panel;
  if (c->step + 1 < steps || groups == GROUPS) {
    *panel += GROUPS * wide * 64;
    return from;
  }
  for (size_t i = 0; i < groups * (size_t)wide; ++i) {
    _mm512_store_si512((void *)(rest + i * 64), _mm512_loadu_si512((const void *)(from + i * 64)));
  }
  WRITTEN();
  *panel += groups * (size_t)wide * 64;
  return rest;
}

INLINE void tile_of(const NitiMicrotile *t, const int tall, const int wide, const bool in_place, size_t upper, size_t lower) {
  _Alignas(64) int32_t some[TALL * ROWS * WIDE * LANES]; /* sums of a tile with fewer rows */
  _Alignas(64) uint8_t rest[GROUPS * WIDE * 64];
  _Alignas(64) uint8_t gathered[BUFFERS][TALL * ROWS * STEP];
  const uint8_t *row[TALL * ROWS];
  const size_t row_bytes = (size_t)(wide * LANES) * sizeof(int32_t);
  const bool all = t->rows == tall * ROWS;
  if (all || t->init_stride == 0) {
    load_sums(t->init, t->init_stride, tall, wide);
  } else {
    for (int i = 0; i < tall * ROWS; ++i) {
      memcpy(some + i * wide * LANES, t->init + (i < t->rows ? (size_t)i * t->init_stride : 0), row_bytes);
    }
    WRITTEN();
    load_sums(some, (size_t)(wide * LANES), tall, wide);
  }

  const size_t steps = (t->groups + GROUPS - 1) / GROUPS, count = t->sets * t->runs * steps;
  const size_t last_groups = t->groups - (steps - 1) * GROUPS; /* of a run's last step */
  const uint8_t *panel = t->panel, *in = t->in + t->row_offset[0];
  Cursor here = {0}, ahead = {0};
  if (steps > 0 && last_groups < GROUPS) memset(rest, 0, sizeof rest);
  if (in_place) {
    const size_t down = tall > 1 ? t->row_offset[ROWS] - t->row_offset[0] : 0;
    for (size_t i = 0; i < count; ++i) {
      const uint8_t *columns = columns_of(&panel, rest, &here, steps, last_groups, wide);
      multiply(in + here.at, upper, in + down + here.at, lower, columns, tall, wide);
      advance(&here, t, steps);
    }
  } else {
    for (int i = 0; i < tall * ROWS; ++i) row[i] = t->in + t->row_offset[i < t->rows ? i : 0];
    for (size_t i = 0; i < AHEAD && i < count; ++i) {
      gather(gathered[i], row, ahead.at, tall);
      advance(&ahead, t, steps);
    }
    for (size_t i = 0; i < count; ++i) {
      if (i + AHEAD < count) {
        gather(gathered[(i + AHEAD) % BUFFERS], row, ahead.at, tall);
        advance(&ahead, t, steps);
      }
      const uint8_t *columns = columns_of(&panel, rest, &here, steps, last_groups, wide), *rows = gathered[i % BUFFERS];
      WRITTEN();
      multiply(rows, STEP, rows + ROWS * STEP, STEP, columns, tall, wide);
      advance(&here, t, steps);
    }
  }
  if (all) {
    store_sums(t->acc, tall, wide);
  } else {
    store_sums(some, tall, wide);
    WRITTEN();
    memcpy(t->acc, some, (size_t)t->rows * row_bytes);
  }
}

#define TILE(tall, wide)                                                                     \
  static void in_place_##tall##x##wide(const NitiMicrotile *t, size_t upper, size_t lower) { \
    tile_of(t, tall, wide, true, upper, lower);                                              \
  }                                                                                          \
  static void gathered_##tall##x##wide(const NitiMicrotile *t) { tile_of(t, tall, wide, false, 0, 0); }
TILE(1, 1)
TILE(1, 2)
TILE(2, 1)
TILE(2, 2)

static void microkernel(const NitiMicrotile *t) {
  static void (*const in_place[TALL][WIDE])(const NitiMicrotile *, size_t, size_t) = {{in_place_1x1, in_place_1x2},
                                                                                      {in_place_2x1, in_place_2x2}};
  static void (*const gathered[TALL][WIDE])(const NitiMicrotile *) = {{gathered_1x1, gathered_1x2}, {gathered_2x1, gathered_2x2}};
  const int tall = t->rows > ROWS;
  size_t upper, lower = 0;
  if (evenly(t, 0, &upper) && (!tall || evenly(t, ROWS, &lower))) {
    in_place[tall][t->vectors - 1](t, upper, lower);
  } else {
    gathered[tall][t->vectors - 1](t);
  }
}

const NitiConvKernels niti_conv_kernels_amx = {
    .name = "amx 32x32 direct",
    .element = 1,
    .group = 4,
    .lanes = LANES,
    .vectors = WIDE,
    .mr = {0, TALL *ROWS, TALL *ROWS},
    .step = STEP,
    .begin = begin,
    .end = end,
    .microkernel = microkernel,
    .convert = niti_convert_s8_avx2,
    .zero = niti_zero_s8_avx2,
    .transpose = niti_transpose_s8_avx2,
    .panel_across = niti_panel_across_8x4_avx2,
    .panel_along = niti_panel_along_8x4_avx2,
    .requantise = niti_requantise_tile_avx512,
    .store = niti_gradient_store_avx512,
};
