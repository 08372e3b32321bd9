/* Memory by lifetime: buffers with a first and last use, placed in one arena so that those alive together do not overlap. */
#ifndef NITI_MODEL_LIFETIME_H
#define NITI_MODEL_LIFETIME_H

#include <stddef.h>
#include <stdint.h>

typedef struct NitiLifetimes NitiLifetimes;

/* Room for at most `capacity` buffers; NULL: out of memory. */
NitiLifetimes *niti_lifetimes_open(size_t capacity);
void niti_lifetimes_close(NitiLifetimes *lives);
/* A buffer born at `time`; returns its number. */
int32_t niti_lifetimes_add(NitiLifetimes *lives, size_t bytes, int32_t time);
/* It is used at `time` too. */
void niti_lifetimes_use(NitiLifetimes *lives, int32_t buffer, int32_t time);
/* Places all buffers (largest first, at the lowest free offset); returns the arena's size. */
size_t niti_lifetimes_place(NitiLifetimes *lives, size_t align);
/* After placing; -1 for a negative buffer. */
int64_t niti_lifetimes_offset(const NitiLifetimes *lives, int32_t buffer);

#endif
