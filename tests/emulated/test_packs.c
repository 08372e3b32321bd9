/* Packed weights, of every kind and many at a time, against pack.h and wgmma.h read literally. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/pack.h"
#include "splitmix.h"

enum { CASES = 240, GUARD = 64, GUARD_BYTE = 0x5a, TILE_CHANNELS = 128, TILE_SUM = 64, ENTRY = 8 };

static uint64_t random_state = 7;

static int random_in(int low, int high) { return low + (int)(splitmix64(&random_state) % (uint64_t)(high - low + 1)); }

static int parts_of(int all, int part) { return (all + part - 1) / part; }

static int8_t weight(const NitiPack *p, const int8_t *w, int k, int a, int b, int c) {
  return k < p->own && c < p->c ? w[((k * p->kh + p->y.last - a * p->y.step) * p->kw + p->x.last - b * p->x.step) * p->c + c] : 0;
}

/* The output channel of row r: niti_finish_channel(r). */
static int channel_of(int r) { return r / 64 * 64 + r % 8 / 2 * 16 + r % 64 / 8 * 2 + r % 2; }

static bool is_tiled(const NitiPack *p) { return p->kind == NITI_PACK_TILES || p->kind == NITI_PACK_TURNED_TILES; }

static size_t bytes_of(const NitiPack *p) {
  const bool turned = p->kind == NITI_PACK_TURNED_TILES;
  if (p->kind == NITI_PACK_TABLE) return p->pitch * ENTRY;
  if (!is_tiled(p)) return p->pitch * (size_t)(p->kind == NITI_PACK_ROWS ? p->k : p->c);
  return (size_t)(parts_of(turned ? p->c : p->k, TILE_CHANNELS) * TILE_CHANNELS * (turned ? p->k : p->c) * p->y.count *
                  p->x.count);
}

/* [out / 128][in / 64][tap][128][64], 16 bytes in the place of others as a swizzle of rows of 64 bytes has them: by bits 7 and 8
 * of the address. */
static void expect_tiles(int8_t *to, const NitiPack *p, const int8_t *w) {
  const bool turned = p->kind == NITI_PACK_TURNED_TILES;
  const int out = turned ? p->c : p->k, in = turned ? p->k : p->c, taps = p->y.count * p->x.count;
  for (int block = 0; block < parts_of(out, TILE_CHANNELS); ++block) {
    for (int at = 0; at < in * taps * TILE_CHANNELS; ++at) {
      const int tile = at / (TILE_SUM * TILE_CHANNELS), r = at / TILE_SUM % TILE_CHANNELS, i = at % TILE_SUM;
      const int o = block * TILE_CHANNELS + channel_of(r), sum = tile / taps * TILE_SUM + i, tap = tile % taps;
      const int place = r * TILE_SUM + ((i / 16) ^ (r / 2 % 4)) * 16 + i % 16, a = tap / p->x.count, b = tap % p->x.count;
      to[(block * (in / TILE_SUM) * taps + tile) * TILE_SUM * TILE_CHANNELS + place] = o >= out ? 0
                                                                                       : turned ? weight(p, w, sum, a, b, o)
                                                                                                : weight(p, w, o, a, b, sum);
    }
  }
}

static void expect_rows(int8_t *to, const NitiPack *p, const int8_t *w) {
  const int row = p->kh * p->kw * p->c;
  for (int k = 0; k < p->k; ++k)
    for (int i = 0; i < row; ++i) to[(size_t)k * p->pitch + (size_t)i] = k < p->own ? w[k * row + i] : 0;
}

static void expect_turned(int8_t *to, const NitiPack *p, const int8_t *w) {
  for (int c = 0; c < p->c; ++c)
    for (int tap = 0; tap < p->y.count * p->x.count; ++tap)
      for (int k = 0; k < p->k; ++k)
        to[(size_t)c * p->pitch + (size_t)(tap * p->k + k)] = weight(p, w, k, tap / p->x.count, tap % p->x.count, c);
}

static void expect_table(int8_t *to, const NitiPack *p) {
  for (int i = 0; i < p->y.count * p->x.count * p->c; ++i) {
    const int tap = i / p->c;
    const uint16_t y = (uint16_t)(tap / p->x.count), x = (uint16_t)(tap % p->x.count);
    const int32_t offset = y * p->in_row + x * p->c + i % p->c;
    memcpy(to + i * ENTRY, &offset, 4);
    memcpy(to + i * ENTRY + 4, &y, 2);
    memcpy(to + i * ENTRY + 6, &x, 2);
  }
}

/* Some taps of a window, as a phase of a stride has them. */
static NitiTaps some_taps(int all) {
  const int step = random_in(1, 3), last = random_in(0, all - 1);
  return (NitiTaps){random_in(1, last / step + 1), last, step};
}

static NitiPack some_pack(void) {
  NitiPack p = {.kind = (NitiPackKind)random_in(0, 4), .kh = random_in(1, 4), .kw = random_in(1, 4)};
  const bool all = p.kind == NITI_PACK_ROWS || p.kind == NITI_PACK_TILES || p.kind == NITI_PACK_TABLE || random_in(0, 2) == 0;
  p.c = p.kind == NITI_PACK_TILES ? 64 * random_in(1, 2) : random_in(0, 1) ? 16 * random_in(1, 9) : random_in(1, 150);
  p.k = p.kind == NITI_PACK_TURNED_TILES ? 64 * random_in(1, 2) : random_in(0, 1) ? 16 * random_in(1, 9) : random_in(1, 150);
  p.own = random_in(0, 1) ? p.k : random_in(1, p.k);
  p.y = all ? (NitiTaps){p.kh, 0, -1} : some_taps(p.kh);
  p.x = all ? (NitiTaps){p.kw, 0, -1} : some_taps(p.kw);
  const int sum = p.kind == NITI_PACK_ROWS || p.kind == NITI_PACK_TABLE ? p.kh * p.kw * p.c : p.y.count * p.x.count * p.k;
  p.pitch = (size_t)(parts_of(sum, 16) + random_in(0, 1)) * 16;
  p.in_row = p.kw * p.c + random_in(0, 100);
  return p;
}

/* All of them on their way before the first is looked at. */
static void every_kind_is_as_described(void **state) {
  static NitiPack all[CASES];
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *backend = NULL;
  (void)state;
  assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
  NitiPacks packs = {.cuda = niti_cuda(backend)};
  for (int i = 0; i < CASES; ++i) {
    NitiPack *p = &all[i];
    void *to = NULL, *w = NULL;
    *p = some_pack();
    const size_t bytes = bytes_of(p), weights = (size_t)(p->own * p->kh * p->kw * p->c), shift = random_in(0, 3) ? 0 : 1;
    assert_int_equal(backend->ops->alloc(backend, &to, bytes + GUARD), NITI_OK);
    assert_int_equal(backend->ops->alloc(backend, &w, weights + shift), NITI_OK);
    int8_t *values = malloc(weights), *guard = malloc(bytes + GUARD);
    assert_true(values && guard);
    for (size_t k = 0; k < weights; ++k) values[k] = (int8_t)random_in(-127, 127);
    memset(guard, GUARD_BYTE, bytes + GUARD);
    backend->ops->upload(backend, (int8_t *)w + shift, values, weights);
    backend->ops->upload(backend, to, guard, bytes + GUARD);
    p->to = to;
    p->from = (const int8_t *)w + shift;
    niti_packs_add(&packs, p);
    free(values);
    free(guard);
  }
  niti_packs_end(&packs);
  for (int i = 0; i < CASES; ++i) {
    const NitiPack *p = &all[i];
    const size_t bytes = bytes_of(p), weights = (size_t)(p->own * p->kh * p->kw * p->c);
    int8_t *want = calloc(1, bytes + GUARD), *got = malloc(bytes + GUARD), *w = malloc(weights);
    assert_true(want && got && w);
    memset(want + bytes, GUARD_BYTE, GUARD);
    backend->ops->download(backend, w, p->from, weights);
    backend->ops->download(backend, got, p->to, bytes + GUARD);
    if (is_tiled(p)) expect_tiles(want, p, w);
    if (p->kind == NITI_PACK_ROWS) expect_rows(want, p, w);
    if (p->kind == NITI_PACK_TURNED) expect_turned(want, p, w);
    if (p->kind == NITI_PACK_TABLE) expect_table(want, p);
    for (size_t k = 0; k < bytes + GUARD; ++k) {
      if (want[k] == got[k]) continue;
      fail_msg("case %d, kind %d: %d (%d) filters of %dx%dx%d, taps %d, %d, rows of %zu: byte %zu of %zu is %d instead of %d", i,
               (int)p->kind, p->k, p->own, p->kh, p->kw, p->c, p->y.count, p->x.count, p->pitch, k, bytes, got[k], want[k]);
    }
    free(want);
    free(got);
    free(w);
  }
  for (int i = 0; i < CASES; ++i) backend->ops->release(backend, all[i].to);
  assert_int_equal(backend->ops->synchronise(backend), NITI_OK);
  niti_backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind_is_as_described)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
