/* Weights as kernels read them. One launch packs those of many convolutions. */
#ifndef NITI_BACKEND_CUDA_PACK_H
#define NITI_BACKEND_CUDA_PACK_H

#include "backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Taps last, last - step, ... of a window's rows or columns. */
typedef struct NitiTaps {
  int32_t count, last, step;
} NitiTaps;

/* Of w [own][kh][kw][c], with zeros where a filter is `own` or beyond, and of the taps `y` and `x`. */
typedef enum NitiPackKind {
  /* Rows of `pitch` bytes, w's filters with zeros at the end; all taps. */
  NITI_PACK_ROWS,
  /* to[c][a][b][k] = w[k][y's tap a][x's tap b][c], rows of `pitch` bytes with zeros at the end. */
  NITI_PACK_TURNED,
  /* Tiles that a plain copy brings into shared memory ready for wgmma (wgmma.h); output channels are filters, */
  NITI_PACK_TILES,
  /* or, backward, w's channels. */
  NITI_PACK_TURNED_TILES,
  /* No weights: the `pitch` NitiMmaEntry of a sum over taps and c channels; in_row: bytes of a row of the input. Beyond the sum
   * they are of the first position, to be multiplied by 0. */
  NITI_PACK_TABLE,
} NitiPackKind;

typedef struct NitiPack {
  int8_t *to;         /* aligned to 16 */
  const int8_t *from; /* w */
  size_t pitch;
  NitiPackKind kind;
  int32_t k, own, c, kh, kw; /* k: filters that are packed */
  NitiTaps y, x;
  int32_t in_row;
  uint32_t end; /* packing's own: the first block that is not its own */
} NitiPack;

/* What is to be packed. As much as a launch takes is launched at a time. */
enum { NITI_PACKS = 51 };
struct NitiPacks {
  NitiCuda *cuda;
  int count;
  NitiPack all[NITI_PACKS];
};

/* Of no two that are launched together may one write what the other reads or writes. */
void niti_packs_add(NitiPacks *, const NitiPack *);
/* Launches what has not been launched yet. */
void niti_packs_end(NitiPacks *);

#ifdef __cplusplus
}
#endif
#endif
