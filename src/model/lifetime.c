#include "model/lifetime.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct Life {
  size_t bytes, offset;
  int32_t first, last;
} Life;

struct NitiLifetimes {
  Life *lives;
  Life **order; /* by size while placing; the placed ones by offset */
  Life **placed;
  size_t count, capacity;
};

NitiLifetimes *niti_lifetimes_open(size_t capacity) {
  NitiLifetimes *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->capacity = capacity;
  l->lives = calloc(capacity, sizeof *l->lives);
  l->order = calloc(capacity, sizeof(Life *));
  l->placed = calloc(capacity, sizeof(Life *));
  if (!l->lives || !l->order || !l->placed) {
    niti_lifetimes_close(l);
    return NULL;
  }
  return l;
}

void niti_lifetimes_close(NitiLifetimes *l) {
  if (!l) return;
  free(l->lives);
  free(l->order);
  free(l->placed);
  free(l);
}

int32_t niti_lifetimes_add(NitiLifetimes *l, size_t bytes, int32_t time) {
  assert(l->count < l->capacity);
  l->lives[l->count] = (Life){.bytes = bytes, .first = time, .last = time};
  return (int32_t)l->count++;
}

void niti_lifetimes_use(NitiLifetimes *l, int32_t buffer, int32_t time) {
  Life *life = &l->lives[buffer];
  if (time < life->first) life->first = time;
  if (time > life->last) life->last = time;
}

static int larger_first(const void *a, const void *b) {
  const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : 1; /* a fixed order: plans are reproducible */
}

size_t niti_lifetimes_place(NitiLifetimes *l, size_t align) {
  size_t arena = 0;
  for (size_t i = 0; i < l->count; ++i) l->order[i] = &l->lives[i];
  qsort(l->order, l->count, sizeof *l->order, larger_first);
  for (size_t i = 0; i < l->count; ++i) {
    Life *life = l->order[i];
    size_t offset = 0;
    for (size_t p = 0; p < i; ++p) { /* placed ones by ascending offset: slide behind each that is in the way */
      const Life *other = l->placed[p];
      const bool together = life->first <= other->last && other->first <= life->last;
      if (together && offset < other->offset + other->bytes && other->offset < offset + life->bytes) {
        offset = (other->offset + other->bytes + align - 1) / align * align;
      }
    }
    life->offset = offset;
    size_t at = i;
    for (; at > 0 && l->placed[at - 1]->offset > offset; --at) l->placed[at] = l->placed[at - 1];
    l->placed[at] = life;
    if (offset + life->bytes > arena) arena = offset + life->bytes;
  }
  return (arena + align - 1) / align * align;
}

int64_t niti_lifetimes_offset(const NitiLifetimes *l, int32_t buffer) {
  return buffer < 0 ? -1 : (int64_t)l->lives[buffer].offset;
}
