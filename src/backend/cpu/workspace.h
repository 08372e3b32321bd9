/* A block of memory divided into pieces: begin, then take one piece after another. Without memory a workspace only counts bytes,
 * so the code that takes the pieces also computes how many bytes to reserve.
 *
 * Every piece begins on a cache line of its own. Taking a piece does not write to it: taking the same pieces again returns them
 * with their contents. Debug builds (NITI_DEBUG) keep a red zone before the first piece and after each, and
 * niti_workspace_intact detects writes beyond a piece; in other builds zones take no space and it always returns true. A piece
 * may be divided further by a workspace of its own. */
#ifndef NITI_BACKEND_CPU_WORKSPACE_H
#define NITI_BACKEND_CPU_WORKSPACE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/size.h"

enum { NITI_WORKSPACE_ALIGNMENT = 64 };

#ifdef NITI_DEBUG
enum { NITI_RED_ZONE = 64, NITI_RED_BYTE = 0xfd }; /* minimum bytes of a zone */
#else
enum { NITI_RED_ZONE = 0, NITI_RED_BYTE = 0 };
#endif

typedef struct NitiWorkspace {
  uint8_t *base; /* NULL: a dry run, which counts */
  size_t bytes;  /* there */
  size_t used;   /* so far, a multiple of the alignment; a red zone ends here */
} NitiWorkspace;

/* The last bytes of a red zone: where it begins and where the zone before it ends, each also with its bits inverted. */
typedef struct NitiRedLink {
  size_t begin, previous, not_begin, not_previous;
} NitiRedLink;

/* A red zone from `begin` to the next cache line, plus one whole line. */
static inline void niti_workspace_close_piece(NitiWorkspace *w, size_t begin) {
  const NitiRedLink link = {begin, w->used, ~begin, ~w->used};
  w->used = niti_round_up(begin, NITI_WORKSPACE_ALIGNMENT) + NITI_RED_ZONE;
  assert(w->used <= w->bytes);
  if (NITI_RED_ZONE == 0 || !w->base) return;
  memset(w->base + begin, NITI_RED_BYTE, w->used - begin);
  memcpy(w->base + w->used - sizeof link, &link, sizeof link);
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
  NitiRedLink link;
  for (size_t end = NITI_RED_ZONE > 0 && w->base ? w->used : 0; end > 0; end = link.previous) {
    memcpy(&link, w->base + end - sizeof link, sizeof link);
    if (link.begin != ~link.not_begin || link.previous != ~link.not_previous) return false;
    for (size_t at = link.begin; at < end - sizeof link; ++at) {
      if (w->base[at] != NITI_RED_BYTE) return false;
    }
  }
  return true;
}

#endif
