/* A block of memory cut into pieces: begin, then take one piece after another. Begun without memory it only counts, so the code
 * that takes the pieces is also the code that says how many bytes to reserve, and the two cannot disagree.
 *
 * Every piece begins on a cache line of its own. Taking a piece writes nothing to it: who takes the same pieces again finds what
 * was left in them. Debug builds (NITI_DEBUG) keep a red zone before the first piece and behind each, and
 * niti_workspace_intact finds writes beyond a piece; otherwise zones take no room and it always holds. A piece may be cut
 * further by a workspace of its own. */
#ifndef NITI_BACKEND_CPU_WORKSPACE_H
#define NITI_BACKEND_CPU_WORKSPACE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/size.h"

enum { NITI_WORKSPACE_ALIGNMENT = 64 };

#ifdef NITI_DEBUG
enum { NITI_RED_ZONE = 64, NITI_RED_ZONES = 24, NITI_RED_BYTE = 0xfd }; /* bytes of one at least; how many are watched */
#else
enum { NITI_RED_ZONE = 0, NITI_RED_ZONES = 1, NITI_RED_BYTE = 0 };
#endif

typedef struct NitiWorkspace {
  uint8_t *base; /* NULL: a dry run, which counts */
  size_t bytes;  /* there */
  size_t used;   /* so far, a multiple of the alignment */
  size_t zones;  /* their number; where each begins. They end on the next line but one. */
  size_t zone[NITI_RED_ZONES];
} NitiWorkspace;

static inline size_t niti_red_zone_end(size_t begin) { return niti_round_up(begin, NITI_WORKSPACE_ALIGNMENT) + NITI_RED_ZONE; }

/* From `begin` to the next line and a whole line more. */
static inline void niti_workspace_close_piece(NitiWorkspace *w, size_t begin) {
  w->used = niti_red_zone_end(begin);
  assert(w->used <= w->bytes);
  if (!NITI_RED_ZONE || w->zones == NITI_RED_ZONES) return; /* a strided convolution has more pieces than are watched */
  w->zone[w->zones++] = begin;
  if (w->base) memset(w->base + begin, NITI_RED_BYTE, w->used - begin);
}

/* base: NULL for a dry run, or `bytes` bytes, aligned to NITI_WORKSPACE_ALIGNMENT. */
static inline NitiWorkspace niti_workspace_begin(void *base, size_t bytes) {
  NitiWorkspace w = {.base = (uint8_t *)base, .bytes = base ? bytes : SIZE_MAX};
  assert((uintptr_t)base % NITI_WORKSPACE_ALIGNMENT == 0);
  niti_workspace_close_piece(&w, 0);
  return w;
}

/* The next `bytes` bytes; NULL in a dry run. */
static inline void *niti_workspace_take(NitiWorkspace *w, size_t bytes) {
  uint8_t *piece = w->base ? w->base + w->used : NULL;
  niti_workspace_close_piece(w, w->used + bytes);
  return piece;
}

/* Whether nothing was written between the pieces. */
static inline bool niti_workspace_intact(const NitiWorkspace *w) {
  for (size_t i = 0; NITI_RED_ZONE > 0 && w->base && i < w->zones; ++i) {
    for (size_t at = w->zone[i]; at < niti_red_zone_end(w->zone[i]); ++at) {
      if (w->base[at] != NITI_RED_BYTE) return false;
    }
  }
  return true;
}

#endif
